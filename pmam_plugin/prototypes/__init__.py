"""Prototypes: mixtures over frame embeddings, their posteriors, and where both are kept."""

from pmam_plugin.prototypes.components import PrincipalComponents
from pmam_plugin.prototypes.first_embeddings import context_windows
from pmam_plugin.prototypes.kmeans import KMeans
from pmam_plugin.prototypes.mixture import GaussianMixture
from pmam_plugin.prototypes.prototype_set import PrototypeSet
from pmam_plugin.prototypes.store import ArrayStore, EmbeddingStore, PosteriorStore

__all__ = [
    "ArrayStore",
    "EmbeddingStore",
    "GaussianMixture",
    "KMeans",
    "PosteriorStore",
    "PrincipalComponents",
    "PrototypeSet",
    "context_windows",
]
