"""Full models: what training stages train and ``from_pretrained`` builds."""

import lazy_loader

# On first use: a process that detects needs one architecture's modules and must not wait for the others'.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
