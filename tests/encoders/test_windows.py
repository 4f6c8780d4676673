from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings, strategies as st

from pmam_plugin.encoders import PaSSTEncoder, Windows
from pmam_plugin.encoders.passt import PATCH, STRIDE
from pmam_plugin.encoders.windows import encode_windows, window_starts


@settings(max_examples=100, deadline=None)
@given(frames=st.integers(1, 500), length=st.integers(1, 300), hop=st.integers(1, 300))
def test_last_window_ends_with_the_clip(frames: int, length: int, hop: int) -> None:
    starts = window_starts(frames, length, hop)
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert starts[-1] + min(length, frames) == frames
    assert all(later - earlier <= hop for earlier, later in pairwise(starts))


def test_the_paper_windows_cover_ten_seconds() -> None:
    assert window_starts(1000, 512, 49) == [0, 49, 98, 147, 196, 245, 294, 343, 392, 441, 488]
    assert len(window_starts(1000, 512, 31)) == 17


@settings(max_examples=50, deadline=None)
@given(frames=st.integers(1, 300), length=st.floats(0.1, 2.0), hop=st.floats(0.05, 1.0), edge=st.integers(0, 10))
def test_every_frame_of_an_identity_encoder_comes_back(frames: int, length: float, hop: float, edge: int) -> None:
    mel = torch.randn(2, 3, frames)

    def sure(length: int) -> tuple[int, int]:
        return edge, length - edge

    encoded = encode_windows(lambda piece: piece.transpose(1, 2), mel, Windows(length, min(hop, length)), 100.0, sure)
    torch.testing.assert_close(encoded, mel.transpose(1, 2))


def all_of_it(length: int) -> tuple[int, int]:
    return 0, length


def test_windows_go_through_the_encoder_together() -> None:
    sizes = []

    def encode(piece: torch.Tensor) -> torch.Tensor:
        sizes.append(piece.shape[0])
        return piece.transpose(1, 2)

    encode_windows(encode, torch.randn(4, 2, 1000), Windows(5.12, 0.49), 100.0, all_of_it)
    assert sizes == [8, 8, 8, 8, 8, 4]  # on a CPU


def test_clips_stay_apart_however_many_there_are() -> None:
    mel = torch.randn(70, 2, 120)
    encoded = encode_windows(lambda piece: piece.transpose(1, 2), mel, Windows(0.5, 0.2), 100.0, all_of_it)
    torch.testing.assert_close(encoded, mel.transpose(1, 2))


@pytest.mark.parametrize("hop", [0.49, 0.31, 4.0, 5.12])
def test_nothing_extrapolated_enters_but_at_the_clips_own_edges(hop: float) -> None:
    """An encoder of patches that say where their middle is: between patches it knows, outside it repeats."""
    encoder = PaSSTEncoder(layer=1, depth=1, dim=8, heads=2, pooling_heads=2, mel_bins=16)

    def encode(piece: torch.Tensor) -> torch.Tensor:
        middles = piece.unfold(2, PATCH, STRIDE).mean(-1).transpose(1, 2)
        return encoder.grid.interpolate(middles, piece.shape[-1])

    ramp = torch.arange(1000.0).expand(1, 1, -1)
    found = encode_windows(encode, ramp, Windows(5.12, hop), 100.0, encoder._sure)[0, :, 0]
    torch.testing.assert_close(found[8:986], ramp[0, 0, 8:986], atol=1e-2, rtol=0)
    assert found[0] == found[7] == 7.5
    assert found[-1] == found[986] == 488 + 497.5


def test_the_published_windows_count_ten_frames_of_every_patch() -> None:
    published = PaSSTEncoder(layer=1, depth=1, dim=8, heads=2, pooling_heads=2, mel_bins=16, centred_patches=False)
    assert published._sure(512) == (0, 500)
