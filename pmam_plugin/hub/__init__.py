"""The Hugging Face Hub: publish a model folder, fetch one, and the card that goes with it.

>>> from pmam_plugin import SoundEventDetector, hub  # doctest: +SKIP
>>> detector = SoundEventDetector.from_pretrained("org/name", revision="v1")  # doctest: +SKIP
>>> detector.push_to_hub("me/name", private=True)  # doctest: +SKIP
>>> hub.push("results/pmam/21/model", "org/name", license="apache-2.0", dataset="DESED validation")  # doctest: +SKIP
>>> model = hub.load_model("org/name").model  # doctest: +SKIP

Why functions and no ``PyTorchModelHubMixin``: that class writes a ``config.json`` of its own from plain constructor
arguments and drops all others, while our models are built from parts that are objects themselves; two formats of one
file would be one too many. :class:`~pmam_plugin.SoundEventDetector` has its three methods (``from_pretrained``,
``save_pretrained``, ``push_to_hub``) for the one format that training writes, s3prl loads and the Hub holds;
:func:`load_model` and :func:`push_model` do the same for plain models.
"""

from pmam_plugin.checkpoints import fetch_model, load_model
from pmam_plugin.checkpoints.card import model_card
from pmam_plugin.hub.transfer import pull, push, push_model, write_companions

__all__ = ["fetch_model", "load_model", "model_card", "pull", "push", "push_model", "write_companions"]
