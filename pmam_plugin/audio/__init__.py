"""Any recording -> samples: one reader, one notion of a clip's name, one list of endings."""

import lazy_loader

# On first use: names of clips are needed where nothing is decoded; they must not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
