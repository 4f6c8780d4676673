"""Model folders, and importers of checkpoints that other projects published (one module per format)."""

from pmam_plugin.checkpoints.folder import LoadedModel, load_model, load_module, load_weights, save_model
from pmam_plugin.checkpoints.foreign import ImportReport

__all__ = ["ImportReport", "LoadedModel", "load_model", "load_module", "load_weights", "save_model"]
