"""How a model is heard: all that turns what it answers into scores and events, and by what that was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pmam_plugin.config import configurable
from pmam_plugin.errors import InputError
from pmam_plugin.nn.windows import Windows
from pmam_plugin.postprocessing.filters import PostProcessing


@configurable
class Scoring:
    """How a model's output becomes scores and events, and by what a run chooses among models and their post-processing.

    Args:
        postprocessing: weak mask, filters or boxes, thresholds; None means no filter, threshold 0.5.
        windows: sliding windows of the encoder; None encodes clips whole.
        temperature: divides the logits; below one sharpens.
        selection_metrics: figures whose mean on the selection set decides: which epoch, student or teacher, filters or
            boxes.
        segments: try change-detection bounding boxes in place of the filters, tuned per class on the selection set.
        thresholds: ``fixed`` (those of ``postprocessing``; 0.5 for the clip F1), or ``tuned`` per class on the
            selection set: event F1 decides for events, clip F1 for clips.
        beta: of the F score by which event thresholds are tuned; below one, fewer false alarms for more misses.

    Raises:
        InputError: a temperature that is not positive, or thresholds that are neither.
    """

    _arguments: Mapping[str, Any]

    def __init__(
        self,
        postprocessing: PostProcessing | None = None,
        windows: Windows | None = None,
        temperature: float = 1.0,
        selection_metrics: Sequence[str] = ("psds1_mean", "event_f1_macro"),
        segments: bool = True,
        thresholds: Literal["fixed", "tuned"] = "fixed",
        beta: float = 1.0,
    ) -> None:
        if not temperature > 0:
            raise InputError(f"temperature {temperature}: must be more than 0; it divides the logits")
        if thresholds not in ("fixed", "tuned"):
            raise InputError(f"thresholds are fixed or tuned, not {thresholds!r}")
        self.postprocessing = PostProcessing() if postprocessing is None else postprocessing
        self.windows, self.temperature = windows, float(temperature)
        self.selection_metrics = tuple(selection_metrics)
        self.segments, self.thresholds, self.beta = segments, thresholds, beta

    @property
    def decides(self) -> dict[str, Any]:
        """Arguments that decide which weights are kept; the others concern what is done with these."""
        tuning = ("segments", "thresholds", "beta")
        return {name: value for name, value in self._arguments.items() if name not in tuning}

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of the model's forward, as a model folder keeps them."""
        options: dict[str, Any] = {} if self.windows is None else {"windows": self.windows}
        if self.temperature != 1.0:
            options["temperature"] = self.temperature
        return options
