import math

import pytest
import torch
from torch import Tensor

from pmam_plugin.nn.context import (
    IdentityContext,
    RecurrentContext,
    RelativeAttention,
    RelativePositionTransformer,
    relative_positions,
)


def attend_by_definition(attention: RelativeAttention, frames: Tensor) -> Tensor:
    """The published formula with loops over heads and pairs of frames."""
    batch, length, dim = frames.shape
    size = dim // attention.heads
    query, key, value = attention.in_projection(frames).chunk(3, dim=-1)
    output = torch.zeros(batch, length, dim)
    frequency = 10000.0 ** (-torch.arange(0, dim, 2) / dim)
    for head in range(attention.heads):
        part = slice(head * size, (head + 1) * size)
        logits = torch.zeros(batch, length, length)
        for i in range(length):
            for j in range(length):
                angle = (i - j) * frequency
                code = torch.stack([angle.sin(), angle.cos()], dim=1).flatten()
                distance = (attention.distance_projection.weight @ code)[part]
                content = (query[:, i, part] + attention.content_bias[head]) * key[:, j, part]
                position = (query[:, i, part] + attention.distance_bias[head]) * distance
                logits[:, i, j] = (content + position).sum(dim=-1) / math.sqrt(size)
        output[..., part] = logits.softmax(dim=-1) @ value[..., part]
    return attention.out_projection(output)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_attention_follows_the_formula(length: int) -> None:
    torch.manual_seed(0)
    attention = RelativeAttention(12, heads=3)
    frames = torch.randn(2, length, 12)
    result = attention(frames, relative_positions(length, 12, frames.device))
    torch.testing.assert_close(result, attend_by_definition(attention, frames), atol=1e-5, rtol=1e-4)


def test_gradients_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    attention = RelativeAttention(8, heads=2)
    frames = torch.randn(1, 6, 8)
    codes = relative_positions(6, 8, frames.device)
    target = torch.randn(1, 6, 8)
    gradients = []
    for output in (attention(frames, codes), attend_by_definition(attention, frames)):
        attention.zero_grad()
        (output * target).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in attention.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(list(attention.parameters()))
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_hidden_states_stop_at_the_depth_asked_for() -> None:
    context = RelativePositionTransformer(16, depth=3, heads=2).eval()
    frames = torch.randn(2, 9, 16)
    states = context.hidden_states(frames)
    assert len(states) == 3
    torch.testing.assert_close(states[-1], context(frames))
    (first,) = context.hidden_states(frames, depth=1)
    torch.testing.assert_close(first, states[0])


def test_the_order_of_frames_matters() -> None:
    torch.manual_seed(0)
    context = RelativePositionTransformer(16, depth=2, heads=2)
    frames = torch.randn(1, 12, 16)
    assert not torch.allclose(context(frames.flip(1)).flip(1), context(frames), atol=1e-3)


def test_residual_of_the_published_system_is_a_choice() -> None:
    torch.manual_seed(0)
    published = RelativePositionTransformer(16, depth=1, heads=2)
    plain = RelativePositionTransformer(16, depth=1, heads=2, normalized_residual=False)
    plain.load_state_dict(published.state_dict())
    frames = torch.randn(1, 5, 16) * 10
    # The published block forgets the scale of its input, a pre-norm block carries it through.
    torch.testing.assert_close(published(frames), published(frames * 7), atol=1e-4, rtol=1e-3)
    assert plain(frames * 7).norm() > 5 * plain(frames).norm()


def test_recurrent_and_identity_contexts_state_their_width() -> None:
    frames = torch.randn(2, 6, 10)
    recurrent = RecurrentContext(10, hidden=4)
    assert recurrent(frames).shape == (2, 6, recurrent.dim) == (2, 6, 8)
    identity = IdentityContext(10)
    assert identity(frames) is frames
    assert identity.dim == 10


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="5 heads"):
        RelativePositionTransformer(16, heads=5)
