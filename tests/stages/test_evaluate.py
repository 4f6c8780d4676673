from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pmam_plugin.inference import ScoredClip, Scoring
from pmam_plugin.postprocessing import PostProcessing
from pmam_plugin.stages.evaluate import Evaluate, best_of


@pytest.mark.parametrize(("thresholds", "expected"), [("tuned", 1.0), ("fixed", 0.0)])
def test_low_clip_scores_count_only_where_thresholds_are_tuned(thresholds: str, expected: float) -> None:
    labels = ["Cat", "Dog"]
    present = {"one": "Cat", "two": "Dog", "three": "Cat"}
    table = pd.DataFrame({"onset": [0.0], "offset": [10.0], "Cat": [0.0], "Dog": [0.0]})
    scored = {
        clip: ScoredClip(table, clips=np.array([0.2 if label == loud else 0.1 for label in labels]))
        for clip, loud in present.items()
    }
    events = pd.DataFrame(
        [(f"{clip}.wav", 1.0, 2.0, label) for clip, label in present.items()],
        columns=["filename", "onset", "offset", "event_label"],
    )
    data = SimpleNamespace(events=lambda _: events, durations=lambda _: dict.fromkeys(present, 10.0))
    context = SimpleNamespace(data=data, seed=0)
    stage = Evaluate(SimpleNamespace(labels=labels), Scoring(), thresholds=thresholds)  # type: ignore[arg-type]
    limits = stage._clip_threshold(context, scored)  # type: ignore[arg-type]
    figures = stage._metrics(context, scored, PostProcessing(), limits, "test", 0)  # type: ignore[arg-type]
    assert figures["clip_f1_macro"] == expected


def clip_scores_and_truth(seed: int) -> tuple[dict[str, ScoredClip], pd.DataFrame]:
    """Ten clips with an event each, whose scores dip at times: boxes keep it whole, thresholds cut it up."""
    random = np.random.default_rng(seed)
    scored, rows = {}, []
    onset = np.arange(100) / 10
    for number in range(10):
        start = int(random.integers(5, 60))
        scores = np.full(100, 0.1)
        scores[start : start + 30] = 0.8
        scores[start + 8 : start + 14] = scores[start + 19 : start + 24] = 0.45
        scored[f"clip{number}"] = ScoredClip(
            pd.DataFrame({"onset": onset, "offset": np.append(onset[1:], 10.0), "Cat": scores}), clips=np.array([0.8])
        )
        rows.append((f"clip{number}.wav", start / 10, start / 10 + 3, "Cat"))
    return scored, pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])


@pytest.mark.parametrize(("segments", "expected"), [(True, "segments"), (False, "filters")])
def test_the_model_folder_carries_what_scores_best_on_selection(monkeypatch, tmp_path, segments, expected):
    scored, events = clip_scores_and_truth(0)
    data = SimpleNamespace(events=lambda _: events, durations=lambda _: dict.fromkeys(scored, 10.0))
    context = SimpleNamespace(data=data, seed=0, folder=tmp_path)
    stage = Evaluate(SimpleNamespace(labels=["Cat"]), Scoring(), segments, bootstrap=0)  # type: ignore[arg-type]
    monkeypatch.setattr(stage, "_candidates", lambda _: {"student": None})
    monkeypatch.setattr(stage, "_score", lambda *_: scored)
    written = {}
    monkeypatch.setattr(stage, "_write", lambda _, model, test, rule, result: written.update(rule=rule, **result))
    notes = stage.run(context, tmp_path).notes  # type: ignore[arg-type]
    assert notes == {"selected": "student", "selected_processing": expected}
    assert (written["rule"].segments is not None) == segments
    figures = written["segments" if segments else "test"]["student"]
    assert (figures["event_f1_macro"] == 1.0) == segments
    assert set(written["selection"]["student"]) == ({"filters", "segments"} if segments else {"filters"})
    if segments:  # what is stored answers what was measured
        found = pd.concat(
            written["rule"].events(written["rule"](clip.table), f"{name}.wav") for name, clip in scored.items()
        )
        assert found.onset.tolist() == pytest.approx(events.onset.tolist())


def test_of_equals_the_simpler_filters_and_the_teacher_are_taken():
    student, teacher = {"filters": 0.5, "segments": 0.5}, {"filters": 0.5}
    assert best_of({"student": student, "teacher": teacher}) == ("teacher", "filters")
    assert best_of({"student": {"filters": 0.1, "segments": 0.6}, "teacher": teacher}) == ("student", "segments")
