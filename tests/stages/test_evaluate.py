from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from pmam_plugin.errors import InputError
from pmam_plugin.inference import ScoredClip, Scorer, Scoring
from pmam_plugin.models.sedt import SetDetection, SetOutput
from pmam_plugin.models.set_scores import fuse_tags
from pmam_plugin.postprocessing import PostProcessing, ScoreRows
from pmam_plugin.stages.evaluate import Evaluate, best_of
from pmam_plugin.stages.figures import ScoredSubset, figures_of
from tests.sedt_models import tiny_sedt
from tests.tiny_models import tiny_detector


def prepared(events, seconds, subsets=("selection", "test")):
    """Data whose ``subsets`` have these events in clips of these seconds."""
    return SimpleNamespace(
        events=lambda _: events,
        durations=lambda _: seconds,
        judged=lambda _, scores: scores,
        has_events=lambda name: name in subsets,
    )


@pytest.mark.parametrize(("thresholds", "expected"), [("tuned", 1.0), ("fixed", 0.0)])
def test_low_clip_scores_count_only_where_thresholds_are_tuned(thresholds: str, expected: float) -> None:
    labels = ["Cat", "Dog"]
    present = {"one": "Cat", "two": "Dog", "three": "Cat"}
    table = pd.DataFrame({"onset": [0.0], "offset": [10.0], "Cat": [0.0], "Dog": [0.0]})
    scored = {
        clip: ScoredClip(ScoreRows.of(table), clips=np.array([0.2 if label == loud else 0.1 for label in labels]))
        for clip, loud in present.items()
    }
    events = pd.DataFrame(
        [(clip, 1.0, 2.0, label) for clip, label in present.items()],
        columns=["filename", "onset", "offset", "event_label"],
    )
    data = prepared(events, dict.fromkeys(present, 10.0))
    stage = Evaluate(SimpleNamespace(labels=labels), Scoring(thresholds=thresholds))  # type: ignore[arg-type]
    limits = stage._clip_threshold(ScoredSubset(scored, labels, data, "selection"))  # type: ignore[arg-type]
    figures = figures_of(ScoredSubset(scored, labels, data, "test"), stage.scoring, limits)  # type: ignore[arg-type]
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
        rows_of_clip = ScoreRows(scores[:, None], onset, np.append(onset[1:], 10.0), ["Cat"])
        scored[f"clip{number}"] = ScoredClip(rows_of_clip, clips=np.array([0.8]))
        rows.append((f"clip{number}", start / 10, start / 10 + 3, "Cat"))
    return scored, pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])


@pytest.mark.parametrize(("segments", "expected"), [(True, "segments"), (False, "filters")])
def test_the_model_folder_carries_what_scores_best_on_selection(monkeypatch, tmp_path, segments, expected):
    scored, events = clip_scores_and_truth(0)
    data = prepared(events, dict.fromkeys(scored, 10.0))
    context = SimpleNamespace(data=data, seed=0, folder=tmp_path)
    stage = Evaluate(SimpleNamespace(labels=["Cat"]), Scoring(segments=segments), bootstrap=0)  # type: ignore[arg-type]
    monkeypatch.setattr(stage, "_candidates", lambda _: {"student": None})
    monkeypatch.setattr(stage, "_score", lambda _, __, subset: ScoredSubset(scored, ["Cat"], data, subset))  # type: ignore[arg-type]
    written = {}
    monkeypatch.setattr(
        stage, "_write", lambda _, model, test, scoring, result: written.update(rule=scoring.postprocessing, **result)
    )
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


TEACHER, BOXES = ("teacher", "filters"), ("student", "segments")


@pytest.mark.parametrize(
    ("student", "teacher", "spread", "chosen"),
    [
        (0.5, 0.5, 0.0, TEACHER),  # equal
        (0.6, 0.5, 0.0, BOXES),  # better in every resample
        (0.6, 0.5, 0.2, TEACHER),  # better, but by less than what other clips would change
        (0.6, 0.5, 0.02, BOXES),
    ],
)
def test_boxes_are_taken_where_they_are_better_beyond_chance(student, teacher, spread, chosen):
    random = np.random.default_rng(0)
    clips = random.normal(0, 0.3, 200)  # hard and easy resamples, for both alike: they tell nothing apart
    draws = {TEACHER: teacher + clips, BOXES: student + clips + random.normal(0, spread, 200)}
    choice, errors = best_of({TEACHER: teacher, BOXES: student}, draws)
    assert choice == chosen
    other = BOXES if student == teacher else TEACHER
    assert errors[other] == pytest.approx(spread, rel=0.15, abs=1e-9)


def test_between_student_and_teacher_the_better_is_taken_however_close():
    """A teacher that lags behind in a short training is no safer than its student."""
    random = np.random.default_rng(0)
    student = ("student", "filters")
    draws = {TEACHER: random.normal(0.5, 0.1, 200), student: random.normal(0.51, 0.1, 200)}
    assert best_of({TEACHER: 0.5, student: 0.51}, draws)[0] == student
    assert best_of({TEACHER: 0.5, student: 0.5}, draws)[0] == TEACHER


def test_resamples_in_which_nothing_can_be_measured_decide_nothing():
    nothing = np.full(3, np.nan)
    assert best_of({TEACHER: 0.5, BOXES: 0.6}, {TEACHER: nothing, BOXES: nothing})[0] == BOXES


# Class probability of a query, tag of its class, centre and length in a clip of 4 s: what the published protocol and
# the scores make of them.
QUERIES = {
    "both": (0.9, 0.9, (0.5, 0.25)),
    "scores alone, a tag below 0.5 gates hard": (0.9, 0.4, (0.5, 0.25)),
    "published alone, a tag of 0.55 pulls no probability down": (0.6, 0.55, (0.5, 0.25)),
    "neither, below both": (0.3, 0.6, (0.5, 0.25)),
}


def test_a_models_own_events_are_scored_by_the_published_protocol(monkeypatch, tmp_path):
    """Tags gate hard, class probabilities are compared with 0.5, whatever thresholds the scores table has."""
    model = tiny_sedt(clip_seconds=4.0)
    clips = list(QUERIES)

    def forward(features, padding=None, **_):
        count, queries = len(features["mel"]), 6
        probabilities = torch.full((count, queries, 4), 1e-6)
        tags, boxes = torch.full((count, 3), 0.01), torch.full((count, queries, 2), 0.5)
        for row, name in enumerate(clips):
            probabilities[row, 0, 0], tags[row, 0], box = QUERIES[name]
            boxes[row, 0] = torch.tensor(box)
        probabilities[..., 3] = 1 - probabilities[..., :3].sum(-1)
        output = SetOutput(probabilities.log()[None], boxes[None], tags.logit(), span_seconds=4.0)
        candidates = fuse_tags(probabilities[..., :3], tags)
        frames = torch.zeros(count, model.output_frames(64000), 3)
        return SetDetection(frames, tags, tags, None, output=output, candidates=candidates, span_frames=0.0)

    monkeypatch.setattr(model, "forward", forward)
    events = pd.DataFrame(
        [(name, 1.5, 2.5, "cat") for name in clips], columns=["filename", "onset", "offset", "event_label"]
    )
    data = prepared(events, dict.fromkeys(clips, 4.0), ["test"])
    context = SimpleNamespace(data=data, seed=0, folder=tmp_path, device=torch.device("cpu"), encoded=None)
    scoring = Scoring(PostProcessing(threshold=0.59), selection_metrics=["psds1"], segments=False)
    stage = Evaluate(model, scoring, batch_clips=4, bootstrap=0, events="model")
    monkeypatch.setattr(stage, "_candidates", lambda _: {"student": model})
    waves = list(torch.zeros(4, 64000))
    batch = SimpleNamespace(ids=clips, sounds=lambda: waves)
    monkeypatch.setattr("pmam_plugin.stages.evaluate.clip_batches", lambda *_, **__: [batch])
    written = {}
    monkeypatch.setattr(stage, "_write", lambda _, model, test, rule, result: written.update(result))
    stage.check(context)
    stage.run(context, tmp_path)
    recall = {group: written[group]["student"]["per_class"]["cat"]["event_recall"] for group in ("test", "events")}
    # sqrt(0.9 0.9) and sqrt(0.9 0.4) are above 0.59, sqrt(0.6 0.55) is not; 0.9 and 0.6 with tags above 0.5 count.
    assert recall == {"test": 0.5, "events": 0.5}
    own = Scorer(model, scoring, 4, events=True).waves(waves)
    assert [len(clip.events) for clip in own] == [1, 0, 1, 0]
    above = [bool((clip.table["cat"] > 0.59).any()) for clip in own]
    assert above == [True, True, False, False]
    assert "psds1" not in written["events"]["student"]
    monkeypatch.setattr(data, "durations", lambda _: {**dict.fromkeys(clips, 4.0), clips[1]: 9.0})
    with pytest.raises(InputError, match=r"is 9 s long.*set events: scores"):
        stage.check(context)


def test_events_of_their_own_are_asked_of_set_models_alone():
    with pytest.raises(ValueError, match="models that list events themselves"):
        Evaluate(tiny_detector(), Scoring(), events="model")
