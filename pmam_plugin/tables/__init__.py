"""Text tables, read exactly or refused: one reader for training and evaluation."""

import lazy_loader

# On first use: who only asks what may be the name of a class must not wait for pandas.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
