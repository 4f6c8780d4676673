"""``pmam export``: a detector as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pmam_plugin.cli import app


@app.command(epilog="Example: pmam export results/pmam/21/model --onnx pmam.onnx")
def export(
    model: Annotated[str, typer.Argument(metavar="FOLDER|ORG/NAME", help="Model folder or Hugging Face Hub id.")],
    onnx: Annotated[Path, typer.Option(metavar="FILE", help="File to write.")],
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="Branch, tag or commit of a Hub repository.")
    ] = None,
) -> None:
    """Write a detector as one ONNX file: waveform in, frame and clip scores out, any length, any batch.

    Its scores are compared with the model's in onnxruntime before the file is kept. Sliding windows and post-processing
    are not part of it; labels, rates and the post-processing's settings are in its metadata.
    """
    from rich.console import Console

    from pmam_plugin.checkpoints import load_model
    from pmam_plugin.files import check_writable
    from pmam_plugin.inference.export import export_onnx

    check_writable(onnx)
    loaded = load_model(model, revision)
    with Console(stderr=True).status("tracing the model, then comparing it"):
        path = export_onnx(loaded, onnx)
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
