"""What every estimator of this room shares: scikit-learn's conventions, without needing scikit-learn."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from pmam_plugin.errors import InputError

Self = TypeVar("Self", bound="Estimator")


@dataclass(frozen=True)
class FitProgress:
    """What a progress hook is told after every iteration of a fit."""

    iteration: int
    max_iter: int
    frames: int
    """Frames seen in this iteration, over all processes."""
    objective: float
    """Mean log-likelihood per frame in nats (mixture; a lower bound after a sparse step) or inertia (k-means)."""
    change: float
    """Difference to the objective of the iteration before; infinite in the first."""
    exact: bool = True
    """False after a sparse E-step."""


ProgressHook = Callable[[FitProgress], None]


class Estimator:
    """Constructor arguments as parameters, fitted attributes that end in ``_``.

    Works with :func:`sklearn.base.clone` and in scikit-learn's searches: nothing is checked or converted in the
    constructor, everything in ``fit``.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor arguments by name (``deep`` is scikit-learn's and changes nothing here)."""
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: getattr(self, name) for name in names}

    def set_params(self: Self, **parameters: Any) -> Self:
        """Replace constructor arguments.

        Raises:
            ValueError: a name the constructor does not know.
        """
        known = self.get_params()
        for name, value in parameters.items():
            if name not in known:
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        shown = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if not isinstance(value, Tensor | np.ndarray) and value != defaults[name].default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _require_fitted(self, attribute: str) -> None:
        if not hasattr(self, attribute):
            raise InputError(f"this {type(self).__name__} is not fitted yet; call fit or load a saved one first")


def like(result: Tensor, given: Any) -> Any:
    """``result`` in the kind of container ``given`` came in: an array for an array, a tensor for a tensor."""
    return result if isinstance(given, Tensor) else result.cpu().numpy()


def as_frames(frames: Any, device: torch.device, width: int) -> Tensor:
    """A 2-D array or tensor as float32 on ``device``.

    Raises:
        InputError: not two-dimensional, of another width than the fitted data, or not finite.
    """
    tensor = frames if isinstance(frames, Tensor) else torch.as_tensor(np.asarray(frames))
    if tensor.ndim != 2 or tensor.shape[1] != width:
        raise InputError(f"expected frames of shape (n, {width}) as in fit, got {tuple(tensor.shape)}")
    tensor = tensor.to(device=device, dtype=torch.float32)
    if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
        raise InputError("the frames contain NaN or infinite values; remove them first")
    return tensor
