"""The model card: what a model detects, how well and on what, how to use it, its limits and where it comes from."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FILES = Path(__file__).parent / "files"
TASK = "audio-classification"  # the Hub knows no task closer to sound event detection
# Figures that a card lists: key in the provenance, type on the Hub, name, what it says.
FIGURES = {
    "psds1": ("psds", "PSDS1", "localisation in time matters most"),
    "psds2": ("psds", "PSDS2", "telling classes apart matters most"),
    "psds1_mean": ("psds", "PSDS1, no instability penalty", "alpha_st = 0"),
    "event_f1_macro": ("f1", "event F1, macro", "collar of 200 ms, 20 % of the length for offsets"),
    "event_f1_micro": ("f1", "event F1, micro", "collar of 200 ms, 20 % of the length for offsets"),
    "segment_f1_macro": ("f1", "segment F1, macro", "segments of 1 s"),
    "clip_f1_macro": ("f1", "clip F1, macro", "present in a clip or not"),
}


def model_card(
    config: Mapping[str, Any],
    repository: str = "ORG/NAME",
    license: str | None = None,
    dataset: str | None = None,
    datasets: Sequence[str] = (),
) -> str:
    """The text of README.md for a model folder.

    Args:
        config: the folder's config.json; figures come from ``provenance.metrics``.
        repository: Hub id it will have.
        license: identifier of the weights' license (``apache-2.0``, ``cc-by-4.0``); None leaves it unstated.
        dataset: name of the data the figures were measured on; by default what the provenance says of the data.
        datasets: Hub ids of the training data.

    Returns:
        YAML front matter that the Hub understands (results as ``model-index``), and the text.
    """
    provenance = config.get("provenance") or {}
    measured_on = dataset or str(provenance.get("data") or "unnamed data")
    values = provenance.get("metrics") or {}
    metrics = {key: values[key] for key in FIGURES if isinstance(values.get(key), int | float)}
    header = _header(config, repository, license, measured_on, datasets, metrics)
    template = string.Template((FILES / "card.md").read_text(encoding="utf-8"))
    text = template.substitute(
        title=repository.rpartition("/")[2],
        what=_what(config),
        repository=repository,
        figures=_figures(metrics, values, measured_on),
        limits=_limits(config),
        provenance=_provenance(provenance),
    )
    return f"---\n{header}\n---\n\n{text}"


def _header(
    config: Mapping[str, Any],
    repository: str,
    license: str | None,
    measured_on: str,
    datasets: Sequence[str],
    metrics: Mapping[str, float],
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=TASK,
            task_name="Sound event detection",
            dataset_type=_identifier(measured_on),
            dataset_name=measured_on,
            metric_type=FIGURES[key][0],
            metric_name=FIGURES[key][1],
            metric_value=round(float(value), 6),
            metric_args={"key": key},
        )
        for key, value in metrics.items()
    ]
    return ModelCardData(
        license=license,
        library_name="pmam_plugin",
        pipeline_tag=TASK,
        tags=["sound-event-detection", "audio", "speechbrain", "s3prl", str(config["architecture"])],
        datasets=list(datasets) or None,
        metrics=sorted({FIGURES[key][0] for key in metrics}) or None,
        model_name=repository.rpartition("/")[2] if results else None,
        eval_results=results or None,
        ignore_metadata_errors=False,
    ).to_yaml()


def _identifier(name: str) -> str:
    """A dataset's name as the lower-case identifier that the Hub's schema asks for."""
    kept = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
    return "-".join(part for part in kept.split("-") if part)[:60] or "unnamed"


def _what(config: Mapping[str, Any]) -> str:
    labels = config.get("labels")
    lines = [f"`{config['architecture']}` of [pmam_plugin](https://pypi.org/project/pmam-plugin/)."]
    if labels:
        lines.append(f"It detects {len(labels)} sound events with onset and offset: {', '.join(labels)}.")
    if config.get("sample_rate"):
        lines.append(
            f"It works at {config['sample_rate']} Hz (other rates are resampled), gives {config['frame_rate']:g} "
            f"scores a second and was trained on clips of {config.get('clip_seconds', 0):g} s."
        )
    return " ".join(lines)


def _figures(metrics: Mapping[str, float], values: Mapping[str, Any], measured_on: str) -> str:
    if not metrics:
        return "None were recorded with the model."
    lines = [f"Measured on: {measured_on}.", "", "| figure | % | 95 % interval | meaning |", "|---|---|---|---|"]
    for key, value in metrics.items():
        bounds = values.get(f"{key}_ci")
        interval = " to ".join(f"{100 * bound:.1f}" for bound in bounds) if bounds else "-"
        lines.append(f"| {FIGURES[key][1]} | {100 * value:.1f} | {interval} | {FIGURES[key][2]} |")
    return "\n".join(lines)


def _limits(config: Mapping[str, Any]) -> str:
    lines = ["* It knows the classes named above and no others, and recordings like those it was trained on."]
    if config.get("sample_rate", 0) > 16000:
        lines.append("* Audio of 16 kHz (all of s3prl) leaves its upper band empty, unlike in training: expect less.")
    lines.append("* Scores are no calibrated probabilities; tune thresholds on data of your own.")
    return "\n".join(lines)


def _provenance(provenance: Mapping[str, Any]) -> str:
    plain = {name: value for name, value in provenance.items() if name != "metrics" and value not in ("", None)}
    lines = [f"* {name.replace('_', ' ')}: {value}" for name, value in plain.items()]
    return "\n".join(lines) or "Nothing was recorded."
