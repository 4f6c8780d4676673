import torch
from hypothesis import given, settings, strategies as st

from pmam_plugin.nn.pooling import AttentionPool, FrequencyAttentionPool, linear_softmax_pool


def multihead_attention_of(pool: AttentionPool, dim: int) -> torch.nn.MultiheadAttention:
    attention = torch.nn.MultiheadAttention(dim, pool.heads, batch_first=True)
    attention.load_state_dict(
        {
            "in_proj_weight": pool.in_projection.weight,
            "in_proj_bias": pool.in_projection.bias,
            "out_proj.weight": pool.out_projection.weight,
            "out_proj.bias": pool.out_projection.bias,
        }
    )
    return attention


def test_attention_pool_is_multihead_attention_with_one_query() -> None:
    torch.manual_seed(0)
    pool = AttentionPool(24, heads=4)
    torch.nn.init.normal_(pool.query)
    torch.nn.init.normal_(pool.in_projection.bias)
    tokens, padding = torch.randn(3, 11, 24), torch.zeros(3, 11, dtype=torch.bool)
    padding[1, 6:] = True
    expected, _ = multihead_attention_of(pool, 24)(pool.query.expand(3, -1, -1), tokens, tokens, padding)
    torch.testing.assert_close(pool(tokens, padding), expected[:, 0], atol=1e-5, rtol=1e-4)


def test_frequency_pool_treats_every_time_step_alone() -> None:
    pool = FrequencyAttentionPool(12, heads=3)
    grid = torch.randn(2, 5, 7, 12)
    pooled = pool(grid)
    assert pooled.shape == (2, 7, 12)
    torch.testing.assert_close(pool(grid[:, :, 3:4]), pooled[:, 3:4])


def test_a_set_of_padding_gives_numbers() -> None:
    assert AttentionPool(8, heads=2)(torch.randn(1, 3, 8), torch.ones(1, 3, dtype=torch.bool)).isfinite().all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30))
def test_clip_score_lies_between_mean_and_maximum(values: list[float]) -> None:
    scores = torch.tensor(values).reshape(1, -1, 1)
    clip = float(linear_softmax_pool(scores))
    assert float(scores.mean()) - 1e-5 <= clip <= float(scores.max()) + 1e-5


def test_padding_does_not_count_and_nothing_gives_zero() -> None:
    scores = torch.tensor([[[0.2], [0.6], [1.0]]])
    padding = torch.tensor([[False, False, True]])
    torch.testing.assert_close(linear_softmax_pool(scores, padding), linear_softmax_pool(scores[:, :2]))
    assert linear_softmax_pool(scores, torch.ones(1, 3, dtype=torch.bool)).tolist() == [[0.0]]
