"""The model card: what a model detects, how well and on what, how to use it, its limits and where it comes from."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_FILES = Path(__file__).parent / "files"
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
CLASS_FIGURES = {"psds1": "PSDS1", "psds2": "PSDS2", "event_f1": "event F1", "segment_f1": "segment F1"}


def model_card(
    config: Mapping[str, Any],
    repository: str | None = None,
    license: str | None = None,
    dataset: str | None = None,
    datasets: Sequence[str] = (),
) -> str:
    """The text of README.md for a model folder.

    Args:
        config: the folder's config.json. Its provenance gives figures (``metrics``) and what they were measured on
            (``measured_on``), ``data``, ``license``, and a ``note`` to stand first.
        repository: Hub id it will have; None for a folder that has not been published.
        license: identifier of the weights' license (``apache-2.0``, ``cc-by-4.0``); by default that of the provenance,
            and unstated if there is none.
        dataset: name of the data the figures were measured on; by default what the provenance says.
        datasets: Hub ids of the training data.

    Returns:
        YAML front matter that the Hub understands (results as ``model-index``), the text, and a last line by which
        :func:`is_generated` knows it again.
    """
    provenance = config.get("provenance") or {}
    measured_on = dataset or str(provenance.get("measured_on") or provenance.get("data") or "unnamed data")
    values = provenance.get("metrics") or {}
    metrics = {key: values[key] for key in FIGURES if isinstance(values.get(key), int | float)}
    title = repository.rpartition("/")[2] if repository else str(config["architecture"])
    header = _header(config, title, license or provenance.get("license"), measured_on, datasets, metrics)
    used = {
        "source": repository or "path/to/this/folder",
        "upstream": "pmam_hub" if repository else "pmam_local",
        "pin": '  # revision="..." pins a commit' if repository else "",
        "companions": "" if repository else "  # after hub.write_companions(folder)",
    }
    text = _template("card.md").substitute(
        used,
        title=title,
        # A part of a model detects nothing alone.
        use=_template("card_use.md").substitute(used) if config.get("labels") else "",
        note=f"> {provenance['note'].strip()}\n\n" if provenance.get("note") else "",
        what=_what(config),
        data=_data(provenance, datasets),
        figures=_figures(metrics, values, measured_on),
        limits=_limits(config),
        provenance=_provenance(provenance),
    )
    card = f"---\n{header}\n---\n\n{text}"
    return f"{card}\n{_mark(card)}\n"


def _template(name: str) -> string.Template:
    return string.Template((_FILES / name).read_text(encoding="utf-8"))


def is_generated(card: str) -> bool:
    """Whether a card is one of :func:`model_card`, as it was written: edited ones belong to whoever edited them."""
    text, _, mark = card.removesuffix("\n").rpartition("\n")
    return mark == _mark(text)


def _mark(card: str) -> str:
    digest = hashlib.sha256(card.encode()).hexdigest()[:16]
    return f"<!-- written by pmam_plugin, {digest}: publishing replaces this card unless you edit it -->"


def _header(
    config: Mapping[str, Any],
    title: str,
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
        model_name=title if results else None,
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
            f"It works at {config['sample_rate']} Hz (other rates are resampled) and gives {config['frame_rate']:g} "
            f"{'scores' if labels else 'frames'} a second."
        )
    if config.get("clip_seconds"):
        lines.append(f"It was trained on clips of {config['clip_seconds']:g} s.")
    return " ".join(lines)


def _data(provenance: Mapping[str, Any], datasets: Sequence[str]) -> str:
    data = str(provenance.get("data") or "")
    lines = [f"{data[:1].upper()}{data[1:]}."] if data else []
    lines += [f"On the Hub: {', '.join(datasets)}."] if datasets else []
    return " ".join(lines) or "Nothing was recorded."


def _figures(metrics: Mapping[str, float], values: Mapping[str, Any], measured_on: str) -> str:
    if not metrics:
        return "None were recorded with the model."
    lines = [f"Measured on: {measured_on}.", "", "| figure | % | 95 % interval | meaning |", "|---|---|---|---|"]
    for key, value in metrics.items():
        bounds = values.get(f"{key}_ci")
        interval = " to ".join(f"{100 * bound:.1f}" for bound in bounds) if bounds else "-"
        lines.append(f"| {FIGURES[key][1]} | {100 * value:.1f} | {interval} | {FIGURES[key][2]} |")
    return "\n".join([*lines, *_classes(values.get("per_class") or {})])


def knowledge(config: Mapping[str, Any]) -> str:
    """How sure a model is of what it knows, for people who use it: ``Speech 41 (62), ...``, the surest class first.

    The figures are event F1 and, in brackets, segment F1, in percent, as its provenance has them; empty where it has
    none.
    """
    provenance = config.get("provenance") or {}
    classes = (provenance.get("metrics") or {}).get("per_class") or {}
    known = {label: values for label, values in classes.items() if values.get("event_f1") is not None}
    if not known:
        return ""
    order = sorted(known, key=lambda label: -float(known[label]["event_f1"]))
    shown = [
        f"{label} {100 * known[label]['event_f1']:.0f} ({100 * (known[label].get('segment_f1') or 0.0):.0f})"
        for label in order
    ]
    return f"{', '.join(shown)}; of 100, for events within 200 ms (for presence in a second)"


def _classes(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Figures of every class, in percent."""
    shown = [key for key in CLASS_FIGURES if any(key in values for values in figures.values())]
    if not shown:
        return []
    lines = ["", f"| class | {' | '.join(CLASS_FIGURES[key] for key in shown)} |", f"|---|{'---|' * len(shown)}"]
    for label, values in figures.items():
        cells = [values.get(key) for key in shown]
        lines.append(f"| {label} | {' | '.join('-' if cell is None else f'{100 * cell:.1f}' for cell in cells)} |")
    return lines


def _limits(config: Mapping[str, Any]) -> str:
    lines = ["* It knows the classes named above and no others, and recordings like those it was trained on."]
    if config.get("sample_rate", 0) > 16000:
        lines.append("* Audio of 16 kHz (all of s3prl) leaves its upper band empty, unlike in training: expect less.")
    lines.append("* Scores are no calibrated probabilities; tune thresholds on data of your own.")
    return "\n".join(lines)


def _provenance(provenance: Mapping[str, Any]) -> str:
    elsewhere = ("metrics", "note", "license", "measured_on", "data")
    facts = {name: value for name, value in provenance.items() if name not in elsewhere and value not in ("", None)}
    return "\n".join(f"* {name.replace('_', ' ')}: {_fact(value)}" for name, value in facts.items()) or (
        "Nothing was recorded."
    )


def _fact(value: Any) -> str:
    """Nested facts on one line: ``file pmam.yaml, settings (dim 144, iterations 2)``."""
    if isinstance(value, Mapping):
        nested = {key: f"({_fact(item)})" if isinstance(item, Mapping) else str(item) for key, item in value.items()}
        return ", ".join(f"{key} {item}" for key, item in nested.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_fact, value)) or "none"
    return str(value)
