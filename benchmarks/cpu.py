"""The kernels of ``pmam_plugin/nn/cpu.py``, and AdamW in one pass, against what torch does without them.

    python benchmarks/cpu.py [--repeats 15]

One thread, float32; both ways take turns, and CPU time is counted, so that a busy machine changes little. Prints the
median of the ratios of neighbours with their quartiles.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pmam_plugin.nn.attention import relative_attention
from pmam_plugin.nn.cpu import Dropout, keep_freed_memory, skew
from pmam_plugin.nn.lora import AdaptedLinear, add_lora

Way = Callable[[], object]


def dropout() -> tuple[Way, Way]:
    """A convolutional layer's output of four clips."""
    image = torch.randn(4, 32, 1000, 64)
    return lambda: Dropout(0.5).train()(image), lambda: nn.Dropout(0.5).train()(image)


def low_rank() -> tuple[Way, Way]:
    """Forward and backward pass of an adapted 768 x 3072 layer on the 1190 tokens of a PaSST clip."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.ModuleDict({"mlp": nn.ModuleDict({"fc1": nn.Linear(768, 3072)})})])
            self.norm = nn.LayerNorm(768)

    block: Any = add_lora(Block(), [0], targets=("mlp.fc1",))
    layer = block.blocks[0]["mlp"]["fc1"]
    tokens = torch.randn(1, 1190, 768, requires_grad=True)
    plain = super(AdaptedLinear, layer).forward
    return lambda: layer(tokens).sum().backward(), lambda: plain(tokens).sum().backward()


def attention() -> tuple[Way, Way]:
    """Forward and backward pass of relative attention over 1000 frames, 12 heads of 32 dimensions, one clip."""
    query, key, value, position = (torch.randn(1, 12, 1000, 32, requires_grad=True) for _ in range(4))
    distance = torch.randn(12, 1999, 32, requires_grad=True)

    def plain() -> object:
        bias = skew(position @ distance.transpose(1, 2)) * 32**-0.5
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias).sum().backward()

    return lambda: relative_attention(query, key, value, position, distance).sum().backward(), plain


def short_attention() -> tuple[Way, Way]:
    """Forward and backward pass of torch's fused attention over 250 tokens of four clips, against products."""
    query, key, value = (torch.randn(4, 12, 250, 64, requires_grad=True) for _ in range(3))

    def products() -> object:
        return ((query * 64**-0.5 @ key.transpose(2, 3)).softmax(dim=-1) @ value).sum().backward()

    return lambda: nn.functional.scaled_dot_product_attention(query, key, value).sum().backward(), products


def optimiser() -> tuple[Way, Way]:
    """An update of 87 M parameters in 150 matrices by AdamW, fused against one operation at a time (foreach)."""
    ways = []
    for options in ({"fused": True}, {"foreach": True}):
        parameters = [nn.Parameter(torch.randn(762, 762)) for _ in range(150)]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        ways.append(torch.optim.AdamW(parameters, **options).step)  # type: ignore[arg-type]
    return ways[0], ways[1]


def kept_memory(repeats: int) -> list[float]:
    """A step on the embeddings of 20 clips, half precision, 125 frames of 3712; before and after, not in turn."""
    stored = torch.randn(20, 125, 3712).half()
    network = nn.Sequential(nn.LayerNorm(3712), Dropout(0.15), nn.Linear(3712, 192)).train()

    def step() -> object:
        clips = stored.float()
        return network(0.7 * clips + 0.3 * clips.flip(0)).sum().backward()

    step()
    before = [cpu_seconds(step) for _ in range(repeats)]
    keep_freed_memory()
    step()
    return [plain / cpu_seconds(step) for plain in before]


def report(name: str, ratios: list[float], description: str | None) -> None:
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"{name:16}{middle:6.2f} x as fast ({low:.2f} to {high:.2f})   {(description or '').strip()}")


def cpu_seconds(way: Way) -> float:
    begin = time.process_time()
    way()
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    for build in (dropout, low_rank, attention, short_attention, optimiser):
        torch.manual_seed(0)
        ours, plain = build()
        ours(), plain()
        ratios = [cpu_seconds(plain) / cpu_seconds(ours) for _ in range(repeats)]
        report(build.__name__, ratios, build.__doc__)
    report("kept_memory", kept_memory(repeats), kept_memory.__doc__)  # last, as the process stays so


if __name__ == "__main__":
    main()
