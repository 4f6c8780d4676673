"""s3prl: models of this package as upstreams.

>>> from pmam_plugin.upstream import register  # doctest: +SKIP
>>> register()  # doctest: +SKIP
>>> upstream = s3prl.nn.S3PRLUpstream("pmam_local", path_or_url="a/model/folder").eval()  # doctest: +SKIP

``python -m pmam_plugin.upstream PROBLEM ...`` runs an s3prl problem with them. Importing this module imports neither
s3prl nor a model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
