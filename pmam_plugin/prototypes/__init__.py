"""Prototypes: the E-step of PMAM, from frame embeddings to soft pseudo-labels on disk; how they agree with labels."""

from pmam_plugin.prototypes.first_embeddings import first_embeddings
from pmam_plugin.prototypes.frames import draw_frames
from pmam_plugin.prototypes.kmeans import KMeans
from pmam_plugin.prototypes.mixture import GaussianMixture
from pmam_plugin.prototypes.projection import Projection
from pmam_plugin.prototypes.prototype_set import PosteriorSummary, PrototypeSet
from pmam_plugin.prototypes.store import ArrayStore

__all__ = [
    "ArrayStore",
    "GaussianMixture",
    "KMeans",
    "PosteriorSummary",
    "Projection",
    "PrototypeSet",
    "draw_frames",
    "first_embeddings",
]
