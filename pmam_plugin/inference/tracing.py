"""Parts of models in a form that can be traced for any length of clip.

A tracer records what is computed for one example. Whatever becomes a plain number on the way (a branch on a length, a
shape given to ``unflatten``) is a constant in the record, and a Fourier transform has no place in it at all. The
replacements here compute the same values from operations that are recorded as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pmam_plugin.encoders.atst import ATSTFrame
from pmam_plugin.encoders.passt import PaSST
from pmam_plugin.encoders.yamnet import YAMNetPatches
from pmam_plugin.features import MelFrontEnd


class TraceableShapes(TorchFunctionMode):
    """While this is active, shapes stay part of the record in the functions that would turn them into constants."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, arguments: Sequence[Any] = (), named: Any = None
    ) -> Any:
        """Replace a function that forgets shapes; let all others through."""
        replacement = _REPLACEMENTS.get(function, function)
        return replacement(*arguments, **(named or {}))


def unflatten(tensor: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """``tensor.unflatten(dim, sizes)`` by a reshape."""
    axis = dim % tensor.ndim
    return tensor.reshape(*tensor.shape[:axis], *sizes, *tensor.shape[axis + 1 :])


def adaptive_average(frames: Tensor, length: int) -> Tensor:
    """``adaptive_avg_pool1d`` as a product with a matrix of weights, ``(batch, dim, n) -> (batch, dim, length)``."""
    width, count = torch.as_tensor(frames.shape[-1]), torch.as_tensor(length)
    row, column = torch.arange(length)[:, None], torch.arange(frames.shape[-1])  # type: ignore[arg-type]
    first = torch.div(row * width, count, rounding_mode="floor")
    last = torch.div((row + 1) * width + count - 1, count, rounding_mode="floor")
    weights = ((column >= first) & (column < last)).to(frames.dtype)
    return frames @ (weights / weights.sum(dim=1, keepdim=True)).T


_REPLACEMENTS: Mapping[Any, Callable[..., Any]] = {
    Tensor.unflatten: unflatten,
    torch.adaptive_avg_pool1d: adaptive_average,
}


class ConvolutionSpectrum(MelFrontEnd):
    """The spectrum of a front end as one convolution with windowed sines and cosines."""

    basis: Tensor

    def spectrum(self, waveform: Tensor) -> Tensor:
        """See :meth:`MelFrontEnd.spectrum`."""
        real, imaginary = functional.conv1d(self.extended(waveform)[:, None], self.basis, stride=self.hop).chunk(2, 1)
        power = real.square() + imaginary.square()
        return power if self.exponent == 2 else power.sqrt()

    def extended(self, waveform: Tensor) -> Tensor:
        """Reflected; the waveform must be longer than half a Fourier transform."""
        margin = self.n_fft // 2
        return functional.pad(waveform[:, None], (margin, margin), mode="reflect")[:, 0]


class AnyLengthPaSST(PaSST):
    """PaSST whose position table is read without a branch on the length."""

    def _time_positions(self, patches: int) -> Tensor:
        return stretched(self.time_new_pos_embed[:, :, 0], patches).unsqueeze(2)


class AnyLengthATST(ATSTFrame):
    """ATST-Frame whose position table is read without a branch on the length."""

    def positions(self, tokens: int) -> Tensor:
        """See :meth:`ATSTFrame.positions`."""
        return stretched(self.pos_embed[:, 1:].transpose(1, 2), tokens).transpose(1, 2)


def stretched(table: Tensor, length: int) -> Tensor:
    """The first ``length`` columns of a table ``(1, dim, size)``; all of them, spread linearly, if they are fewer."""
    size = table.shape[-1]
    ratio = (torch.as_tensor(length) / size).clamp(min=1.0)
    position = ((torch.arange(length) + 0.5) / ratio - 0.5).clamp(0, size - 1)
    left = position.floor().long()
    right = (left + 1).clamp(max=size - 1)
    return torch.lerp(table[..., left], table[..., right], (position - left).to(table.dtype))


def make_traceable(model: nn.Module) -> None:
    """Change the parts of ``model``, in place, that could not be traced as they are."""
    for module in model.modules():
        own = type(module)
        if isinstance(module, MelFrontEnd):
            # Own class first, then the convolution, then the base: what a subclass does around the spectrum stays.
            module.__class__ = type(f"Traceable{own.__name__}", (own, ConvolutionSpectrum), {})
            module.register_buffer("basis", fourier_basis(module), persistent=False)
        elif isinstance(module, PaSST):
            module.__class__ = type(f"AnyLength{own.__name__}", (AnyLengthPaSST, own), {})
        elif own is ATSTFrame:
            module.__class__ = AnyLengthATST
        elif isinstance(module, YAMNetPatches):
            module.patches_at_once = None


def fourier_basis(front_end: MelFrontEnd) -> Tensor:
    """Kernels of a real Fourier transform of a front end's frames: cosines, then sines, ``(2 bins, 1, n_fft)``."""
    n_fft = front_end.n_fft
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64)[:, None]
    angle = 2 * torch.pi / n_fft * (bins * torch.arange(n_fft, dtype=torch.float64) % n_fft)
    kernels = torch.cat([angle.cos(), -angle.sin()]) * front_end.window.double().cpu()
    return (kernels @ front_end.conditioned(torch.eye(n_fft, dtype=torch.float64)).T).float()[:, None]
