"""What is wrong with detections, told event by event, and what other thresholds would bring."""

import numpy as np
import pandas as pd
import pytest

from pmam_plugin.evaluation.mistakes import find_mistakes, operating_curves

LABELS = ("Cat", "Dog", "Owl")


def table(*rows):
    return pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])


def kinds(detected, truth):
    return [(m.kind, m.label, m.other, round(m.seconds, 2)) for m in find_mistakes(detected, truth, LABELS).found]


def test_every_kind_of_mistake_is_told_from_the_others():
    truth = table(
        ("a", 1.0, 2.0, "Cat"),  # right
        ("a", 3.0, 4.0, "Cat"),  # begins late, ends early
        ("a", 5.0, 7.0, "Cat"),  # begins early; its end is late, but within a fifth
        ("a", 8.0, 8.5, "Dog"),  # missed, short
        ("b", 0.0, 3.0, "Dog"),  # heard as Owl
        ("b", 5.0, 9.0, "Owl"),  # missed: the Cat on it covers too little
        ("c", None, None, None),
    )
    detected = table(
        ("a", 1.1, 2.15, "Cat"),
        ("a", 3.3, 3.7, "Cat"),
        ("a", 4.6, 7.35, "Cat"),
        ("b", 1.0, 3.0, "Owl"),
        ("b", 5.0, 6.0, "Cat"),
        ("c", 1.0, 2.0, "Owl"),
    )
    assert kinds(detected, truth) == [
        ("begins_late", "Cat", None, 0.3),
        ("ends_early", "Cat", None, 0.3),
        ("begins_early", "Cat", None, 0.4),
        ("missed_short", "Dog", None, 0),
        ("confused", "Dog", "Owl", 0),
        ("false_alarm", "Owl", "Dog", 0),
        ("missed", "Owl", None, 0),
        ("false_alarm", "Cat", "Owl", 0),
        ("false_alarm", "Owl", None, 0),
    ]
    mistakes = find_mistakes(detected, truth, LABELS)
    assert mistakes.events == {"Cat": 3, "Dog": 2, "Owl": 1}
    assert mistakes.right == {"Cat": 1, "Dog": 0, "Owl": 0}
    assert mistakes.confusions["Dog"] == {None: 1, "Owl": 1}
    assert mistakes.confusions["Cat"] == {"Cat": 3}
    assert mistakes.confusions[None] == {"Owl": 1}


def scores(**classes):
    frames = len(next(iter(classes.values())))
    return pd.DataFrame({"onset": np.arange(frames) * 1.0, "offset": np.arange(frames) + 1.0, **classes})


def test_an_operating_curve_is_what_thresholding_gives():
    random = np.random.default_rng(0)
    tables = {name: scores(Cat=random.random(60), Dog=random.random(60)) for name in "ab"}
    truth = table(("a", 3.0, 9.0, "Cat"), ("a", 20.0, 21.0, "Cat"), ("b", 30.0, 45.0, "Cat"), ("b", 1.0, 2.0, "Dog"))
    durations = {"a": 60.0, "b": 60.0}
    curve = operating_curves(tables, truth, durations, ("Cat", "Dog"))["Cat"]
    assert (np.diff(curve.threshold) < 0).all()
    for threshold, recall, alarms in list(zip(curve.threshold, curve.recall, curve.false_alarms))[::7]:
        found = wrong = 0
        for name in "ab":
            active = np.append(tables[name]["Cat"].to_numpy() > threshold, False)
            edges = np.flatnonzero(np.diff(np.append(False, active).astype(int)))
            runs = list(zip(edges[::2], edges[1::2]))
            events = [
                (on, off) for clip, on, off, label in truth.itertuples(index=False) if (clip, label) == (name, "Cat")
            ]
            covered = [sum(max(0, min(e, off) - max(b, on)) for on, off in events) for b, e in runs]
            right = [run for run, seconds in zip(runs, covered) if seconds >= (run[1] - run[0]) / 2]
            wrong += len(runs) - len(right)
            found += sum(
                sum(max(0, min(e, off) - max(b, on)) for b, e in right) >= (off - on) / 2 for on, off in events
            )
        assert (recall, alarms) == (pytest.approx(found / 3), pytest.approx(wrong * 30)), threshold
