"""s3prl: models of this package as upstreams.

>>> from pmam_plugin.upstream import register  # doctest: +SKIP
>>> register()  # doctest: +SKIP
>>> upstream = s3prl.nn.S3PRLUpstream("pmam_local", path_or_url="a/model/folder").eval()  # doctest: +SKIP

``python -m pmam_plugin.upstream PROBLEM ...`` runs an s3prl problem with them. Importing this module imports neither
s3prl nor a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pmam_plugin.upstream.expert import UpstreamExpert
    from pmam_plugin.upstream.registry import register

__all__ = ["UpstreamExpert", "register"]


def __getattr__(name: str) -> object:
    if name == "UpstreamExpert":
        from pmam_plugin.upstream.expert import UpstreamExpert

        return UpstreamExpert
    if name == "register":
        from pmam_plugin.upstream.registry import register

        return register
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
