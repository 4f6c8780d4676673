from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes.frames import FrameBatches, sample_frames

CPU = torch.device("cpu")


def test_arrays_files_tensors_and_batches_hold_the_same_frames(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    data.tofile(tmp_path / "frames.bin")
    sources = [
        data,
        data.astype(np.float64),
        torch.from_numpy(data),
        np.memmap(tmp_path / "frames.bin", np.float32, mode="r", shape=data.shape),
        [data[:7], torch.from_numpy(data[7:40]), data[40:]],
    ]
    for source in sources:
        batches = FrameBatches(source, 16, CPU)
        for _ in range(2):
            parts = list(batches)
            assert all(part.dtype == torch.float32 and len(part) <= 16 for part in parts)
            assert np.allclose(torch.cat(parts).numpy(), data)
        assert batches.count == 50


def test_small_batches_are_joined() -> None:
    batches = FrameBatches([torch.zeros(3, 2)] * 10, 12, CPU)
    assert [len(batch) for batch in batches] == [12, 12, 6]


def test_a_nan_is_named_by_frame_and_dimension() -> None:
    data = np.zeros((10, 3), dtype=np.float32)
    data[7, 1] = np.nan
    with pytest.raises(InputError, match=r"frame 7, dimension 1 is nan"):
        list(FrameBatches(data, 4, CPU))


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros(5), r"shape \(n, dimensions\)"),
        (np.zeros((0, 3)), "no frames to fit on"),
        (iter([np.zeros((4, 3))]), "only once"),
        ("frames.npy", "cannot fit on str"),
        ([np.zeros((4, 3)), np.zeros((4, 2))], "2 dimensions where the ones before had 3"),
        ([], "no frames to fit on"),
    ],
)
def test_what_holds_no_frames_is_refused_in_one_sentence(frames: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample_frames(FrameBatches(frames, 8, CPU), 4, 0, 1, "clusters")


def test_batches_that_change_between_passes_are_noticed() -> None:
    class Shrinking:
        passes = 0

        def __iter__(self):  # type: ignore[no-untyped-def]
            self.passes += 1
            yield torch.zeros(10 - self.passes, 2)

    batches = FrameBatches(Shrinking(), 8, CPU)
    list(batches)
    with pytest.raises(InputError, match="9 frames in one pass and 8 in the next"):
        list(batches)


def test_the_sample_does_not_depend_on_order_or_batches() -> None:
    data = torch.randn(500, 4)
    first = sample_frames(FrameBatches(data, 500, CPU), 50, 3, 1, "clusters")
    shuffled = data[torch.randperm(500)]
    again = sample_frames(FrameBatches(list(shuffled.split(13)), 64, CPU), 50, 3, 1, "clusters")
    assert first.shape == (50, 4)
    assert torch.equal(first, again)
    other = sample_frames(FrameBatches(data, 500, CPU), 50, 4, 1, "clusters")
    assert not torch.equal(first, other)


def test_the_sample_is_uniform() -> None:
    data = torch.arange(400.0)[:, None].repeat(1, 2)
    times = torch.zeros(400)
    for seed in range(200):
        times[sample_frames(FrameBatches(data, 64, CPU), 40, seed, 1, "clusters")[:, 0].long()] += 1
    assert abs(float(times[:200].sum()) / float(times.sum()) - 0.5) < 0.02
    assert times.std() < 2 * (200 * 0.1 * 0.9) ** 0.5


def test_copies_of_a_frame_count_once_in_the_sample() -> None:
    data = torch.cat([torch.zeros(900, 2), torch.randn(100, 2)])
    sample = sample_frames(FrameBatches(data, 64, CPU), 101, 0, 1, "clusters")
    assert len(sample) == 101
    with pytest.raises(InputError, match="only 1 different frames for 3 clusters"):
        sample_frames(FrameBatches(torch.zeros(50, 2), 64, CPU), 10, 0, 3, "clusters")
