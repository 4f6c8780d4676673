"""Events and scores in text tables and annotation files: read exactly or refused, by one reader for all; written."""

import lazy_loader

# On first use: who only asks what may be the name of a class must not wait for pandas.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
