"""A frozen encoder runs once, and nobody can tell from the model that its clips were not heard again."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pmam_plugin.augment import FilterAugment, FrameShift, Mixup
from pmam_plugin.brains import ParameterGroup, Supervised, TrainingPlan, Views
from pmam_plugin.data import class_list
from pmam_plugin.encoders import FrozenEncoder, PatchEncoder
from pmam_plugin.features import FrontEnds, LogMel
from pmam_plugin.inference import Scoring
from pmam_plugin.inference.encoded import EncodedWindows
from pmam_plugin.inference.scoring import Scorer
from pmam_plugin.models import Backbone, FrameDetector, LinearSoftmaxHead
from pmam_plugin.nn.context import IdentityContext, RecurrentContext
from pmam_plugin.prototypes import ArrayStore, GaussianMixture
from pmam_plugin.stages import Embed, EStep, FineTune, Prepare, RunContext, run_stages
from pmam_plugin.stages.loading import clip_batches, clip_dataset
from tests.recipes.tiny import tiny_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tiny_corpus(tmp_path_factory.mktemp("data") / "corpus")


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory):
    """A run whose clips are embedded, and the detector that embeds them."""
    torch.manual_seed(0)
    encoder = FrozenEncoder(PatchEncoder(dim=16, depth=1, heads=2), 8, input_dropout=0.0, dropout=0.0)
    backbone = Backbone(FrontEnds(mel=LogMel(n_mels=64)), encoder, IdentityContext(8))
    labels = class_list(corpus)
    detector = FrameDetector(backbone, LinearSoftmaxHead(8, len(labels)), labels)
    folder = tmp_path_factory.mktemp("runs")
    context = RunContext(folder, 3, {"device": "cpu", "noprogressbar": True}, cache_audio=False)
    run_stages([Prepare(str(corpus), test="validation"), Embed(backbone)], context)
    return context, detector


def finetune(detector, domain, steps=3):
    plan = TrainingPlan(1, {"strong": 2, "weak": 2}, [ParameterGroup("", 1e-2)], steps_per_epoch=steps)
    views = Views(domain=domain)
    return FineTune("finetune", detector, plan, views, [Supervised(0.5)], Scoring(), None)


def test_what_is_stored_is_what_the_encoder_says_standardised_by_the_training_clips(prepared):
    context, detector = prepared
    store = ArrayStore.open(context.artifacts["embeddings"])
    assert len(store) == 8 + 8 + 14 + 3
    backbone = detector.backbone.eval()
    batch = next(clip_batches(context, backbone, ["weak"], 4))
    with torch.no_grad():
        frames = backbone.encoder.encoder(backbone.frontend(batch.waves)).frames
    for clip, expected in zip(batch.ids, frames, strict=True):
        torch.testing.assert_close(torch.from_numpy(store[clip]), expected, rtol=2e-3, atol=2e-3)
    detector.load_pretrained(load_file(context.artifacts["backbone"]))
    standard = [
        detector.backbone.encoder(batch.features(backbone.frontend), embed=["frozen"]).embeddings["frozen"]
        for batch in clip_batches(context, backbone, ["strong", "weak"], 8, stored=True)
    ]
    standard = torch.cat(standard).flatten(0, 1)
    torch.testing.assert_close(standard.mean(dim=0), torch.zeros(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(standard.std(dim=0), torch.ones(16), atol=1e-2, rtol=0)


def test_training_reads_the_store_and_ends_where_training_on_sound_ends(prepared, tmp_path, monkeypatch):
    context, detector = prepared
    states = {}
    for domain in ("features", "embeddings"):
        if domain == "embeddings":
            monkeypatch.setattr(PatchEncoder, "forward", only_to_score)
        result = finetune(detector, domain).run(context, tmp_path / domain)
        states[domain] = load_file(result.artifacts["student"])
    before = detector.state_dict()
    for name, value in states["embeddings"].items():
        torch.testing.assert_close(value, states["features"][name], rtol=1e-2, atol=1e-3)
        if ".encoder.encoder." in name:
            torch.testing.assert_close(value, before[name])
    assert not torch.equal(states["embeddings"]["head.classifier.weight"], before["head.classifier.weight"])


ENCODE = PatchEncoder.forward


def only_to_score(*arguments, **options):
    """Validation hears recordings whole, as users' scores are made."""
    assert torch.is_inference_mode_enabled(), "the encoder ran again in training"
    return ENCODE(*arguments, **options)


def forbidden(*_, **__):
    raise AssertionError("the encoder ran again")


def test_prototypes_are_fitted_to_stored_embeddings(prepared, tmp_path, monkeypatch):
    context, detector = prepared
    monkeypatch.setattr(PatchEncoder, "forward", forbidden)

    def estimator(**options):
        return GaussianMixture(2, reg_covar=1e-2, **options)

    stage = EStep(1, detector.backbone, estimator, layer="frozen", components=4, frame_subsampling=5)
    assert stage.run(context, tmp_path / "prototypes").notes["components"] == 2


def test_shift_and_mixture_act_on_embeddings_and_labels_together(prepared):
    context, detector = prepared
    batch = next(clip_batches(context, detector, ["strong"], 4, stored=True))
    views = Views(shift=FrameShift(0.9), mixing=Mixup(alpha=0.5, probability=1.0), domain="embeddings")
    torch.manual_seed(1)
    student, teacher, *_ = views(detector.frontend, batch)
    assert student["embeddings"].shape == batch.embeddings.shape
    assert torch.equal(student["embeddings"], teacher["embeddings"])
    # The same draw on the labels alone, where embeddings are the labels: both must be moved and mixed alike.
    batch.embeddings = batch.strong.transpose(1, 2)
    torch.manual_seed(1)
    student, _, targets, _ = views(detector.frontend, batch)
    linear = student["embeddings"].transpose(1, 2)
    assert torch.equal(linear > 0, targets["strong"] > 0)


def test_sound_and_store_are_not_taken_for_each_other(prepared, tmp_path):
    context, detector = prepared
    sound = next(clip_batches(context, detector, ["strong"], 2))
    stored = next(clip_batches(context, detector, ["strong"], 2, stored=True))
    with pytest.raises(ValueError, match="domain: embeddings is for stored embeddings"):
        Views(domain="embeddings")(detector.frontend, sound)
    with pytest.raises(ValueError, match="domain: embeddings is for stored embeddings"):
        Views()(detector.frontend, stored)
    with pytest.raises(ValueError, match="layer 'stem' is not stored"):
        detector.backbone.embed(stored.features(detector.frontend), "stem")
    without = RunContext(tmp_path, 3, {"device": "cpu"}, prepared=context.prepared)
    with pytest.raises(ValueError, match="put Embed before"):
        finetune(detector, "embeddings").run(without, tmp_path)


def test_a_frozen_encoder_stays_at_rest_and_the_rest_learns():
    encoder = FrozenEncoder(PatchEncoder(dim=16, depth=1, heads=2), 8).train()
    assert not encoder.encoder.training
    encoder({"mel": torch.randn(2, 64, 100)}).frames.sum().backward()
    assert all(parameter.grad is None for parameter in encoder.encoder.parameters())
    assert encoder.projection.weight.grad is not None


def test_training_draws_from_clips_and_altered_copies_alike(prepared, tmp_path):
    """A copy is its clip heard through another filter: other embeddings, the same labels, the same whenever made."""
    context, detector = prepared
    backbone = detector.backbone

    def copied(folder, batch_clips):
        run = RunContext(folder, 3, {"device": "cpu", "noprogressbar": True}, prepared=context.prepared)
        louder = FilterAugment(6.0, units_per_decibel=0.23)
        stage = Embed(backbone, batch_clips=batch_clips, augmentation=louder, copies=2, fitted=["strong"])
        run.artifacts.update(stage.run(run, folder).artifacts)
        return run

    run, again = copied(tmp_path / "one", 8), copied(tmp_path / "two", 3)
    dataset = clip_dataset(run, backbone, ["strong", "weak"], stored=True, copies=True)
    strong, weak = (dataset.indices[name] for name in ("strong", "weak"))
    clips = len(context.data.manifests["strong"])
    assert (len(strong), len(weak)) == (3 * clips, len(context.data.manifests["weak"]))
    other = clip_dataset(again, backbone, ["strong", "weak"], stored=True, copies=True)
    for number in range(clips):
        heard = [dataset[number + copy * clips] for copy in range(3)]
        assert {item.id for item in heard} == {dataset.clips("strong")[number].id}
        assert all(torch.equal(item.strong, heard[0].strong) for item in heard)
        assert len({item.embeddings.numpy().tobytes() for item in heard}) == 3
        torch.testing.assert_close(other[number + clips].embeddings, heard[1].embeddings, rtol=2e-3, atol=2e-3)
    assert dataset[weak[0]].id == dataset.clips("weak")[0].id
    plain = clip_dataset(run, backbone, ["strong"], stored=True)  # what is scored is never altered
    assert len(plain) == clips
    with pytest.raises(ValueError, match="copies need an augmentation"):
        Embed(backbone, copies=1)


def test_what_a_stage_thaws_learns_from_sound_and_what_was_stored_no_longer_holds(prepared, tmp_path):
    context, detector = prepared
    run = RunContext(tmp_path, 3, {"device": "cpu"}, prepared=context.prepared, artifacts=dict(context.artifacts))
    thaw = ParameterGroup(r"blocks\.0\.", 1e-3, thaw=True)
    stage = finetune(detector, "features")
    stage.plan = TrainingPlan(1, {"strong": 2, "weak": 2}, [thaw, ParameterGroup("", 1e-2)], steps_per_epoch=3)
    run.artifacts.update(stage.run(run, tmp_path / "thawed").artifacts)
    before, after = (load_file(run.artifacts[name]) for name in ("backbone", "student"))
    changed = {name for name, value in before.items() if not torch.equal(value, after[f"backbone.{name}"])}
    encoder = {name for name in changed if name.startswith("encoder.encoder.")}
    assert encoder
    assert all(".blocks.0." in name for name in encoder)
    assert "encoder.projection.weight" in changed
    with pytest.raises(ValueError, match="has learned since its embeddings were stored"):
        finetune(detector, "embeddings").run(run, tmp_path / "stored")


def test_windows_of_a_thawed_encoder_are_encoded_each_time():
    encoder = FrozenEncoder(PatchEncoder(dim=16, depth=1, heads=2), 8)
    model = FrameDetector(
        Backbone(FrontEnds(mel=LogMel(n_mels=64)), encoder, IdentityContext(8)), LinearSoftmaxHead(8, 2), ("a", "b")
    )
    encoder.encoder.requires_grad_(True)
    assert set(EncodedWindows().features(model, torch.randn(1, 16_000))) == {"mel"}


def test_a_window_that_is_scored_again_is_not_encoded_again_and_its_scores_are_the_same():
    torch.manual_seed(0)
    encoder = FrozenEncoder(PatchEncoder(dim=16, depth=1, heads=2), 8, input_dropout=0.0, dropout=0.0)
    backbone = Backbone(FrontEnds(mel=LogMel(n_mels=64)), encoder, RecurrentContext(8, 8, 1))
    model = FrameDetector(backbone, LinearSoftmaxHead(16, 2), ("a", "b"), clip_seconds=1.0).eval()
    waves = [torch.randn(samples) for samples in (16_000, 40_000, 9_000)]
    plain = Scorer(model, Scoring()).waves(waves)
    encoded, calls = EncodedWindows(), []
    encoder.encoder.register_forward_hook(lambda *_: calls.append(1))
    for attempt, expected in enumerate((True, False)):
        before = len(calls)
        again = Scorer(model, Scoring(), 4, encoded=encoded).waves(waves)
        assert (len(calls) > before) == expected, attempt
        for one, other in zip(plain, again, strict=True):
            assert np.allclose(one.frames, other.frames, atol=1e-6)
    next(encoder.encoder.parameters()).data.mul_(1.5)
    other = Scorer(model, Scoring(), 4, encoded=encoded).waves(waves)[0].frames
    assert not np.allclose(other, plain[0].frames, atol=1e-6)
    full = EncodedWindows(gigabytes=0.0)
    assert np.allclose(Scorer(model, Scoring(), 4, encoded=full).waves(waves)[0].frames, other, atol=1e-6)
