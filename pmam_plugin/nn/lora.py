"""Low-rank adapters (Hu et al., 2022) on Transformer blocks, through peft."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn

from pmam_plugin.nn.cpu import LowRankLinear

TARGETS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
ADAPTER = "default"


def add_lora(
    module: nn.Module,
    blocks: Sequence[int] = (),
    rank: int = 8,
    alpha: float = 1.0,
    targets: Sequence[str] = TARGETS,
    pattern: str | None = None,
    within: str | None = None,
) -> nn.Module:
    """Adapt linear layers of some Transformer blocks; the Transformer they belong to is frozen otherwise.

    ``y = W x + b + (alpha / rank) B A x`` with ``B`` zero at the start, so the output does not change. In the
    Transformer that owns the blocks only the adapters and its final ``norm`` keep learning (PMAM); everything else in
    ``module`` stays as it was.

    Args:
        module: holds, at any depth, a Transformer with a list called ``blocks``.
        blocks: indices of the blocks, from 0.
        rank: of the update.
        alpha: its scale is ``alpha / rank``.
        targets: linear layers inside a block.
        pattern: instead of blocks and targets, for networks of any make: the names, inside ``within``, of the linear
            layers to adapt, a regular expression that has to match them whole.
        within: name of the part of ``module`` that the pattern is about and that is frozen otherwise.

    Returns:
        ``module``, changed in place.

    Raises:
        ValueError: there are adapters already, or a block, target or part does not exist.
    """
    if any(isinstance(layer, PeftLinear) for layer in module.modules()):
        raise ValueError("this model has LoRA adapters already; merge them before adding others")
    if (pattern is None) == (not blocks) or (pattern is None) != (within is None):
        raise ValueError("either blocks are adapted, or what matches a pattern within a part")
    layers = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    if pattern is not None and within is not None:
        if within not in dict(module.named_modules()):
            raise ValueError(f"the model has no part {within!r} to adapt")
        wanted = re.compile(rf"{re.escape(within)}\.(?:{pattern})")
        names, owners = [name for name in layers if wanted.fullmatch(name)], {within}
        if not names:
            raise ValueError(f"no linear layer in {within} matches {pattern!r}")
    else:
        numbers, ends = "|".join(map(str, blocks)), "|".join(map(re.escape, targets))
        wanted = re.compile(rf"(?:^|.*\.)blocks\.({numbers})\.({ends})")
        names = [name for name in layers if wanted.fullmatch(name)]
        owners = {re.sub(r"\.?blocks\.\d+\.[^.]+\.[^.]+$", "", name) for name in names}
        if not names or len(names) != len(owners) * len(set(blocks)) * len(set(targets)):
            raise ValueError(f"blocks {list(blocks)} with {', '.join(targets)} are not all there to adapt")
    learning = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, bias="none")  # type: ignore[arg-type]
    config._register_custom_module({nn.Linear: AdaptedLinear})
    inject_adapter_in_model(config, module, adapter_name=ADAPTER)
    for name, parameter in module.named_parameters():
        owner = next((owner for owner in owners if not owner or name.startswith(f"{owner}.")), None)
        if owner is None:
            parameter.requires_grad_(learning[name])
        elif ".lora_" not in name:
            final_norm = f"{owner}.norm." if owner else "norm."
            parameter.requires_grad_(name.startswith(final_norm))
    return module


def merge_lora(module: nn.Module) -> dict[str, Tensor]:
    """The state of the model without adapters that computes the same: weights merged, names as if never adapted.

    ``module`` itself is not touched, hence nothing can be merged twice; the result loads into a plain model.
    """
    state = {name: tensor.detach() for name, tensor in module.state_dict().items() if ".lora_" not in name}
    merged = {name.replace(".base_layer.", "."): tensor for name, tensor in state.items()}
    for name, layer in module.named_modules():
        if isinstance(layer, PeftLinear) and not layer.merged:
            key = f"{name}.weight" if name else "weight"
            merged[key] = merged[key] + layer.get_delta_weight(ADAPTER).detach().to(merged[key].dtype)
    return merged


class AdaptedLinear(PeftLinear):
    """peft's adapted linear layer with one matrix product instead of three.

    The rank-8 update is added to the weight, which is small, instead of to the output, which is large; the backward
    pass still never forms the gradient of the full weight.
    """

    @property
    def weight(self) -> Tensor:
        """The adapted weight, for attention that takes the weights of its layers instead of calling them."""
        base: Tensor = self.get_base_layer().weight
        if self.disable_adapters or self.merged or self.active_adapters != [ADAPTER] or ADAPTER not in self.lora_A:
            return base
        return base + self.get_delta_weight(ADAPTER)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``(..., in) -> (..., out)``."""
        if args or kwargs or self.disable_adapters or self.merged or self.active_adapters != [ADAPTER]:
            return super().forward(x, *args, **kwargs)
        base = self.get_base_layer()
        down, up = self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight
        dtype = x.dtype
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
        with torch.autocast(x.device.type, enabled=False):
            return LowRankLinear.apply(x.to(dtype), base.weight, base.bias, down, up, self.scaling[ADAPTER])
