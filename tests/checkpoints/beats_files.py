"""Files in the layouts in which BEATs is published, at any size."""

from __future__ import annotations

import torch
from torch import Tensor

SMALL = {"depth": 2, "dim": 32, "patch_dim": 8, "heads": 2, "kernel": 8}


def published_tensors(
    depth: int = 12, dim: int = 768, patch_dim: int = 512, heads: int = 12, kernel: int = 128, full: bool = False
) -> dict[str, Tensor]:
    """Random tensors under BEATs' published names; ``full`` sizes share one number, to be looked at only."""
    torch.manual_seed(3)
    shapes = {
        "patch_embedding.weight": (patch_dim, 1, 16, 16),
        "layer_norm.weight": (patch_dim,),
        "layer_norm.bias": (patch_dim,),
        "post_extract_proj.weight": (dim, patch_dim),
        "post_extract_proj.bias": (dim,),
        "encoder.pos_conv.0.bias": (dim,),
        "encoder.pos_conv.0.weight_g": (1, 1, kernel),
        "encoder.pos_conv.0.weight_v": (dim, dim // 16, kernel),
        "encoder.layer_norm.weight": (dim,),
        "encoder.layer_norm.bias": (dim,),
    }
    for number in range(depth):
        layer = f"encoder.layers.{number}."
        for part in ("q", "k", "v", "out"):
            shapes[f"{layer}self_attn.{part}_proj.weight"] = (dim, dim)
            shapes[f"{layer}self_attn.{part}_proj.bias"] = (dim,)
        shapes[f"{layer}self_attn.relative_attention_bias.weight"] = (320, heads)
        shapes[f"{layer}self_attn.grep_linear.weight"] = (8, dim // heads)
        shapes[f"{layer}self_attn.grep_linear.bias"] = (8,)
        shapes[f"{layer}self_attn.grep_a"] = (1, heads, 1, 1)
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            shapes |= {f"{layer}{norm}.weight": (dim,), f"{layer}{norm}.bias": (dim,)}
        shapes |= {f"{layer}fc1.weight": (4 * dim, dim), f"{layer}fc1.bias": (4 * dim,)}
        shapes |= {f"{layer}fc2.weight": (dim, 4 * dim), f"{layer}fc2.bias": (dim,)}
    if full:
        return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    tensors = {name: 0.2 * torch.randn(shape) for name, shape in shapes.items()}
    table = next(name for name in tensors if name.endswith("relative_attention_bias.weight"))
    return {n: tensors[table] if n.endswith("relative_attention_bias.weight") else t for n, t in tensors.items()}


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same under longer names."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def parametrised(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the weight norm spelled as newer versions of torch do."""
    spelled = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    return {
        name.replace(name.rpartition(".")[2], spelled.get(name.rpartition(".")[2], name.rpartition(".")[2])): tensor
        for name, tensor in tensors.items()
    }
