"""s3prl's older interface (``run_downstream.py --hub huggingface``) imports the upstream from here.

It wants ``ckpt`` to be a file of this repository; any of them says which folder is meant. The supported way is
``pmam_plugin.upstream.register()`` and ``S3PRLUpstream("pmam_hub", path_or_url="org/name")``.
"""

from pathlib import Path
from typing import Any

from pmam_plugin.upstream import UpstreamExpert as FolderExpert


class UpstreamExpert(FolderExpert):
    """The model of this repository."""

    def __init__(self, ckpt: Any = None, model_config: Any = None, refresh: bool = False, **options: Any) -> None:
        super().__init__(Path(__file__).parent, model_config, refresh, **options)
