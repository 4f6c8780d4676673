"""Which clip score stands behind the weak mask."""

import numpy as np
import pytest
import torch

from pmam_plugin.inference import Scorer, Scoring, SoundEventDetector
from pmam_plugin.postprocessing import PostProcessing
from tests.upstream.models import noise, patch_detector, recurrent_detector


def frames_clips_and_tags(model, wave):
    scorer = Scorer(model, Scoring())
    [scored] = scorer.waves([wave])
    with torch.inference_mode():
        detection = model(model.frontend(wave[None]))
    return scored.frames, detection.clips[0].numpy(), None if detection.tags is None else detection.tags[0].numpy()


@pytest.mark.parametrize("mask_with", ["clips", "tags"])
def test_scores_are_masked_with_the_clip_score_that_the_rule_names(mask_with):
    """Pooled from frames, or of the tag branch; in evaluation, detector and streams alike."""
    model = patch_detector(2.0).eval()
    wave = noise(2.0, sample_rate=model.sample_rate)
    plain, clips, tags = frames_clips_and_tags(model, wave)
    assert np.abs(clips - tags).max() > 0.02, "the two would be told apart"
    chosen = clips if mask_with == "clips" else tags
    rule = PostProcessing(weak_mask="soft", mask_with=mask_with)
    [scored] = Scorer(model, Scoring(rule)).waves([wave])
    np.testing.assert_allclose(scored.frames, plain * chosen, atol=1e-6)
    detector = SoundEventDetector(model, Scoring(rule), device="cpu")
    table = detector.scores(wave, model.sample_rate)
    np.testing.assert_allclose(table[list(model.labels)].to_numpy(), plain * chosen, atol=1e-5)
    stream = detector.stream()
    parts = [stream.feed(wave.numpy()).scores, stream.finish().scores]
    streamed = np.concatenate([part[list(model.labels)].to_numpy() for part in parts])
    np.testing.assert_allclose(streamed, plain * chosen, atol=1e-5)


def test_a_model_without_a_tag_branch_is_masked_with_its_pooled_scores():
    model = recurrent_detector().eval()
    wave = noise(2.0, sample_rate=model.sample_rate)
    scores = [
        Scorer(model, Scoring(PostProcessing(weak_mask="soft", mask_with=name))).waves([wave])[0].frames
        for name in ("clips", "tags")
    ]
    np.testing.assert_array_equal(*scores)


def test_a_model_folder_keeps_which_scores_mask(tmp_path):
    from pmam_plugin.checkpoints import load_model, save_model

    rule = PostProcessing(weak_mask="soft", mask_with="tags")
    save_model(tmp_path / "model", patch_detector(2.0), Scoring(rule))
    assert load_model(tmp_path / "model").scoring.postprocessing.mask_with == "tags"
