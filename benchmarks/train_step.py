"""Speed of the full-size PMAM: a masked pre-training step and sliding-window inference.

    python benchmarks/train_step.py [--batch 4] [--threads 2] [--device cpu|cuda] [--profile] [--tiny]

Prints, for float32 and bfloat16 autocast: seconds, model FLOPs per second (counted by torch.utils.flop_counter: matrix
products, convolutions and attention, forward and backward as executed), and their share of the rate of a plain matrix
product measured in the same run, which is the model FLOPs utilisation (MFU). A training step is forward, loss, backward
and AdamW with LoRA on blocks 8 to 11 and everything else as in the paper.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pmam_plugin.encoders import CNNEncoder, DualBranchEncoder, PaSSTEncoder, Windows
from pmam_plugin.features import FrontEnds, PaSSTMel
from pmam_plugin.losses.prototype import PrototypeBCE, prototype_presence
from pmam_plugin.models import Backbone, FrameDetector, LinearSoftmaxHead, MaskedModel
from pmam_plugin.nn.context import RelativePositionTransformer
from pmam_plugin.nn.heads import PredictionHead, TagHead
from pmam_plugin.nn.lora import add_lora
from pmam_plugin.nn.masking import BlockMasking

PROTOTYPES = 30
# Squares, and the two products of a feed-forward part at batch 4.
_SIZES = ((1024, 1024, 1024), (2048, 2048, 2048), (4096, 4096, 4096), (4760, 768, 3072), (4760, 3072, 768))


def attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    """Two products of every query with every key."""
    batch, heads, length, dim = query
    return 4 * batch * heads * length * key[2] * dim


def attention_backward_flops(gradient: torch.Size, query: torch.Size, key: torch.Size, *_: Any, **__: Any) -> int:
    """The scores again, then the gradients of scores, values, queries and keys."""
    batch, heads, length, dim = query
    return 10 * batch * heads * length * key[2] * dim


# The flop counter of torch does not know the CPU's fused attention.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flops,
}


@dataclass
class Measurement:
    """One row of the table."""

    what: str
    dtype: str
    seconds: float
    flops: float
    matmul_rate: float

    @property
    def rate(self) -> float:
        """Model FLOPs per second."""
        return self.flops / self.seconds

    @property
    def share(self) -> float:
        """Part of the matmul rate of the same precision."""
        return self.rate / self.matmul_rate


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4, help="clips of a training step")
    parser.add_argument("--clips", type=int, default=1, help="clips of sliding-window inference")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a clip")
    parser.add_argument("--steps", type=int, default=3, help="measured repetitions; the median counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=("train", "windows"), help="leave the other measurement out")
    parser.add_argument("--tiny", action="store_true", help="a toy model, to see that the command works")
    parser.add_argument("--profile", action="store_true", help="also print where the time of a training step goes")
    return parser.parse_args(argv)


def backbone(tiny: bool) -> Backbone:
    transformer, cnn = PaSSTEncoder(), CNNEncoder()
    if tiny:
        transformer = PaSSTEncoder(dim=24, heads=2, pooling_heads=2)
        cnn = CNNEncoder(channels=(4, 8), pooling=((2, 8), (2, 16)))
    dim, heads = (24, 2) if tiny else (384, 12)
    encoder = DualBranchEncoder(transformer, cnn, dim=dim)
    return Backbone(FrontEnds(mel=PaSSTMel()), encoder, RelativePositionTransformer(dim, heads=heads))


def matmul_rate(device: torch.device, dtype: torch.dtype, sizes: tuple[tuple[int, int, int], ...]) -> float:
    """FLOPs per second of plain matrix products: the best of all shapes and repetitions.

    Nothing makes a machine too fast, so the best is its rate, and a bad shape for one library does not flatter us.
    """
    best = 0.0
    for rows, inner, columns in sizes:
        left = torch.randn(rows, inner, device=device).to(dtype)
        right = torch.randn(inner, columns, device=device).to(dtype)
        seconds = min(timed(lambda left=left, right=right: left @ right, device) for _ in range(6))  # type: ignore[misc]
        best = max(best, 2 * rows * inner * columns / seconds)
    return best


def timed(action: Callable[[], Any], device: torch.device) -> float:
    """Seconds that ``action`` takes."""
    synchronise(device)
    start = time.perf_counter()
    action()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def training_step(options: argparse.Namespace, device: torch.device) -> Callable[[torch.dtype], None]:
    """A function that makes one step at a precision."""
    torch.manual_seed(0)
    base = backbone(options.tiny)
    space: int = base.encoder.transformer.dim  # type: ignore[assignment, union-attr]
    add_lora(base, blocks=range(8, 12))
    tagger = TagHead(space, PROTOTYPES, 12)
    model = MaskedModel(base, BlockMasking(), PredictionHead(base.dim, space), tagger).to(device).train()
    features = base.frontend(torch.randn(options.batch, round(options.seconds * base.sample_rate), device=device))
    frames = base.encoder.output_frames({name: mel.shape[-1] for name, mel in features.items()})
    posteriors = torch.randn(options.batch, frames, PROTOTYPES, device=device).mul(5).softmax(dim=-1)
    prototypes = torch.randn(PROTOTYPES, space, device=device)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4, fused=True)
    loss = PrototypeBCE()

    def step(dtype: torch.dtype) -> None:
        with autocast(device, dtype):
            output = model(features)
        value = loss(output.prediction.float(), output.mask, posteriors, prototypes)
        value = value + 0.1 * torch.nn.functional.binary_cross_entropy(output.tags, prototype_presence(posteriors))
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def window_inference(options: argparse.Namespace, device: torch.device) -> Callable[[torch.dtype], None]:
    """A function that scores clips with the paper's windows."""
    torch.manual_seed(0)
    base = backbone(options.tiny)
    token_dim = base.encoder.token_dim
    head = LinearSoftmaxHead(base.dim, 10, token_dim=token_dim)
    model = FrameDetector(base, head, [str(index) for index in range(10)]).to(device).eval()
    features = base.frontend(torch.randn(options.clips, round(options.seconds * base.sample_rate), device=device))

    def infer(dtype: torch.dtype) -> None:
        with torch.no_grad(), autocast(device, dtype):
            model(features, windows=Windows())

    return infer


def autocast(device: torch.device, dtype: torch.dtype) -> Any:
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def measure(
    what: str, action: Callable[[torch.dtype], None], rates: dict[torch.dtype, float], steps: int, device: torch.device
) -> list[Measurement]:
    """Time ``action`` at every precision."""
    rows = []
    for dtype, rate in rates.items():
        with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
            action(dtype)
        seconds = sorted(timed(lambda dtype=dtype: action(dtype), device) for _ in range(steps))  # type: ignore[misc]
        rows.append(Measurement(what, str(dtype).split(".")[-1], seconds[steps // 2], counter.get_total_flops(), rate))
    return rows


def table(rows: list[Measurement]) -> str:
    """The measurements in columns; speed is relative to the float32 row of the same measurement."""
    lines = [f"{'':28}{'dtype':>10}{'s':>9}{'TFLOP':>8}{'TFLOP/s':>9}{'matmul':>8}{'share':>8}{'speed':>8}"]
    for row in rows:
        slowest = next(other.seconds for other in rows if other.what == row.what)
        lines.append(
            f"{row.what:28}{row.dtype:>10}{row.seconds:9.3f}{row.flops / 1e12:8.3f}{row.rate / 1e12:9.3f}"
            f"{row.matmul_rate / 1e12:8.3f}{row.share:8.1%}{slowest / row.seconds:7.2f}x"
        )
    return "\n".join(lines)


def profile(action: Callable[[torch.dtype], None], dtype: torch.dtype) -> str:
    with torch.profiler.profile(record_shapes=True) as record:
        action(dtype)
    averages = record.key_averages(group_by_input_shape=True)
    return averages.table(
        sort_by="self_cpu_time_total", row_limit=45, max_name_column_width=45, max_shapes_column_width=90
    )


def main(argv: list[str] | None = None) -> list[Measurement]:
    options = arguments(argv)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    dtypes = (torch.float32, torch.bfloat16)
    sizes = ((256, 256, 256),) if options.tiny else _SIZES
    rates = {dtype: matmul_rate(device, dtype, sizes) for dtype in dtypes}
    rows: list[Measurement] = []
    if options.only != "windows":
        step = training_step(options, device)
        rows += measure(f"training step, batch {options.batch}", step, rates, options.steps, device)
        if options.profile:
            for dtype in dtypes:
                print(profile(step, dtype))
        del step
    if options.only != "train":
        infer = window_inference(options, device)
        rows += measure(f"window inference, {options.clips} clip(s)", infer, rates, options.steps, device)
    print(table(rows))
    return rows


if __name__ == "__main__":
    main()
