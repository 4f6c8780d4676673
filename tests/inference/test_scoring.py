"""The weak mask is one thing for evaluation, detector and streams."""

import numpy as np
import torch

from pmam_plugin.inference import Scorer, Scoring, SoundEventDetector
from pmam_plugin.postprocessing import PostProcessing
from tests.upstream.models import noise, patch_detector


def test_scores_are_masked_with_clip_scores_pooled_from_frames_everywhere():
    model = patch_detector(2.0).eval()
    wave = noise(2.0, sample_rate=model.sample_rate)
    [plain] = Scorer(model, Scoring()).waves([wave])
    with torch.inference_mode():
        detection = model(model.frontend(wave[None]))
    clips = detection.clips[0].numpy()
    assert np.abs(clips - detection.tags[0].numpy()).max() > 0.02, "the tag branch's scores would be told apart"
    scoring = Scoring(PostProcessing(weak_mask="soft"))
    [scored] = Scorer(model, scoring).waves([wave])
    np.testing.assert_allclose(scored.frames, plain.frames * clips, atol=1e-6)
    detector = SoundEventDetector(model, scoring, device="cpu")
    table = detector.scores(wave, model.sample_rate)
    np.testing.assert_allclose(table[list(model.labels)].to_numpy(), plain.frames * clips, atol=1e-5)
    stream = detector.stream()
    parts = [stream.feed(wave.numpy()).scores, stream.finish().scores]
    streamed = np.concatenate([part[list(model.labels)].to_numpy() for part in parts])
    np.testing.assert_allclose(streamed, plain.frames * clips, atol=1e-5)
