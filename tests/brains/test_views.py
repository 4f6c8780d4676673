"""Where is the click in what the student hears, and where does its label say it is?"""

import pytest
import torch

from pmam_plugin.augment import Compose, ConditionalMixup, FilterAugment, FrameShift, FrequencyWarp, MixPlan, Mixup
from pmam_plugin.brains.views import Views
from pmam_plugin.features import ATSTMel, CRNNMel, FrontEnds, LogMel, SEDTMel
from tests.brains.batches import labelled as batch_of

RATE, SECONDS, LABEL_RATE, CLICK = 16000, 4.0, 25.0, 0.08
TONES = (400.0, 700.0, 1200.0, 2000.0, 3300.0, 5400.0)
ONSETS = (0.6, 3.2, 1.4, 2.8, 2.2, 1.0)
STREAMS = {
    "log": {"mel": LogMel()},
    "sedt": {"mel": SEDTMel()},
    "atst and crnn": {"atst": ATSTMel(), "crnn": CRNNMel()},
}


def clicks():
    """Two strongly labelled clips, two weakly, two unlabelled; clip k holds one click, of pitch and class k."""
    time = torch.arange(round(SECONDS * RATE)) / RATE
    onsets, tones = torch.tensor(ONSETS)[:, None], torch.tensor(TONES)[:, None]
    # Rounded at its ends, or it would be heard at every pitch.
    envelope = (torch.pi * ((time - onsets) / CLICK).clamp(0, 1)).sin().square()
    waves = 0.3 * envelope * (2 * torch.pi * tones * time).sin() + 3e-3 * torch.randn(6, len(time))
    middles = (torch.arange(round(SECONDS * LABEL_RATE)) + 0.5) / LABEL_RATE
    strong = ((middles >= onsets) & (middles < onsets + CLICK)).float()[:, :, None] * torch.eye(6)[:, None]
    kind = torch.arange(6) // 2
    return batch_of(waves, strong * (kind == 0).view(6, 1, 1), torch.eye(6) * (kind < 2)[:, None], RATE, kind)


def heard(front_end, mel, clip, tone):
    """When the click of pitch ``tone`` sounds in the features of ``clip``, s; None where it does not."""
    bank = front_end.filterbank[:, round(TONES[tone] / RATE * front_end.n_fft)]
    row = mel[clip, int(bank.argmax())]
    if row.max() - row.median() < 0.25 * (mel.max() - mel.min()):
        return None
    return (float(row.argmax()) + 0.5) / front_end.frame_rate


def labelled(strong, clip, tone):
    """When the label of class ``tone`` stands, s; None where it does not."""
    active = strong[clip, :, tone].nonzero().squeeze(1)
    return None if not len(active) else (float(active.float().mean()) + 0.5) / LABEL_RATE


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("threshold", [1.0, 0.0], ids=["composition", "perturbation"])
@pytest.mark.parametrize("mix_teacher", [True, False], ids=["teacher mixed", "teacher clean"])
@pytest.mark.parametrize("domain", ["power", "features"])
@pytest.mark.parametrize("streams", STREAMS)
def test_a_click_stands_where_its_label_stands_for_both_partners(streams, domain, mix_teacher, threshold, seed):
    torch.manual_seed(seed)
    frontend, batch = FrontEnds(**STREAMS[streams]).eval(), clicks()
    mixing = ConditionalMixup(alpha=20.0, threshold=threshold)
    shift = FrameShift(0.4, SECONDS, {**frontend.frame_rates, "strong": LABEL_RATE})
    views = Views(shift, mixing, domain, mix_teacher, mix_unlabelled=True)
    student, teacher, targets, plan = views(frontend, batch)
    moved = 0
    for name, front_end in frontend.named().items():
        for clip, partner in enumerate(plan.partners.tolist()):
            own, other = (heard(front_end, student[name], clip, tone) for tone in (clip, partner))
            # What pseudo-labels and contrast follow: the teacher's answers to both clips, mixed by the plan.
            answer = heard(front_end, teacher[name], clip, clip), heard(front_end, teacher[name], partner, partner)
            assert own == pytest.approx(answer[0], abs=0.025)
            assert other == pytest.approx(answer[1], abs=0.025)
            assert (heard(front_end, teacher[name], clip, partner) is not None) == mix_teacher
            moved += abs(own - ONSETS[clip]) > 0.1
            if clip < 2:
                assert labelled(targets["strong"], clip, clip) == pytest.approx(own, abs=0.06)
                assert labelled(targets["partner_strong"], clip, partner) == pytest.approx(other, abs=0.06)
                composed = labelled(targets["strong"], clip, partner)
                assert composed is None if threshold == 0 else composed == pytest.approx(other, abs=0.06)
    assert moved > 3


EMBEDDING_RATE = 12.5  # half of the labels', as an encoder with longer frames has it


def embedded():
    """The same clips as a frozen encoder has stored them: where clip k clicks, its embedding points to axis k."""
    batch = clicks()
    frames = torch.arange(round(SECONDS * EMBEDDING_RATE)) / EMBEDDING_RATE
    onsets = torch.tensor(ONSETS)[:, None]
    sounding = (frames + 1 / EMBEDDING_RATE > onsets) & (frames < onsets + CLICK)
    batch.embeddings = 5 * torch.eye(6)[:, :, None] * sounding[:, None] + 0.01 * torch.randn(6, 6, len(frames))
    return batch


def pointed(embeddings, clip, tone):
    """When the embeddings of ``clip`` point to axis ``tone``, s; None where they do not."""
    active = (embeddings[clip, tone] > 0.5).nonzero().squeeze(1)
    return None if not len(active) else (float(active.float().mean()) + 0.5) / EMBEDDING_RATE


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [1.0, 0.0], ids=["composition", "perturbation"])
@pytest.mark.parametrize("mix_teacher", [True, False], ids=["teacher mixed", "teacher clean"])
def test_a_click_stands_where_its_label_stands_in_stored_embeddings(mix_teacher, threshold, seed):
    torch.manual_seed(seed)
    shift = FrameShift(0.4, SECONDS)
    views = Views(shift, ConditionalMixup(20.0, threshold), "embeddings", mix_teacher, mix_unlabelled=True)
    student, teacher, targets, plan = views(FrontEnds(mel=LogMel()).eval(), embedded())
    moved = 0
    for clip, partner in enumerate(plan.partners.tolist()):
        own, other = (pointed(student["embeddings"], clip, tone) for tone in (clip, partner))
        assert own == pytest.approx(pointed(teacher["embeddings"], clip, clip), abs=1e-6)
        assert other == pytest.approx(pointed(teacher["embeddings"], partner, partner), abs=1e-6)
        assert (pointed(teacher["embeddings"], clip, partner) is not None) == mix_teacher
        moved += abs(own - ONSETS[clip]) > 0.1
        if clip < 2:
            assert labelled(targets["strong"], clip, clip) == pytest.approx(own, abs=0.06)
            composed = labelled(targets["strong"], clip, partner)
            assert composed is None if threshold == 0 else composed == pytest.approx(other, abs=0.06)
    assert moved > 2
    assert not {name for name in targets if name.startswith("partner")}, "how loud a partner is, nobody knows"


def test_the_level_of_a_partner_is_that_of_its_sound_in_the_mixture():
    frontend, batch = FrontEnds(mel=LogMel()).eval(), clicks()
    batch.waves[1] *= 0.1
    plan = MixPlan(torch.full((6,), 0.9), torch.ones(6), torch.tensor([1, 0, 3, 2, 5, 4]))
    targets = Views(mixing=type("Fixed", (), {"draw": lambda self, groups: plan})(), domain="power")(frontend, batch)[2]
    share = 10 * torch.tensor(0.1 / 0.9).log10()
    assert float(targets["partner_clip_level"][1]) == pytest.approx(float(share) + 20, abs=0.5)
    assert float(targets["partner_clip_level"][0]) == pytest.approx(float(share) - 20, abs=0.5)
    click = int(ONSETS[0] * LABEL_RATE) + 1
    assert targets["partner_level"][1, click] > 20, "clip 1 is silent where its partner clicks"
    assert targets["partner_level"][0, click] < -20


def test_without_augmentation_both_see_the_clean_clips():
    frontend, batch = FrontEnds(mel=LogMel()).eval(), clicks()
    student, teacher, targets, plan = Views()(frontend, batch)
    assert plan is None
    assert torch.equal(student["mel"], frontend(batch.waves)["mel"])
    assert torch.equal(student["mel"], teacher["mel"])
    assert torch.equal(targets["strong"], batch.strong)
    assert set(targets) == {"strong", "weak", "padding"}


@pytest.mark.parametrize("mix_unlabelled", [True, False])
def test_clips_are_mixed_with_their_like_and_unlabelled_ones_only_when_told(mix_unlabelled):
    frontend, batch = FrontEnds(mel=LogMel()).eval(), clicks()
    views = Views(mixing=Mixup(0.5, probability=1.0), mix_unlabelled=mix_unlabelled)
    student, _, targets, plan = views(frontend, batch)
    assert plan.partners.tolist() == ([1, 0, 3, 2, 5, 4] if mix_unlabelled else [1, 0, 3, 2, 4, 5])
    assert torch.equal(student["mel"][4:], frontend(batch.waves)["mel"][4:]) != mix_unlabelled
    torch.testing.assert_close(targets["weak"], plan.mix_targets(batch.weak))


def test_views_are_augmented_apart():
    view = Compose([FilterAugment()])
    student, teacher, *_ = Views(student=view, teacher=view)(FrontEnds(mel=LogMel()).eval(), clicks())
    assert not torch.allclose(student["mel"], teacher["mel"])


def test_one_coin_can_decide_for_both_views_while_each_draws_its_own_warp():
    frontend, warp = FrontEnds(**STREAMS["atst and crnn"]).eval(), FrequencyWarp(probability=0.5, streams=["atst"])
    batch = clicks()
    torch.manual_seed(0)
    student, teacher, *_ = Views(both=warp)(frontend, batch)
    clean = frontend(batch.waves)["atst"]
    changed = [[not torch.equal(*pair) for pair in zip(view["atst"], clean)] for view in (student, teacher)]
    assert changed[0] == changed[1]
    assert 0 < sum(changed[0]) < 6
    alike = [torch.equal(*pair) for pair in zip(student["atst"], teacher["atst"])]
    assert alike == [not warped for warped in changed[0]], "of a warped clip the two views differ"
    assert torch.equal(student["crnn"], teacher["crnn"])


def test_unknown_domains_are_refused():
    with pytest.raises(ValueError, match="power, features or embeddings"):
        Views(domain="waveform")


@pytest.mark.parametrize("kind", ["composition", "perturbation"])
def test_soft_seconds_and_the_classes_of_two_corpora_survive_shift_and_mixing(kind):
    """Clip 0 comes from a corpus that knows the classes 0 and 2, clip 1 from one that knows 1 and 2."""
    torch.manual_seed(3)
    frontend, batch = FrontEnds(mel=LogMel()).eval(), clicks()
    batch.strong[0, :, 0] *= 0.3  # the click of clip 0 is what 30 % have heard
    batch.annotated = torch.ones(6, 6, dtype=torch.bool)
    batch.annotated[0, 1] = batch.annotated[1, 0] = False

    class Fixed:
        def draw(self, groups):
            target = 0.75 if kind == "composition" else 1.0
            changed = torch.tensor([True, True, False, False, False, False])
            one = torch.ones(6)
            return MixPlan(
                torch.where(changed, 0.75, one), torch.where(changed, target, one), torch.tensor([1, 0, 2, 3, 4, 5])
            )

    shift = FrameShift(0.4, SECONDS, {**frontend.frame_rates, "strong": LABEL_RATE})
    student, _, targets, _ = Views(shift, Fixed(), "power")(frontend, batch)
    soft = targets["strong"][0, :, 0]
    assert float(soft.max()) == pytest.approx(0.3 * (0.75 if kind == "composition" else 1.0))
    assert int((soft > 0).sum()) == 2, "of 80 ms"
    moved = labelled(targets["strong"], 0, 0)
    assert moved == pytest.approx(heard(frontend.named()["mel"], student["mel"], 0, 0), abs=0.025)
    assert moved != pytest.approx(ONSETS[0] + CLICK / 2, abs=0.025), "the draw has moved it"
    known = targets["annotated"]
    if kind == "composition":  # a mixture says of a class what both corpora say of it
        assert known[:2, :3].tolist() == [[False, False, True]] * 2
    else:  # the target is that of the clip; what the partner's labels do not tell may be heard
        assert known[:2, :3].tolist() == [[True, False, True], [False, True, True]]
        assert bool((targets["partner_strong"][0, :, 0] == 1).all())
        assert float(targets["partner_strong"][0, :, 2].max()) == 0
    assert bool(known[2:].all())
