"""One experiment on any number of devices, in any number of passes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from pmam_plugin.brains.parts import number_of_passes
from pmam_plugin.data import share_of
from pmam_plugin.models import AudioTagger
from tests.brains.divided import KINDS, train, work
from tests.processes import run_processes

Trained = tuple[dict[str, Tensor], dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("divided")


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Trained]:
    """One process, one pass."""
    return {kind: train(kind, folder / kind / "alone") for kind in KINDS}


def assert_same(ours: Trained, theirs: Trained) -> None:
    for name, value in theirs[0].items():
        torch.testing.assert_close(ours[0][name], value, rtol=0, atol=1e-4, msg=name)
    assert ours[1].keys() == theirs[1].keys()
    for name, points in theirs[1].items():
        assert [step for step, _ in ours[1][name]] == [step for step, _ in points], name
        values = [value for _, value in points]
        assert [value for _, value in ours[1][name]] == pytest.approx(values, rel=1e-3, abs=1e-4), name


@pytest.mark.parametrize("world", [2, 4])
def test_processes_reach_the_same_weights_together(world: int, folder: Path, alone: dict[str, Trained]) -> None:
    """Seven clips, so that shares are uneven; five clips to validate in three batches, so that one process has none."""
    kinds = ["mean_teacher", "masked"]
    run_processes(work, world, str(folder), kinds)
    for kind in kinds:
        for rank in range(world):
            assert_same(torch.load(folder / kind / f"{world}-{rank}.pt", weights_only=False), alone[kind])
    assert alone["mean_teacher"][1]["student_clips"][-1][1] == 5


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("kind", ["mean_teacher", "masked"])
def test_two_gpus_reach_the_weights_of_one(kind: str, folder: Path) -> None:
    """The same over NCCL, with what only GPUs take: synchronised batch norm and their own kernels."""
    for world in (1, 2):
        run_processes(work, world, str(folder / "nccl"), [kind], backend="nccl")
    one, first, second = (
        torch.load(folder / "nccl" / kind / f"{name}.pt", weights_only=False) for name in ("1-0", "2-0", "2-1")
    )
    assert_same(first, one)
    assert_same(second, one)


def test_compiled_networks_are_trained_alike(folder: Path, alone: dict[str, Trained], monkeypatch: Any) -> None:
    """``--compile`` is SpeechBrain's; traced without a compiler's back end, which would take minutes here."""
    compiled, trace = [], functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", lambda module, **_: compiled.append(module) or trace(module))
    assert_same(train("tagger", folder / "tagger" / "compiled", compile=True), alone["tagger"])
    assert [type(module) for module in compiled] == [AudioTagger]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_in_passes_gives_the_same_update(kind: str, folder: Path, alone: dict[str, Trained]) -> None:
    assert_same(train(kind, folder / kind / "passes", micro_batch=2), alone[kind])


def test_who_reads_the_clips_changes_nothing(folder: Path, alone: dict[str, Trained]) -> None:
    weights, curves = train("mean_teacher", folder / "mean_teacher" / "workers", workers=2)
    assert all(torch.equal(weights[name], value) for name, value in alone["mean_teacher"][0].items())
    assert curves == alone["mean_teacher"][1]


@given(st.integers(1, 40), st.integers(0, 10), st.integers(1, 8))
def test_every_row_is_one_processes_and_remainders_go_round(size: int, number: int, world: int) -> None:
    shares = [share_of(size, number, rank, world) for rank in range(world)]
    assert sorted(row for share in shares for row in share) == list(range(size))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    loads = [sum(len(share_of(size, number + step, rank, world)) for step in range(world)) for rank in range(world)]
    assert loads == [size] * world


def test_all_processes_make_as_many_passes() -> None:
    assert number_of_passes(24, 1, None) == 1
    assert number_of_passes(24, 1, 6) == 4
    assert number_of_passes(24, 1, 100) == 1
    assert number_of_passes(7, 2, 2) == 2
    assert number_of_passes(7, 2, 1) == 3, "the process with three clips has no fourth"
