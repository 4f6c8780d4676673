"""Which parameters learn, how fast, and how large an update may be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pmam_plugin.config import configurable

_MULTIPLYING = (
    nn.Linear,
    nn.Bilinear,
    nn.modules.conv._ConvNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)


@configurable
@dataclass(frozen=True)
class ParameterGroup:
    """Parameters whose names match ``pattern`` and their rates; the first group that matches a name takes it.

    Args:
        pattern: regular expression searched in the parameter's dotted name; ``""`` matches all.
        learning_rate: initial rate; 0 freezes the parameters.
        weight_decay: decoupled decay of what multiplies: the matrices and kernels of linear, convolutional, recurrent
            and attention layers. Whatever else a module holds never decays, whatever its shape: biases, norms, class
            and mask tokens, position and embedding tables, queries. They are points in a space, and pulling them to
            its origin is no regularisation. (The PMAM and SEDT references decay everything.)
        name: how reports call the group.
        thaw: they learn even if the model was built with them frozen (:class:`pmam_plugin.encoders.FrozenEncoder`).
    """

    pattern: str
    learning_rate: float
    weight_decay: float = 1e-4
    name: str = ""
    thaw: bool = False


def layerwise_groups(
    template: str,
    layers: int,
    learning_rate: float,
    decay: float = 0.5,
    weight_decay: float = 0.0,
    name: str = "",
) -> list[ParameterGroup]:
    """One group per layer of a deep encoder, its rate falling by ``decay`` from the top layer downwards.

    Args:
        template: pattern with ``{layer}`` in it, ``r"blocks\\.{layer}\\."``.
        layers: number of layers; layer ``layers - 1`` gets ``learning_rate``, layer 0 the smallest rate.
        learning_rate: rate of the top layer.
        decay: ratio of neighbouring layers.
        weight_decay: see :class:`ParameterGroup`.
        name: prefix of the groups' names.
    """
    return [
        ParameterGroup(
            template.format(layer=layer),
            learning_rate * decay ** (layers - 1 - layer),
            weight_decay,
            f"{name}{layer}",
        )
        for layer in reversed(range(layers))
    ]


def build_groups(
    modules: Iterable[tuple[str, nn.Module]], groups: Sequence[ParameterGroup | Sequence[ParameterGroup]]
) -> list[dict[str, Any]]:
    """Optimiser groups for the parameters of ``modules``; freezes what has rate 0 or was frozen before, unless thawed.

    Args:
        modules: named modules; a parameter's name is ``<module>.<path>``.
        groups: rules and lists of rules (:func:`layerwise_groups`), first match wins.

    Returns:
        Dictionaries for a torch optimiser: ``params``, ``lr``, ``initial_lr``, ``weight_decay``, ``name``;
        each rule gives up to two, with and without decay.

    Raises:
        ValueError: a parameter matches no rule, a rule matches no parameter, or nothing is left to train.
    """
    rules = [rule for item in groups for rule in ([item] if isinstance(item, ParameterGroup) else item)]
    chosen: dict[tuple[int, bool], list[nn.Parameter]] = {}
    used: set[int] = set()
    for prefix, module in modules:
        for name, parameter in module.named_parameters():
            owner, _, leaf = name.rpartition(".")
            multiplies = isinstance(module.get_submodule(owner), _MULTIPLYING) and not leaf.startswith("bias")
            path = f"{prefix}.{name}"
            rule = next((index for index, group in enumerate(rules) if re.search(group.pattern, path)), None)
            if rule is None:
                raise ValueError(f"no parameter group matches {path}; end the list with pattern ''")
            used.add(rule)
            if rules[rule].learning_rate == 0 or rules[rule].thaw:
                parameter.requires_grad_(rules[rule].learning_rate != 0)
            if parameter.requires_grad:
                chosen.setdefault((rule, multiplies and parameter.dim() > 1), []).append(parameter)
    unused = [group.pattern for index, group in enumerate(rules) if index not in used and group.pattern]
    if unused:
        raise ValueError(f"parameter groups match nothing: {', '.join(unused)}")
    if not chosen:
        raise ValueError("every parameter is frozen; nothing to train")
    return [
        {
            "params": parameters,
            "lr": rules[rule].learning_rate,
            "initial_lr": rules[rule].learning_rate,
            "weight_decay": rules[rule].weight_decay if decays else 0.0,
            "name": rules[rule].name or rules[rule].pattern or "rest",
        }
        for (rule, decays), parameters in sorted(chosen.items())
    ]


def clip_gradients(optimizer: torch.optim.Optimizer, maximum: float | None) -> Tensor:
    """Scale all groups' gradients to a global L2 norm of at most ``maximum``; returns the norm before.

    ``None`` leaves them alone. SpeechBrain clips the first group only and takes a negative bound as a factor
    that reverses every gradient; neither happens here.

    Raises:
        ValueError: ``maximum`` is zero or negative.
    """
    if maximum is not None and maximum <= 0:
        raise ValueError(f"max_grad_norm must be positive (or null for no clipping), not {maximum}")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    bound = float("inf") if maximum is None else maximum
    return nn.utils.clip_grad_norm_(parameters, bound, foreach=True)
