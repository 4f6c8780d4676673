"""``pmam info``: what a model folder or Hub repository holds."""

from __future__ import annotations

import json as json_format
import shutil
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pmam_plugin.cli import app


@app.command(epilog="Example: pmam info results/pmam/21/model")
def info(
    model: Annotated[
        str, typer.Argument(metavar="FOLDER|ORG/NAME", help="Model folder or Hugging Face Hub id.")
    ] = "builtin",
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="Branch, tag or commit of a Hub repository.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a model detects, how large it is and where it comes from; its weights are checked by loading them."""
    from pmam_plugin.checkpoints import load_module
    from pmam_plugin.checkpoints.hub_folder import WEIGHTS_NAME, fetch_model

    folder = fetch_model(model, revision)
    loaded = load_module(folder)
    facts = describe(loaded.model, loaded.config, folder / WEIGHTS_NAME)
    typer.echo(json_format.dumps(facts, indent=2, ensure_ascii=False) if json else "\n".join(_lines(facts)))


def describe(module: Any, config: Mapping[str, Any], weights: Path) -> dict[str, Any]:
    """Facts about a loaded model, ready for JSON."""
    kept = ("architecture", "labels", "sample_rate", "frame_rate", "clip_seconds", "format_version")
    facts = {name: config[name] for name in kept if name in config}
    facts["parameters"] = sum(parameter.numel() for parameter in module.parameters())
    facts["file_megabytes"] = round(weights.stat().st_size / 1e6, 3)
    facts["postprocessing"] = config.get("postprocessing")
    facts["options"] = config.get("options") or {}
    facts["provenance"] = config.get("provenance") or {}
    facts["layers"] = list(getattr(getattr(module, "backbone", module), "layers", ()))
    return facts


def _lines(facts: Mapping[str, Any]) -> list[str]:
    """One fact per line, names on the left; on a terminal, long ones go on below."""
    from pmam_plugin.checkpoints.card import FIGURES, knowledge

    provenance = dict(facts["provenance"])
    metrics, note = provenance.pop("metrics", None) or {}, provenance.pop("note", None)
    rows = {name: fact for name, fact in facts.items() if name not in ("provenance", "file_megabytes")}
    rows["parameters"] = f"{facts['parameters']:,} in {facts['file_megabytes']} MB"
    figures = "; ".join(f"{FIGURES[key][1]}: {100 * metrics[key]:.1f} %" for key in FIGURES if key in metrics)
    told = {"how_sure": knowledge(facts), "figures": figures}
    texts = {name.replace("_", " "): _text(fact) for name, fact in {**rows, **told, **provenance}.items()}
    width = max(map(len, texts))
    lines = [f"{name:<{width}}  {text}" for name, text in texts.items() if text]
    if note:
        lines.insert(0, f"{'note':<{width}}  {_text(note)}")
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    below = " " * (width + 2)
    return [textwrap.fill(line, columns, subsequent_indent=below) if columns > width + 20 else line for line in lines]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = {name: item for name, item in value.items() if item is not None and name != "type"}
        kind = [_text(value["type"])] if "type" in value else []
        return " ".join([*kind, *(f"{_text(name)}={_nested(item)}" for name, item in inner.items())])
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    # A configuration may come from anywhere: no control sequences reach the terminal.
    return "" if value is None else "".join(letter if letter.isprintable() else "?" for letter in str(value))


def _nested(value: Any) -> str:
    text = _text(value)
    return f"({text})" if isinstance(value, Mapping) else text
