from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pmam_plugin.config import from_config, to_config
from pmam_plugin.losses.event_targets import EventTargets
from pmam_plugin.losses.set_criterion import SetCriterion
from pmam_plugin.models.base import Detection
from pmam_plugin.models.sedt import SEDT, SetDetection, regrid_padding
from pmam_plugin.models.set_scores import fuse_tags
from pmam_plugin.nn.intervals import edge_boxes
from pmam_plugin.nn.set_output import SetOutput
from tests.sedt_models import LABELS, some_targets, tiny_network, tiny_sedt


def features(seconds: float = 4.0, batch: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    model = tiny_sedt()
    return model.frontend(torch.randn(batch, round(seconds * 16000)) * 0.1)


def test_a_model_states_what_it_is() -> None:
    model = tiny_sedt()
    assert (model.labels, model.sample_rate, model.frame_rate, model.clip_seconds) == (LABELS, 16000, 50.0, 4.0)
    assert model.output_frames(64000) == 200


@pytest.mark.parametrize("seconds", [0.1, 1.7, 4.0, 9.3])
def test_any_clip_length_gives_frames_on_the_stated_grid(seconds: float) -> None:
    model = tiny_sedt().eval()
    samples = round(seconds * 16000)
    with torch.no_grad():
        detection = model(model.frontend(torch.randn(2, samples) * 0.1))
    assert detection.frames.shape == (2, model.output_frames(samples), 3)
    assert abs(model.output_frames(samples) - seconds * 50) <= 1.5
    assert detection.embedding is not None
    assert detection.embedding.shape == (2, model.output_frames(samples), 16)
    assert model.clip_scores(detection).shape == (2, 3)
    assert detection.output is not None
    assert detection.output.boxes.min() >= 0
    assert detection.output.boxes.max() <= 1
    assert detection.output.span_seconds == pytest.approx(max(4.0, seconds), abs=0.05)


def test_boxes_stay_in_the_unit_interval_whatever_the_weights() -> None:
    model = tiny_sedt().eval()
    for parameter in model.network.interval_head.parameters():
        parameter.data.mul_(1000)
    with torch.no_grad():
        boxes = model(features()).output.layer_boxes
    assert ((boxes >= 0) & (boxes <= 1)).all()


def test_what_lies_in_padding_does_not_matter() -> None:
    model, mel = tiny_sedt().eval(), features()["mel"]
    padding = torch.zeros(mel.shape[0], mel.shape[-1], dtype=torch.bool)
    padding[1, 120:] = True
    noisy = mel.clone()
    noisy[1, :, 120:] = 50.0
    with torch.no_grad():
        first, second = (model({"mel": x}, padding) for x in (mel, noisy))
        unpadded = model({"mel": mel})
    torch.testing.assert_close(first.frames, second.frames)
    torch.testing.assert_close(first.clips, second.clips)
    torch.testing.assert_close(first.clips[0], unpadded.clips[0])
    assert first.frames[1, 125:].abs().max() == 0


def test_padding_may_come_on_the_grid_of_the_scores() -> None:
    model, given_features = tiny_sedt().eval(), features()
    padding = torch.zeros(2, 200, dtype=torch.bool)
    padding[1, 100:] = True
    with torch.no_grad():
        detection = model(given_features, padding)
    assert detection.frames[1, 100:].abs().max() == 0
    assert regrid_padding(padding, 199)[1].sum() == pytest.approx(99.5, abs=1)
    assert regrid_padding(padding, 200) is padding


def test_temperature_and_unknown_options() -> None:
    model, given_features = tiny_sedt().eval(), features()
    with torch.no_grad():
        plain, cool = (model(given_features, temperature=t, windows=None) for t in (1.0, 100.0))
    assert (cool.clips - 0.5).abs().max() < (plain.clips - 0.5).abs().max()
    with pytest.raises(TypeError, match="threshold"):
        model(given_features, threshold=0.5)


def test_frequency_positions_start_as_published_and_can_learn() -> None:
    torch.manual_seed(0)
    network = tiny_network(frequency_bands=4)
    spectrogram = features()["mel"]
    memory = network.eval().encode(spectrogram)
    network.frequency_positions.data.normal_()
    assert not torch.allclose(memory.tokens, network.encode(spectrogram).tokens)
    assert (memory.positions.view(-1, 4, 16)[:, 0] == memory.positions.view(-1, 4, 16)[:, 3]).all()


def test_a_few_steps_on_one_batch_lower_every_loss() -> None:
    model, criterion, targets = tiny_sedt().eval(), SetCriterion(), some_targets()
    given_features = {"mel": features()["mel"].repeat(2, 1, 1) + torch.randn(4, 1, 1)}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    totals = []
    for _ in range(12):
        losses = criterion(model(given_features).output, targets)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        totals.append(float(losses.total.detach()))
    assert min(totals[-3:]) < 0.75 * totals[0]
    learning = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert learning == []


def test_a_batch_of_one_trains() -> None:
    # The reference's squeeze() takes the only clip's axis from the tags.
    model = tiny_sedt().train()
    output = model({"mel": features()["mel"][:1]}).output
    losses = SetCriterion()(output, EventTargets.from_events([([1], [[0.5, 0.5]])], 3))
    assert torch.isfinite(losses.total)


def test_the_configuration_rebuilds_the_model() -> None:
    model = tiny_sedt(minimum_seconds=0.3).eval()
    rebuilt = from_config(to_config(model)).eval()
    rebuilt.load_state_dict(model.state_dict())
    given_features = features()
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(given_features).frames, model(given_features).frames)
    assert rebuilt.minimum_seconds == 0.3


def test_bad_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="tag_from"):
        tiny_sedt(tag_from="frames")
    with pytest.raises(TypeError, match="own detections"):
        tiny_sedt().score_tables(Detection(torch.zeros(1, 200, 3), torch.zeros(1, 3)), [4.0])


def perfect_detection(model: SEDT, tables: list[pd.DataFrame], queries: int = 8) -> SetDetection:
    """What a model would say that has learnt the ground truth."""
    logits = torch.full((1, len(tables), queries, len(LABELS) + 1), -15.0)
    logits[..., -1] = 15.0
    boxes = torch.rand(1, len(tables), queries, 2)
    tags = torch.full((len(tables), len(LABELS)), -15.0)
    for clip, table in enumerate(tables):
        for query, row in enumerate(table.itertuples()):
            label = LABELS.index(row.event_label)
            logits[0, clip, query, label], logits[0, clip, query, -1], tags[clip, label] = 15.0, -15.0, 15.0
            edges = torch.tensor([row.onset, row.offset], dtype=torch.float64) / model.clip_seconds
            boxes[0, clip, query] = edge_boxes(edges).float()
    output = SetOutput(logits, boxes, tags, span_seconds=model.clip_seconds)
    candidates = fuse_tags(output.probabilities(), output.tags())
    tags = tags.sigmoid()
    return SetDetection(torch.zeros(0), tags, tags, output=output, candidates=candidates, span_frames=0.0)


def ground_truth(clips: int) -> list[pd.DataFrame]:
    generator = np.random.default_rng(0)
    tables = []
    for _ in range(clips):
        rows = []
        for label in LABELS:
            edges = np.sort(generator.uniform(0, 10, 2 * generator.integers(0, 3))).round(3)
            rows += [(a, b, label) for a, b in zip(edges[::2], edges[1::2]) if b - a > 0.25]
        tables.append(pd.DataFrame(rows, columns=["onset", "offset", "event_label"]))
    return tables


def test_a_perfect_set_of_boxes_has_psds_1_and_event_f1_1() -> None:
    evaluation = pytest.importorskip("sed_scores_eval")
    model, tables = tiny_sedt(clip_seconds=10.0), ground_truth(12)
    scores = dict(enumerate(model.score_tables(perfect_detection(model, tables), [10.0] * 12)))
    scores = {f"clip{number}": table for number, table in scores.items()}
    truth = {
        f"clip{number}": [(row.onset, row.offset, row.event_label) for row in table.itertuples()]
        for number, table in enumerate(tables)
    }
    durations = dict.fromkeys(truth, 10.0)
    psds = evaluation.intersection_based.psds(
        scores, truth, durations, dtc_threshold=0.7, gtc_threshold=0.7, alpha_ct=0.0, alpha_st=1.0
    )[0]
    assert psds == pytest.approx(1.0, abs=1e-6)
    f1 = evaluation.collar_based.fscore(
        scores, truth, threshold=0.5, onset_collar=0.2, offset_collar=0.2, offset_collar_rate=0.2
    )[0]
    assert f1["macro_average"] == pytest.approx(1.0)


def test_event_tables_hold_the_same_events_as_the_scores() -> None:
    model, tables = tiny_sedt(clip_seconds=10.0), ground_truth(4)
    found = model.event_tables(perfect_detection(model, tables), [10.0] * 4)
    for table, truth in zip(found, tables):
        expected = truth.sort_values("onset", ignore_index=True)
        assert table.event_label.tolist() == expected.event_label.tolist()
        np.testing.assert_allclose(table.onset, expected.onset.astype(float), atol=1e-4)


@pytest.mark.slow
def test_the_full_size_model_has_the_published_shapes() -> None:
    from pmam_plugin.features import FrontEnds, SEDTMel
    from pmam_plugin.nn.query_decoder import SetNetwork
    from pmam_plugin.nn.resnet import SpectrogramResNet

    labels = [f"class{index}" for index in range(10)]
    model = SEDT(FrontEnds(mel=SEDTMel()), SetNetwork(SpectrogramResNet()), labels).eval()
    parameters = {name: p for name, p in model.named_parameters()}
    norms = sum(m.weight.numel() * 2 for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    trainable = sum(p.numel() for p in parameters.values() if p.requires_grad)
    # The reference counts frozen norms as buffers: 32 804 829 parameters, of which 32 582 429 learn.
    assert sum(p.numel() for p in parameters.values()) - norms == 32_804_829
    assert trainable == 32_582_429
    with torch.no_grad():
        output = model(model.frontend(torch.randn(2, 160_000))).output
    assert output.logits.shape == (2, 20, 11)
    assert output.boxes.shape == (2, 20, 2)
    assert output.tag_logits is not None
    assert output.tag_logits.shape == (2, 10)
    assert len(output.layer_logits) == 3
