"""Importer of the official PaSST checkpoints: a flat dictionary of 159 tensors."""

from __future__ import annotations

import os

from pmam_plugin.checkpoints.foreign import ImportReport, load_from_folder, read_checkpoint, tensors_in
from pmam_plugin.encoders.passt import PaSST, PaSSTEncoder
from pmam_plugin.errors import InputError
from pmam_plugin.weights import load_strictly


def load_passt(encoder: PaSST | PaSSTEncoder, source: str | os.PathLike[str]) -> ImportReport:
    """Load PaSST's weights, strictly, into a backbone or the backbone of a frame encoder.

    Args:
        encoder: gets the weights; its frequency pooling and output norm, which PaSST does not have, stay as they are.
        source: the official file (``passt-s-f128-p16-s10-ap.476-swa.pt`` or a variant of its shape), or a folder that
            :func:`import_passt` wrote.

    Raises:
        InputError: the file cannot be read, or a tensor is missing, unexpected or of another shape.
    """
    backbone = encoder.transformer if isinstance(encoder, PaSSTEncoder) else encoder
    if report := load_from_folder(backbone, source):
        return report
    tensors = tensors_in(read_checkpoint(source))
    skipped = [name for name in tensors if name.startswith(("head.", "head_dist."))]
    load_strictly(backbone, {name: tensor for name, tensor in tensors.items() if name not in skipped}, source)
    return ImportReport(str(source), "official PaSST", len(tensors) - len(skipped), skipped=tuple(skipped))


def import_passt(source: str | os.PathLike[str]) -> tuple[PaSSTEncoder, ImportReport]:
    """A frame encoder with the official weights; its frequency pooling is the mean, which needs no training.

    Raises:
        InputError: see :func:`load_passt`.
    """
    tensors = tensors_in(read_checkpoint(source))
    if not {"cls_token", "time_new_pos_embed"} <= tensors.keys():
        raise InputError(f"{source}: holds no PaSST (no cls_token and time_new_pos_embed); choose another --kind")
    depth = sum(name.endswith(".norm1.weight") for name in tensors)
    dim = tensors["cls_token"].shape[-1]
    encoder = PaSSTEncoder(
        layer=min(10, depth),
        frequency_pooling="mean",
        depth=depth,
        dim=dim,
        heads=max(1, dim // 64),
        time_patches=tensors["time_new_pos_embed"].shape[-1],
    )
    return encoder, load_passt(encoder, source)
