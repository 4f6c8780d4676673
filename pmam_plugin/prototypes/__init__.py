"""Prototypes: the E-step of PMAM, from frame embeddings to soft pseudo-labels on disk."""

from pmam_plugin.prototypes.embedding_store import EmbeddingStore
from pmam_plugin.prototypes.estimator import FitProgress
from pmam_plugin.prototypes.first_embeddings import context_windows, first_embeddings
from pmam_plugin.prototypes.kmeans import KMeans
from pmam_plugin.prototypes.mixture import GaussianMixture
from pmam_plugin.prototypes.posterior_store import PosteriorStore
from pmam_plugin.prototypes.principal import PrincipalComponents
from pmam_plugin.prototypes.prototype_set import PosteriorSummary, PrototypeSet, load_published_means

__all__ = [
    "EmbeddingStore",
    "FitProgress",
    "GaussianMixture",
    "KMeans",
    "PosteriorStore",
    "PosteriorSummary",
    "PrincipalComponents",
    "PrototypeSet",
    "context_windows",
    "first_embeddings",
    "load_published_means",
]
