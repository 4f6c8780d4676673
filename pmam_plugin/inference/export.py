"""Export a detector to ONNX: waveform in, scores out, for clips of any length."""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pmam_plugin.checkpoints.folder import LoadedModel
from pmam_plugin.errors import InputError, reason
from pmam_plugin.files import atomic_path
from pmam_plugin.inference.tracing import TraceableShapes, make_traceable
from pmam_plugin.models.base import Detection, SoundEventModel
from pmam_plugin.models.sedt import SEDT

OPSET = 17
TOLERANCE = 1e-4


class ExportedDetector(nn.Module):
    """What is traced: ``(batch, samples)`` -> frame and clip probabilities.

    Args:
        model: a frame-based model; it is copied.
        options: keyword arguments of its forward.
    """

    def __init__(self, model: SoundEventModel, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().eval()
        self.options = dict(options)
        make_traceable(self.model)

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """``scores (batch, frames, classes)`` and ``clips (batch, classes)``."""
        detection: Detection = self.model(self.model.frontend(waveform), **self.options)
        return detection.frames, self.model.clip_scores(detection)


def export_onnx(loaded: LoadedModel, path: str | os.PathLike[str]) -> Path:
    """Write a detector as one ONNX file, and check it with onnxruntime on clips of several lengths.

    Input ``waveform``, float32 ``(batch, samples)`` at the model's sample rate and at least :func:`shortest_samples`
    long; outputs ``scores``, frame probabilities ``(batch, frames, classes)``, and ``clips``, clip probabilities
    ``(batch, classes)``. Batch and samples are free. These are the scores of the model's plain forward
    (:meth:`~pmam_plugin.SoundEventDetector.scores` with ``postprocess=False``), at the temperature that the folder
    asks for; sliding windows and post-processing stay outside. The file's metadata hold labels, rates and the
    post-processing as JSON.

    Args:
        loaded: as :func:`~pmam_plugin.checkpoints.load_model` gives it.
        path: file to write.

    Returns:
        The path.

    Raises:
        InputError: onnx or onnxruntime is not installed, the model has a part that cannot be exported, or the file
            cannot be written.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; install it with pip install 'pmam-plugin[export]'") from error
    model: SoundEventModel = loaded.model
    if isinstance(model, SEDT):
        raise InputError("SEDT predicts sets of intervals, and only models that score frames can be exported to ONNX")
    options = {name: value for name, value in loaded.scoring.options.items() if name == "temperature"}
    with atomic_path(Path(path)) as temporary:
        _trace(ExportedDetector(model, options), temporary)
        graph = onnx.load(temporary)
        for name, value in describe(loaded).items():
            graph.metadata_props.add(key=name, value=value)
        onnx.checker.check_model(graph)
        onnx.save(graph, temporary)
        _compare(model, options, temporary)
    return Path(path)


def shortest_samples(model: SoundEventModel) -> int:
    """Samples that an exported model's input needs at least, half a second; shorter clips are to be zero-padded."""
    return round(0.5 * model.sample_rate)


def describe(loaded: LoadedModel) -> dict[str, str]:
    """What somebody with nothing but the ONNX file has to know, as strings."""
    model = loaded.model
    return {
        "labels": json.dumps(list(model.labels), ensure_ascii=False),
        "sample_rate": str(model.sample_rate),
        "frame_rate": repr(model.frame_rate),
        "clip_seconds": repr(model.clip_seconds),
        "shortest_samples": str(shortest_samples(model)),
        "postprocessing": json.dumps(loaded.config.get("postprocessing")),
        "options": json.dumps(loaded.config.get("options") or {}),
        "provenance": json.dumps(loaded.config.get("provenance") or {}, ensure_ascii=False),
    }


def _trace(exported: ExportedDetector, path: Path) -> None:
    model = exported.model
    example = torch.zeros(2, round(min(2.0, model.clip_seconds) * model.sample_rate))
    try:
        with warnings.catch_warnings(), torch.no_grad(), TraceableShapes():
            # Of every number that is taken from a shape; what that does to other lengths is compared instead.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                exported,
                (example,),
                str(path),
                input_names=["waveform"],
                output_names=["scores", "clips"],
                dynamic_axes={
                    "waveform": {0: "batch", 1: "samples"},
                    "scores": {0: "batch", 1: "frames"},
                    "clips": {0: "batch"},
                },
                opset_version=OPSET,
                dynamo=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise InputError(f"{type(model).__name__} cannot be exported to ONNX ({reason(error)})") from error


def _compare(model: SoundEventModel, options: Mapping[str, Any], path: Path) -> None:
    """Raise InputError where the file's scores are not the model's, on a whole clip and on a part of one."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    model = copy.deepcopy(model).cpu().float().eval()
    for batch, share in ((1, 1.0), (2, 0.37)):
        samples = max(shortest_samples(model), round(share * model.clip_seconds * model.sample_rate))
        waveform = 0.1 * torch.randn(batch, samples, generator=generator)
        with torch.inference_mode():
            expected = model(model.frontend(waveform), **options).frames.numpy()
        try:
            scores = session.run(["scores"], {"waveform": waveform.numpy()})[0]
        except Exception as error:  # onnxruntime has a class of errors for every status, without a common base
            raise InputError(f"{type(model).__name__} cannot be exported to ONNX ({reason(error)})") from error
        if scores.shape != expected.shape or abs(scores - expected).max() > TOLERANCE:
            raise InputError(f"{type(model).__name__} cannot be exported to ONNX: scores differ for {samples} samples")
