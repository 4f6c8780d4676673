from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from hypothesis import given, strategies as st

from pmam_plugin.labels import LabelEncoder
from pmam_plugin.losses.event_targets import PADDING, EventTargets
from pmam_plugin.nn.intervals import box_edges


@given(st.data())
def test_events_survive_the_way_over_frame_labels(data: st.DataObject) -> None:
    labels = ("a", "b")
    rows = []
    for label in labels:
        edges = sorted(data.draw(st.sets(st.integers(0, 99), max_size=6)))
        rows += [(on / 10, off / 10, label) for on, off in zip(edges[::2], edges[1::2])]
    table = pd.DataFrame(rows, columns=["onset", "offset", "event_label"])
    frames = torch.from_numpy(LabelEncoder(labels, 10.0, 100).encode_strong(rows))
    targets = EventTargets.from_frames(frames[None], 100, torch.tensor([True]))
    assert targets.counts.tolist() == [len(rows)]
    found = box_edges(targets.boxes[0]).mul(10).numpy()
    expected = table.sort_values(["event_label", "onset"])
    np.testing.assert_allclose(found, expected[["onset", "offset"]].to_numpy(dtype=float).reshape(-1, 2), atol=1e-5)
    assert [labels[index] for index in targets.labels[0]] == expected["event_label"].tolist()
    assert bool((targets.weights == 1).all())


def test_mixed_frame_labels_give_each_event_its_share() -> None:
    frames = torch.zeros(2, 10, 2)
    frames[1, 2:4, 0], frames[1, 6:9, 0], frames[1, 5:, 1] = 0.3, 0.7, 1.0
    targets = EventTargets.from_frames(frames, 10, torch.tensor([True, True]))
    assert targets.counts.tolist() == [0, 3]
    assert targets.labels.tolist() == [[PADDING] * 3, [0, 0, 1]]
    torch.testing.assert_close(targets.weights[1], torch.tensor([0.3, 0.7, 1.0]))
    torch.testing.assert_close(targets.tags, torch.tensor([[0, 0], [0.7, 1.0]]))


def test_only_strong_clips_have_events_and_tags_come_from_where_they_are_known() -> None:
    frames = torch.ones(3, 10, 2)
    tags = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    strong, tagged = torch.tensor([True, False, False]), torch.tensor([True, True, False])
    targets = EventTargets.from_frames(frames, 10, strong, tags, tagged)
    assert targets.counts.tolist() == [2, 0, 0]
    assert targets.tags[:2].tolist() == [[1, 1], [0, 1]]
    assert targets.tagged.tolist() == [True, True, False]


def test_a_batch_without_any_event_has_no_slots() -> None:
    targets = EventTargets.from_frames(torch.zeros(2, 10, 3), 10, torch.tensor([True, True]))
    assert targets.labels.shape == (2, 0)
    assert targets.boxes.shape == (2, 0, 2)


def test_lists_of_events_are_padded_and_tag_their_clips() -> None:
    targets = EventTargets.from_events(
        [([0, 0], [[0.5, 0.1], [0.2, 0.1]]), ([], []), None],
        3,
        tags=[None, None, [2]],
        weights=[[0.4, 0.5], [], []],
    )
    assert targets.labels.tolist() == [[0, 0], [PADDING] * 2, [PADDING] * 2]
    assert targets.strong.tolist() == [True, True, False]
    torch.testing.assert_close(targets.tags, torch.tensor([[0.9, 0, 0], [0, 0, 0], [0, 0, 1.0]]))
    assert targets.tagged.all()
    assert targets.to("cpu").features is None
