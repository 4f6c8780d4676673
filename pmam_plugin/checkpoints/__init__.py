"""Model folders, and importers of checkpoints that other projects published (one module per format)."""

from pmam_plugin.checkpoints.folder import LoadedModel, load_model, load_module, load_weights, save_model
from pmam_plugin.checkpoints.foreign import ImportReport
from pmam_plugin.checkpoints.hub_folder import fetch_model

__all__ = ["ImportReport", "LoadedModel", "fetch_model", "load_model", "load_module", "load_weights", "save_model"]
