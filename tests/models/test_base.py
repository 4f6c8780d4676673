import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from pmam_plugin.models.base import frame_rows


@settings(max_examples=60, deadline=None)
@given(duration=st.floats(0.01, 12.0), rate=st.sampled_from([15.625, 25.0, 50.0, 100.0]))
def test_rows_cover_the_clip_exactly(duration: float, rate: float) -> None:
    table = frame_rows(np.random.default_rng(0).random((int(10 * rate), 2)), duration, rate, ["a", "b"]).table()
    assert len(table) == max(1, int(np.ceil(duration * rate - 1e-6)))
    assert table.onset.iloc[0] == 0
    assert table.offset.iloc[-1] == duration
    assert np.array_equal(table.onset.to_numpy()[1:], table.offset.to_numpy()[:-1])
    assert (table.offset > table.onset).all()


def test_rounding_repeats_a_frame_but_unseen_audio_scores_zero() -> None:
    table = frame_rows(np.full((156, 1), 0.7), 10.0, 15.625, ["a"]).table()
    assert table.a.tolist() == [0.7] * 157
    table = frame_rows(np.full((100, 1), 0.7), 2.0, 100.0, ["a"]).table()
    assert table.a.tolist() == pytest.approx([0.7] * 102 + [0.0] * 98)
