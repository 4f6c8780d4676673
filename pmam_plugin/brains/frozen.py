"""What is frozen is at rest: no dropout, no statistics that move."""

from __future__ import annotations

from torch import nn

from pmam_plugin.features import MelFrontEnd


def frozen_parts(module: nn.Module, inside_frozen: bool = False) -> list[str]:
    """Names of the parts of ``module`` that belong in evaluation mode while it trains.

    A part whose parameters are all frozen has no dropout and keeps its batch norm's statistics; the references leave
    both running in a stage that freezes the encoder, so that what is called frozen answers differently every time.
    Parts without parameters (dropout) belong to what they stand in. Front ends are never listed: what they vary in
    training is augmentation of the sound.
    """
    if isinstance(module, MelFrontEnd):
        return []
    parameters = list(module.parameters())
    frozen = inside_frozen or (bool(parameters) and not any(parameter.requires_grad for parameter in parameters))
    found = [""] if frozen else []
    for name, child in module.named_children():
        found += [f"{name}.{part}" if part else name for part in frozen_parts(child, frozen)]
    return found


def rest(module: nn.Module, parts: list[str]) -> None:
    """Put the ``parts`` of ``module`` into evaluation mode, each by itself; call after ``module.train()``."""
    for name in parts:
        module.get_submodule(name).training = False
