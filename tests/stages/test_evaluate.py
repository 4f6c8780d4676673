from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pmam_plugin.inference import ScoredClip, Scoring
from pmam_plugin.postprocessing import PostProcessing
from pmam_plugin.stages.evaluate import Evaluate


@pytest.mark.parametrize(("thresholds", "expected"), [("tuned", 1.0), ("fixed", 0.0)])
def test_low_clip_scores_count_only_where_thresholds_are_tuned(thresholds: str, expected: float) -> None:
    labels = ["Cat", "Dog"]
    present = {"one": "Cat", "two": "Dog", "three": "Cat"}
    table = pd.DataFrame({"onset": [0.0], "offset": [10.0], "Cat": [0.0], "Dog": [0.0]})
    scored = {
        clip: ScoredClip(table, np.array([0.2 if label == loud else 0.1 for label in labels]))
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
