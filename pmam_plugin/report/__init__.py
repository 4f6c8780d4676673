"""Reports people look at: one HTML file each, with its data, sound and scripts inside and nothing to fetch."""

import lazy_loader

# On first use: who only wants a duration in words must not wait for the pages.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
