import pytest
import torch

from pmam_plugin.augment import Compose, FilterAugment, FrameShift, MixPlan, Mixup
from pmam_plugin.brains.views import Views
from pmam_plugin.data import Batch
from pmam_plugin.features import FrontEnds, LogMel

FRAMES = 25


class Fixed:
    """The same mixing plan every time; remembers the groups it was asked for."""

    def draw(self, groups):
        self.groups = groups
        return MixPlan(torch.full((4,), 0.7), torch.full((4,), 0.7), torch.tensor([1, 0, 3, 2]))


@pytest.fixture(scope="module")
def frontend():
    return FrontEnds(mel=LogMel()).eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    strong = (torch.rand(4, FRAMES, 2, generator=generator) < 0.3).float()
    known = torch.tensor([True, True, False, False])
    return Batch(
        ids=list("abcd"),
        waves=0.1 * torch.randn(4, 16000, generator=generator),
        seconds=torch.ones(4),
        strong=strong * known.view(4, 1, 1),
        weak=torch.eye(2)[[0, 1, 0, 1]],
        has_strong=known,
        has_weak=torch.tensor([True, True, True, False]),
        group=torch.tensor([0, 0, 2, 3]),
        sample_rate=16000,
    )


def test_without_augmentation_both_see_the_clean_clips(frontend, batch):
    student, teacher, targets, plan = Views()(frontend, batch)
    assert plan is None
    assert torch.equal(student["mel"], frontend(batch.waves)["mel"])
    assert torch.equal(student["mel"], teacher["mel"])
    assert torch.equal(targets["strong"], batch.strong)


def test_only_labelled_clips_are_mixed_unless_told_otherwise(frontend, batch):
    mixing = Fixed()
    Views(mixing=mixing)(frontend, batch)
    assert mixing.groups.tolist() == [0, 0, 1, -1]
    Views(mixing=mixing, mix_unlabelled=True)(frontend, batch)
    assert mixing.groups.tolist() == [0, 0, 1, 2]
    student, *_ = Views(mixing=Mixup(0.5, probability=1.0))(frontend, batch)
    assert torch.equal(student["mel"][3], frontend(batch.waves)["mel"][3])


@pytest.mark.parametrize("domain", ["features", "power", "waveform"])
def test_labels_are_mixed_as_the_inputs_are(frontend, batch, domain):
    student, teacher, targets, plan = Views(mixing=Fixed(), domain=domain, mix_teacher=False)(frontend, batch)
    clean = frontend(batch.waves)["mel"]
    assert not torch.allclose(student["mel"], clean)
    assert torch.equal(teacher["mel"], clean)
    torch.testing.assert_close(targets["weak"], 0.7 * batch.weak + 0.3 * batch.weak[plan.partners])
    if domain == "features":
        torch.testing.assert_close(student["mel"], 0.7 * clean + 0.3 * clean[plan.partners])


def test_the_teacher_sees_the_mixture_when_told(frontend, batch):
    student, teacher, *_ = Views(mixing=Fixed(), mix_teacher=True)(frontend, batch)
    assert torch.equal(student["mel"], teacher["mel"])


@pytest.mark.parametrize("domain", ["features", "waveform"])
def test_shared_shifts_move_both_views_and_the_labels_alike(frontend, batch, domain):
    torch.manual_seed(1)
    shift = FrameShift(0.3, clip_seconds=1.0, frame_rates={"mel": 100.0, "strong": 25.0})
    views = Views(shared=shift, mixing=Fixed(), domain=domain, mix_teacher=False)
    _, teacher, targets, plan = views(frontend, batch)
    clean = frontend(batch.waves)["mel"]
    steps = []
    for clip in range(4):
        matches = [
            k
            for k in range(-FRAMES // 2, FRAMES // 2 + 1)
            if torch.allclose(clean[clip].roll(4 * k, -1), teacher["mel"][clip], atol=1e-5)
        ]
        assert len(matches) == 1, "the teacher's clip is the clean one, shifted by whole frames"
        steps.append(matches[0])
    moved = torch.stack([batch.strong[clip].roll(steps[clip], 0) for clip in range(4)])
    torch.testing.assert_close(targets["strong"], 0.7 * moved + 0.3 * moved[plan.partners])


def test_views_are_augmented_apart(frontend, batch):
    view = Compose([FilterAugment()])
    student, teacher, *_ = Views(student=view, teacher=view)(frontend, batch)
    assert not torch.allclose(student["mel"], teacher["mel"])


def test_unknown_domains_are_refused():
    with pytest.raises(ValueError, match="waveform, power or features"):
        Views(domain="mel")
