from __future__ import annotations

from pathlib import Path

import pytest

from pmam_plugin.stages import Prepare
from pmam_plugin.stages.context import RunContext
from pmam_plugin.stages.loading import clip_dataset
from tests.data.corpus import EVENTS, table, tiny_corpus
from tests.tiny_models import tiny_detector


@pytest.mark.parametrize(("rule", "first"), [("nearest", 7), ("floor", 6)])
def test_the_rule_for_onsets_reaches_the_labels(rule: str, first: int, tmp_path: Path) -> None:
    root = tiny_corpus(tmp_path / "corpus", strong=1)
    model = tiny_detector()
    onset = 6.7 / model.frame_rate
    table(root / "metadata/train/audioset_strong.tsv", EVENTS, [("s0.wav", onset, 0.9, "Cat")])
    context = RunContext(tmp_path / "run", seed=1, run_opts={"device": "cpu"})
    options = {"selection": "none", "test": "none", "subsets": ["strong"]}
    Prepare(str(root), onset_rounding=rule, **options).run(context, tmp_path / "run")  # type: ignore[arg-type]
    strong = clip_dataset(context, model, ["strong"])[0].strong
    assert int(strong.any(dim=1).nonzero()[0]) == first
