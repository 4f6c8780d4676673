"""From a corpus in any layout to batches: survey, manifests, the cache of decoded sound, datasets and samplers."""

from pmam_plugin.data.batch import Batch, Item, collate
from pmam_plugin.data.cache import WaveformCache
from pmam_plugin.data.classes import class_list
from pmam_plugin.data.dataset import ClipDataset, read_clip
from pmam_plugin.data.loaders import evaluation_loader, training_loader
from pmam_plugin.data.manifest import SUBSETS, TRAINING_SUBSETS, Clip, Event, Manifest
from pmam_plugin.data.prepare import Prepared, load_prepared, prepare
from pmam_plugin.data.sampler import SubsetBatchSampler, share_of

__all__ = [
    "SUBSETS",
    "TRAINING_SUBSETS",
    "Batch",
    "Clip",
    "ClipDataset",
    "Event",
    "Item",
    "Manifest",
    "Prepared",
    "SubsetBatchSampler",
    "WaveformCache",
    "class_list",
    "collate",
    "evaluation_loader",
    "load_prepared",
    "prepare",
    "read_clip",
    "share_of",
    "training_loader",
]
