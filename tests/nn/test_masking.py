import pytest
import torch
from hypothesis import given, settings, strategies as st

from pmam_plugin.config import from_config, to_config
from pmam_plugin.nn.masking import BlockMasking, apply_mask


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("rate", "hidden"), [(0.75, 750), (0.8, 800), (0.001, 10), (1.0, 1000)])
def test_masked_frames_follow_the_rate(rate: float, hidden: int) -> None:
    mask = BlockMasking(rate=rate).plan(3, 1000).mask
    assert mask.sum(dim=1).tolist() == [hidden] * 3


@settings(max_examples=50, deadline=None)
@given(
    frames=st.integers(1, 200),
    block=st.integers(1, 30),
    rate=st.floats(0, 1, exclude_min=True),
    seed=st.integers(0, 1000),
)
def test_number_of_hidden_blocks_is_the_rounded_share(frames: int, block: int, rate: float, seed: int) -> None:
    mask = BlockMasking(rate=rate, block_frames=block).plan(2, frames, generator=seeded(seed)).mask
    blocks = -(-frames // block)
    expected = max(1, int(rate * blocks + 0.5))  # a clip of which nothing is hidden would train nothing
    starts = mask[:, ::block]
    assert starts.sum(dim=1).tolist() == [expected, expected]
    assert torch.equal(starts.repeat_interleave(block, dim=1)[:, :frames], mask)


def test_frames_after_the_last_whole_block_are_hidden_too() -> None:
    plan = BlockMasking(rate=1.0, block_frames=10).plan(1, 25)
    assert plan.mask.all()


def test_a_block_is_treated_in_one_way() -> None:
    plan = BlockMasking(replace_with={"mask_token": 0.4, "random_frame": 0.3, "itself": 0.3}).plan(4, 200)
    assert torch.equal(plan.style, plan.style[:, ::10].repeat_interleave(10, dim=1))
    assert plan.style.unique().tolist() == [0, 1, 2]


def test_same_seed_hides_the_same_frames() -> None:
    first, again, other = (BlockMasking().plan(2, 300, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.mask, again.mask)
    assert torch.equal(first.style, again.style)
    assert torch.equal(first.source, again.source)
    assert not torch.equal(first.mask, other.mask)


def test_padding_is_neither_hidden_nor_shown_elsewhere() -> None:
    padding = torch.zeros(2, 100, dtype=torch.bool)
    padding[0, 37:] = True
    plan = BlockMasking(replace_with={"random_frame": 1.0}).plan(2, 100, padding, seeded())
    assert not (plan.mask & padding).any()
    assert plan.mask[0, :37].float().mean() > 0.5
    assert not padding.flatten()[plan.source].any()


def test_a_batch_of_nothing_but_padding_is_left_alone() -> None:
    plan = BlockMasking().plan(2, 30, torch.ones(2, 30, dtype=torch.bool))
    assert not plan.mask.any()


@pytest.mark.parametrize("contiguous", [True, False])
def test_hidden_frames_change_and_others_stay(contiguous: bool) -> None:
    frames = torch.randn(2, 100, 8) if contiguous else torch.randn(2, 8, 100).transpose(1, 2)
    before = frames.clone()
    token = torch.full((1, 1, 8), 9.0)
    plan = BlockMasking(replace_with={"mask_token": 0.6, "random_frame": 0.4}).plan(2, 100, generator=seeded())
    shown = apply_mask(frames, token, plan)
    assert torch.equal(shown[~plan.mask], frames[~plan.mask])
    assert (shown[plan.mask & (plan.style == 0)] == 9.0).all()
    borrowed = plan.mask & (plan.style == 1)
    assert borrowed.any()
    assert torch.equal(shown[borrowed], frames.reshape(-1, 8)[plan.source[borrowed]])
    assert torch.equal(frames, before)


def test_gradient_reaches_token_and_visible_frames_only() -> None:
    frames = torch.randn(1, 40, 4, requires_grad=True)
    token = torch.zeros(4, requires_grad=True)
    plan = BlockMasking(replace_with={"mask_token": 1.0}).plan(1, 40)
    apply_mask(frames, token, plan).sum().backward()
    assert frames.grad is not None
    assert token.grad is not None
    assert torch.equal(frames.grad.bool().all(dim=-1), ~plan.mask)
    assert (token.grad == plan.mask.sum()).all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"rate": 1.5},
        {"rate": 0.0},
        {"block_frames": 0},
        {"replace_with": {"mask_token": 0.5}},
        {"replace_with": {"zeros": 1.0}},
        {"replace_with": {"mask_token": 2.0, "itself": -1.0}},
    ],
)
def test_impossible_settings_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match=r"rate|replace_with"):
        BlockMasking(**arguments)


def test_configuration_rebuilds_the_masking() -> None:
    masking = from_config(to_config(BlockMasking(rate=0.5, replace_with={"mask_token": 1.0})))
    assert masking.rate == 0.5
    assert masking.probabilities == [1.0, 0.0, 0.0]
