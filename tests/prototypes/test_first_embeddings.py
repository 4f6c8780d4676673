from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from pmam_plugin.errors import InputError
from pmam_plugin.prototypes import first_embeddings
from pmam_plugin.prototypes.first_embeddings import standardise


def test_a_window_stacks_its_neighbours_oldest_first() -> None:
    mel = torch.arange(12.0).view(1, 2, 6)
    rows = standardise(mel)[0]
    windows = first_embeddings(mel, 6, left=1, right=2)[0]
    assert windows.shape == (6, 8)
    for frame, places in {2: [1, 2, 3, 4], 0: [0, 0, 1, 2], 5: [4, 5, 5, 5]}.items():
        torch.testing.assert_close(windows[frame], rows[:, places].T.flatten())


def test_a_thousand_mel_frames_give_the_frames_asked_for() -> None:
    mel = torch.randn(2, 64, 1000)
    embeddings = first_embeddings(mel, 250)
    assert embeddings.shape == (2, 250, 5 * 64)
    averaged = standardise(mel).unflatten(2, (250, 4)).mean(dim=3)
    torch.testing.assert_close(embeddings[:, 7, 128:192], averaged[:, :, 7])


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 10.0), st.floats(-20.0, 20.0))
def test_level_and_spread_of_a_clip_do_not_matter(scale: float, shift: float) -> None:
    mel = torch.randn(1, 4, 20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(first_embeddings(mel * scale + shift, 5), first_embeddings(mel, 5), rtol=1e-3, atol=1e-3)


def test_a_constant_clip_becomes_zero() -> None:
    assert (first_embeddings(torch.full((1, 4, 20), -11.5), 5) == 0).all()


def test_impossible_windows_are_refused_in_one_sentence() -> None:
    mel = torch.zeros(1, 4, 20)
    with pytest.raises(InputError, match="21 embeddings cannot be made of 20 mel frames"):
        first_embeddings(mel, 21)
    with pytest.raises(InputError, match="must not be negative"):
        first_embeddings(mel, 5, left=-1)
