"""The mean teacher: an exponential moving average of a model."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class EMATeacher(nn.Module):
    """A model that is the moving average of another one (Tarvainen and Valpola, 2017).

    After update number ``n`` the teacher keeps ``min(1 - 1 / (n + 1), decay)`` of itself: a true average at first, an
    exponential one later. The number is part of the state, so a teacher that is carried into the next stage is not
    thrown away by its first updates there. Batch norm's running statistics are averaged too; counters are copied.

    Args:
        student: copied to start from; the teacher never takes gradients.
        decay: the final share kept.
    """

    step: Tensor

    def __init__(self, student: nn.Module, decay: float = 0.999) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"a teacher's decay lies in [0, 1), got {decay}")
        self.decay = decay
        self.model = copy.deepcopy(student).requires_grad_(False)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self._updates: int | None = None  # the same number, where reading it does not wait for a GPU

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move towards ``student``; call after every optimiser step.

        Raises:
            ValueError: the student has other tensors than the teacher.
        """
        self._updates = (int(self.step) if self._updates is None else self._updates) + 1
        self.step += 1
        weight = 1.0 - min(1.0 - 1.0 / (self._updates + 1), self.decay)
        ours, theirs = _tensors(self.model), _tensors(student)
        if ours.keys() != theirs.keys():
            raise ValueError(f"student and teacher differ in {sorted(ours.keys() ^ theirs.keys())[0]!r}")
        averaged = [name for name, tensor in ours.items() if tensor.is_floating_point()]
        if averaged:
            targets = [theirs[name].to(ours[name].dtype) for name in averaged]
            torch._foreach_lerp_([ours[name] for name in averaged], targets, weight)
        for name in ours.keys() - set(averaged):
            ours[name].copy_(theirs[name])

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._updates = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the averaged model without recording gradients."""
        with torch.no_grad():
            return self.model(*args, **kwargs)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
