"""Mixing follows one plan for inputs and targets, and conditional mixup its threshold."""

import math

import pytest
import torch
from hypothesis import given, strategies as st
from safetensors.torch import load_file

from pmam_plugin.augment import ConditionalMixup, MixPlan, Mixup, draw_partners
from tests.support import shared

groups_of_clips = st.lists(st.integers(-1, 3), min_size=1, max_size=24).map(torch.tensor)
seeds = st.integers(0, 2**31)
mixers = st.sampled_from(
    [
        Mixup(0.2, probability=1.0),
        Mixup(10.0, 0.5, probability=1.0, draw_per="group"),
        Mixup(0.2, probability=0.5, draw_per="clip", fold=True),
        ConditionalMixup(),
        ConditionalMixup(threshold=1.0),
        ConditionalMixup(threshold=0.4, probability=0.7),
    ]
)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def drawn(mixer, groups, seed):
    plan = mixer.draw(groups, generator(seed))
    if plan is None:
        ones = torch.ones(len(groups))
        plan = MixPlan(ones, ones, torch.arange(len(groups)))
    return plan


def test_the_mixture_of_the_reference_is_reproduced():
    # Its permutation happened to be the identity, which must leave the clips alone.
    tensors = load_file(shared("reference_outputs/pmam_components.safetensors"))
    mel = tensors["frontend.mel"]
    shares = torch.full((2,), 0.3)
    mixed = MixPlan(shares, shares, torch.arange(2)).mix_inputs(mel)
    assert (mixed - tensors["augment.mixup.mel"]).abs().max() < 1e-4


def test_a_clip_is_mixed_with_its_partner_by_its_weight():
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]])
    shares = torch.tensor([0.25, 0.5, 1.0])
    mixed = MixPlan(shares, shares, torch.tensor([2, 0, 1])).mix_inputs(values)
    assert torch.allclose(mixed, torch.tensor([[7.75, 15.5], [2.0, 3.0], [10.0, 20.0]]))


@given(groups=groups_of_clips, seed=seeds, mixer=mixers)
def test_labels_stay_probabilities_and_unmixed_clips_stay_themselves(groups, seed, mixer):
    plan = drawn(mixer, groups, seed)
    labels = torch.rand(len(groups), 7, 3, generator=generator(seed)).round(decimals=1)
    mixed = plan.mix_targets(labels)
    assert ((mixed >= 0) & (mixed <= 1)).all()
    alone = plan.weights == 1
    assert torch.equal(mixed[alone], labels[alone])
    assert torch.equal(plan.mix_inputs(labels - 0.5)[alone], labels[alone] - 0.5)


@given(groups=groups_of_clips, seed=seeds, mixer=mixers)
def test_clips_are_mixed_within_their_group_only_and_never_with_themselves(groups, seed, mixer):
    plan = drawn(mixer, groups, seed)
    itself = torch.arange(len(groups))
    assert torch.equal(groups[plan.partners], groups)
    assert ((plan.weights >= 0) & (plan.weights <= 1)).all()
    lonely = torch.tensor([int((groups == group).sum()) == 1 for group in groups]) | (groups < 0)
    assert (plan.weights[lonely] == 1).all()
    assert (plan.weights[plan.partners == itself] == 1).all()


@given(groups=groups_of_clips, seed=seeds)
def test_partners_are_a_permutation_and_a_derangement_where_possible(groups, seed):
    partners = draw_partners(groups, generator(seed))
    assert sorted(partners.tolist()) == list(range(len(groups)))
    assert torch.equal(groups[partners], groups)
    for clip, partner in enumerate(partners.tolist()):
        group = int(groups[clip])
        if group < 0:
            assert partner == clip
        elif int((groups == group).sum()) > 1:
            assert partner != clip


def test_every_partner_is_equally_likely():
    groups = torch.tensor([0, 0, 0, 0, 1, 1])
    counts = torch.zeros(6, 6)
    for seed in range(600):
        counts[torch.arange(6), draw_partners(groups, generator(seed))] += 1
    assert torch.equal(counts[4:, 4:], torch.tensor([[0.0, 600.0], [600.0, 0.0]]))
    off_diagonal = counts[:4, :4][~torch.eye(4, dtype=torch.bool)]
    assert off_diagonal.min() > 150
    assert off_diagonal.max() < 250


@given(
    groups=groups_of_clips,
    seed=seeds,
    alpha=st.floats(0.1, 5.0),
    threshold=st.floats(0.0, 1.0),
    draw_per=st.sampled_from(["batch", "group", "clip"]),
)
def test_the_target_follows_the_threshold(groups, seed, alpha, threshold, draw_per):
    plan = drawn(ConditionalMixup(alpha, threshold, draw_per=draw_per), groups, seed)
    assert ((plan.weights >= 0.5) & (plan.weights <= 1)).all()
    composed = plan.weights <= threshold
    assert torch.equal(plan.target_weights[composed], plan.weights[composed])
    assert (plan.target_weights[~composed] == 1).all()
    assert torch.equal(plan.composition, composed & (plan.weights < 1))


def test_the_threshold_itself_is_a_composition():
    weights = torch.tensor([0.5, 0.8, math.nextafter(0.8, 1) + 1e-6, 1.0])
    assert torch.equal(ConditionalMixup(threshold=0.8).target_weights(weights), torch.tensor([0.5, 0.8, 1.0, 1.0]))


@given(seed=seeds)
def test_below_one_half_all_mixtures_are_perturbations_and_no_label_changes(seed):
    plan = drawn(ConditionalMixup(threshold=0.49), torch.zeros(8, dtype=torch.long), seed)
    labels = torch.rand(8, 5, 3)
    assert torch.equal(plan.mix_targets(labels), labels)
    assert not plan.composition.any()
    assert not torch.equal(plan.mix_inputs(labels), labels)


@given(seed=seeds)
def test_at_threshold_one_inputs_and_targets_are_mixed_alike(seed):
    plan = drawn(ConditionalMixup(threshold=1.0), torch.zeros(8, dtype=torch.long), seed)
    labels = torch.rand(8, 5, 3)
    assert torch.equal(plan.mix_targets(labels), plan.mix_inputs(labels).clamp(0, 1))


def test_the_default_threshold_makes_two_fifths_of_the_mixtures_compositions():
    plan = drawn(ConditionalMixup(), torch.zeros(20000, dtype=torch.long), 0)
    assert float(plan.composition.float().mean()) == pytest.approx(0.41, abs=0.015)


@pytest.mark.parametrize(("draw_per", "distinct"), [("batch", 1), ("group", 3), ("clip", 12)])
def test_a_share_is_drawn_per_batch_group_or_clip(draw_per, distinct):
    groups = torch.arange(12) % 3
    plan = drawn(Mixup(1.0, probability=1.0, draw_per=draw_per), groups, 0)
    assert len(plan.weights.unique()) == distinct
    if draw_per == "group":
        assert all(len(plan.weights[groups == group].unique()) == 1 for group in range(3))


def test_the_share_follows_its_law():
    plan = drawn(Mixup(10.0, 0.5, probability=1.0, draw_per="clip"), torch.zeros(20000, dtype=torch.long), 0)
    assert float(plan.weights.mean()) == pytest.approx(0.952, abs=0.003)
    assert float(plan.weights.median()) == pytest.approx(0.977, abs=0.003)


def test_the_probability_counts_batches_or_clips():
    groups = torch.zeros(10, dtype=torch.long)
    plans = [Mixup(1.0, probability=0.3).draw(groups, generator(seed)) for seed in range(400)]
    assert 80 < sum(plan is not None for plan in plans) < 160
    assert all(plan is None or bool((plan.weights < 1).all()) for plan in plans)
    many = drawn(Mixup(1.0, probability=0.3, draw_per="clip"), torch.zeros(4000, dtype=torch.long), 0)
    assert float((many.weights < 1).float().mean()) == pytest.approx(0.3, abs=0.03)
    assert Mixup(1.0, probability=0.0).draw(groups) is None


def test_padding_is_what_both_clips_lack_unless_the_target_is_one_clip():
    padding = torch.tensor([[False, False, True, True], [False, True, True, False], [False, True, True, False]])
    plan = MixPlan(torch.tensor([0.6, 0.6, 0.9]), torch.tensor([0.6, 0.6, 1.0]), torch.tensor([1, 0, 0]))
    expected = torch.tensor([[False, False, True, False], [False, False, True, False], [False, True, True, False]])
    assert torch.equal(plan.mix_targets(padding), expected)


def test_one_call_mixes_features_and_targets_by_group():
    batch = 8
    groups = torch.tensor([0, 0, 0, 1, 1, 1, -1, -1])
    features = {"atst": torch.rand(batch, 4, 10), "crnn": torch.rand(batch, 8, 6)}
    targets = {"strong": torch.rand(batch, 5, 3), "weak": torch.rand(batch, 3), "group": groups}
    before = {name: value.clone() for name, value in (features | targets).items()}
    mixed_features, mixed_targets = Mixup(1.0, probability=1.0)(features, targets, generator(3))
    plan = Mixup(1.0, probability=1.0).draw(groups, generator(3))
    for name, value in features.items():
        assert torch.equal(mixed_features[name], plan.mix_inputs(value))
        assert torch.equal(mixed_features[name][6:], value[6:])
        assert not torch.equal(mixed_features[name][:6], value[:6])
    assert torch.equal(mixed_targets["strong"], plan.mix_targets(targets["strong"]))
    assert torch.equal(mixed_targets["weak"], plan.mix_targets(targets["weak"]))
    assert torch.equal(mixed_targets["group"], groups)
    assert all(torch.equal(value, before[name]) for name, value in (features | targets).items())


def test_the_global_seed_decides_where_no_generator_is_given():
    features = {"mel": torch.rand(4, 3, 5)}

    def draw():
        torch.manual_seed(7)
        return ConditionalMixup()(features, {})[0]["mel"]

    assert torch.equal(draw(), draw())
    assert not torch.equal(draw(), ConditionalMixup()(features, {})[0]["mel"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Mixup(0.0),
        lambda: Mixup(1.0, -1.0),
        lambda: Mixup(1.0, probability=1.5),
        lambda: Mixup(1.0, draw_per="part"),
        lambda: ConditionalMixup(threshold=1.2),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ValueError, match=r"positive|lies in|draw_per"):
        make()
