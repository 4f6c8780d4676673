"""What has to hold on a GPU: every part computes there what it computes on the CPU, and every stage trains there."""

import json
from dataclasses import fields

import numpy as np
import pytest
import torch

from pmam_plugin import SoundEventDetector
from pmam_plugin.augment import (
    Compose,
    ConditionalMixup,
    FilterAugment,
    FrameShift,
    FrequencyDistortion,
    FrequencyMask,
    FrequencyShift,
    FrequencyWarp,
    Mixup,
)
from pmam_plugin.features import ATSTMel, CRNNMel, LogMel, PaSSTMel, SEDTMel
from pmam_plugin.losses.event_targets import EventTargets
from pmam_plugin.losses.matcher import HungarianMatcher, OneToManyMatcher
from pmam_plugin.losses.set_criterion import SetCriterion
from pmam_plugin.nn.attention import relative_attention
from pmam_plugin.nn.interpolate import interpolate_frames
from pmam_plugin.prototypes import GaussianMixture, KMeans, Projection
from recipes.DESED import train as recipe
from tests.prototypes.clusters import clusters, start, started
from tests.recipes.tiny import SETTINGS, flags, tiny_corpus
from tests.sedt_models import some_targets, tiny_sedt
from tests.tiny_models import LABELS, tiny_detector

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

COMMON = {**{name: SETTINGS[name] for name in ("seed", "bootstrap")}, "device": DEVICE, "finetune_steps": "3"}
TINY_PMAM = {**{name: value for name, value in SETTINGS.items() if name != "precision"}, **COMMON, "iterations": "2"}
TINY_ATST = {**COMMON, "dim": "16", "depth": "2", "finetune_1_epochs": "1", "finetune_2_epochs": "1"}
TINY_SEDT = {
    **COMMON,
    **{"dim": "16", "widths": "[8, 8, 16, 16]", "encoder_layers": "1", "decoder_layers": "2"},
    **{"tagger_epochs": "1", "tagger_steps": "3", "tagger_batch": "{strong: 2, weak: 2}"},
    **{"patch_epochs": "1", "patch_steps": "3", "patch_batch": "{unlabelled: 2}"},
    **{"finetune_1_epochs": "1", "finetune_2_epochs": "1", "batch": "{strong: 2, weak: 2, unlabelled: 1}"},
    **{"skip_stages": "[]", "consistency_weight": "1.0"},
}
# Between them they run every stage and every loss term, each at the precision its file asks for.
RECIPES = {
    "pmam_small": TINY_PMAM,
    "pmam_v2_small": TINY_PMAM,
    "crnn_v2_small": {**COMMON, "finetune_1_epochs": "1"},
    "atst_sed_v2_small": TINY_ATST,
    "atst_frame_small": {
        **TINY_ATST,
        **{"pretrain_epochs": "1", "pretrain_steps": "3", "pretrain_batch": "{strong: 2, weak: 2, unlabelled: 2}"},
    },
    "sp_sedt_small": TINY_SEDT,
}


@pytest.fixture(autouse=True)
def exact_products():
    """TF32 would hide differences behind its own rounding."""
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = True


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tiny_corpus(tmp_path_factory.mktemp("data") / "corpus")


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(ours, theirs, tolerance=1e-4):
    torch.testing.assert_close(ours.detach().cpu().float(), theirs.detach().float(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", RECIPES)
def test_every_stage_trains(corpus, tmp_path, name):
    settings = {**RECIPES[name], "data_folder": corpus, "output_folder": tmp_path / "run"}
    assert recipe.main([f"hparams/{name}.yaml", *flags(settings)]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert all(0 <= figures["psds1_mean"] <= 1 for figures in metrics["test"].values())
    curves = [
        point[1]
        for path in (tmp_path / "run" / "stages").glob("*/record.json")
        for points in json.loads(path.read_text())["curves"].values()
        for point in points
    ]
    assert np.isfinite(curves).all()


@pytest.mark.parametrize("front_end", [LogMel, ATSTMel, CRNNMel, SEDTMel, PaSSTMel], ids=lambda kind: kind.__name__)
def test_front_ends_agree_with_the_cpu(front_end):
    module, waves = front_end().eval(), 0.1 * noise(2, 32000)
    close(module.to(DEVICE)(waves.to(DEVICE)), module.cpu()(waves), 2e-3)


@pytest.mark.parametrize("length", [1, 50, 64, 250, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_relative_attention_agrees_with_the_cpu(length, dtype):
    shapes = [(2, 4, length, 36)] * 4 + [(4, 2 * length - 1, 36)]
    inputs = [0.5 * noise(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    gradients, outputs = {}, {}
    for device, kind in (("cpu", torch.float32), (DEVICE, dtype)):
        placed = [value.to(device, kind).requires_grad_() for value in inputs]
        outputs[device] = relative_attention(*placed)
        gradients[device] = torch.autograd.grad((outputs[device] * outputs[device].detach()).sum(), placed)
    # The fused kernel multiplies float32 a little more coarsely than a CPU does (4e-4 seen on an H100).
    tolerance = 1e-3 if dtype == torch.float32 else 0.1
    close(outputs[DEVICE], outputs["cpu"], tolerance)
    if length > 1:
        for ours, theirs in zip(gradients[DEVICE], gradients["cpu"], strict=True):
            scale = float(theirs.abs().max())
            close(ours / scale, theirs / scale, tolerance)


@pytest.mark.parametrize(
    "augmentation",
    [
        FrameShift(),
        FrameShift(wrap=False),
        FilterAugment(),
        FrequencyDistortion(),
        FrequencyWarp(probability=1.0),
        FrequencyMask(probability=1.0),
        FrequencyShift(probability=1.0),
        Mixup(probability=1.0),
        ConditionalMixup(),
        Compose([Mixup(probability=1.0, draw_per="group"), FrameShift()]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_seed_means_the_same_augmentation_as_on_the_cpu(augmentation):
    features = {"mel": noise(4, 32, 100)}
    targets = {
        "strong": (noise(4, 25, 3, seed=1) > 0).float(),
        "weak": (noise(4, 3, seed=2) > 0).float(),
        "padding": torch.arange(25).expand(4, 25) >= 20,
    }
    torch.manual_seed(3)
    expected = augmentation(dict(features), dict(targets))
    torch.manual_seed(3)
    moved = [{name: value.to(DEVICE) for name, value in part.items()} for part in (features, targets)]
    found = augmentation(*moved)
    for ours, theirs in zip(found, expected, strict=True):
        for name, value in theirs.items():
            assert ours[name].device.type == DEVICE
            # Bicubic interpolation differs a little between devices (1.5e-3 seen on an H100).
            close(ours[name], value, 3e-3 if isinstance(augmentation, FrequencyWarp) else 1e-4)


def test_interpolation_agrees_with_the_cpu():
    frames = noise(2, 40, 3)
    close(interpolate_frames(frames.to(DEVICE), 99, 2.5, 0.5), interpolate_frames(frames, 99, 2.5, 0.5))


def test_a_recurrent_detector_agrees_with_the_cpu():
    wave = 0.1 * noise(40000).numpy()
    ours = SoundEventDetector(tiny_detector(), device=DEVICE).scores(wave, 16000, postprocess=False)
    theirs = SoundEventDetector(tiny_detector(), device="cpu").scores(wave, 16000, postprocess=False)
    np.testing.assert_allclose(ours[list(LABELS)], theirs[list(LABELS)], atol=1e-3)


def moved(value):
    """Output or targets on the GPU."""
    parts = {field.name: getattr(value, field.name) for field in fields(value)}
    return type(value)(**{name: part.to(DEVICE) if torch.is_tensor(part) else part for name, part in parts.items()})


@pytest.mark.parametrize("matcher", [HungarianMatcher(), OneToManyMatcher()], ids=lambda value: type(value).__name__)
def test_set_losses_agree_with_the_cpu(matcher):
    model, criterion = tiny_sedt().eval(), SetCriterion(matcher)
    output = model({"mel": noise(4, 64, 200)}).output
    losses = {}
    for name, prediction, targets in (("cpu", output, some_targets()), (DEVICE, moved(output), moved(some_targets()))):
        torch.manual_seed(0)
        losses[name] = criterion(prediction, targets).total
    close(losses[DEVICE], losses["cpu"], 1e-3)


def test_events_are_read_off_frames_on_the_gpu():
    frames = (noise(3, 40, 2) > 0.5).float()
    strong = torch.tensor([True, False, True])
    theirs = EventTargets.from_frames(frames, 40.0, strong)
    ours = EventTargets.from_frames(frames.to(DEVICE), 40.0, strong.to(DEVICE))
    for field in ("labels", "boxes", "weights", "tags", "tagged"):
        close(getattr(ours, field), getattr(theirs, field))


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_the_mixture_agrees_with_the_cpu(covariance_type):
    data = clusters(1500, 20)
    fits = {}
    for device in ("cpu", DEVICE):
        model = GaussianMixture(4, covariance_type=covariance_type, max_iter=5, tol=0.0, device=device)
        frames = torch.from_numpy(data).float().to(device)
        model.fit(frames, started(*start(data, 4, covariance_type)))
        fits[device] = model.score(frames), model.predict_proba(frames).cpu()
    assert fits[DEVICE][0] == pytest.approx(fits["cpu"][0], rel=1e-4)
    close(fits[DEVICE][1], fits["cpu"][1], 1e-2)


def test_components_and_clusters_are_found_on_the_gpu():
    frames = torch.from_numpy(clusters(1500, 20)).float()
    reduced = [Projection(4, device).fit(frames).transform(frames).cpu().abs() for device in (DEVICE, "cpu")]
    close(reduced[0], reduced[1], 1e-2)
    ours, theirs = (KMeans(4, random_state=0, device=device).fit(frames.to(device)) for device in (DEVICE, "cpu"))
    close(ours.means_.cpu(), theirs.means_, 1e-3)
    close(ours.predict_proba(frames).cpu(), theirs.predict_proba(frames), 1e-6)
