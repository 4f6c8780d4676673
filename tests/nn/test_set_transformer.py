from __future__ import annotations

import math

import pytest
import torch
from safetensors import safe_open

from pmam_plugin.nn.set_transformer import EncoderLayer, TransformerDecoder, TransformerEncoder, sine_positions
from tests.support import shared


def test_positions_equal_the_reference() -> None:
    with safe_open(shared("reference_outputs/sedt_components.safetensors"), "pt") as file:
        expected = file.get_tensor("positional")
    ours = sine_positions(31, 256).T[None, :, :, None]
    torch.testing.assert_close(ours.expand_as(expected), expected, atol=1e-5, rtol=0)


def test_positions_of_a_short_clip_are_the_first_of_a_whole_span() -> None:
    torch.testing.assert_close(sine_positions(7, 32, 31), sine_positions(31, 32)[:7])
    assert not torch.allclose(sine_positions(7, 32), sine_positions(31, 32)[:7])


def test_padded_tokens_change_nothing() -> None:
    torch.manual_seed(0)
    encoder = TransformerEncoder(2, 16, 2, 32, dropout=0.1).eval()
    decoder = TransformerDecoder(2, 16, 2, 32, dropout=0.1).eval()
    tokens, queries = torch.randn(2, 9, 16), torch.randn(2, 3, 16)
    positions = sine_positions(9, 16)
    padding = torch.arange(9).expand(2, -1) >= torch.tensor([[9], [5]])
    noisy = tokens.masked_fill(padding.unsqueeze(-1), 100.0)
    first, second = (decoder(queries, encoder(x, positions, padding), positions, padding) for x in (tokens, noisy))
    torch.testing.assert_close(first, second)
    alone = encoder(tokens[1:, :5], positions[:5])
    torch.testing.assert_close(decoder(queries[1:], alone, positions[:5])[:, 0], first[:, 1])


def test_masked_queries_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    decoder = TransformerDecoder(2, 16, 2, 32, dropout=0.0).eval()
    queries, memory, positions = torch.randn(1, 4, 16), torch.randn(1, 5, 16), sine_positions(5, 16)
    group = torch.tensor([0, 0, 1, 1])
    mask = group[:, None] != group[None]
    before = decoder(queries, memory, positions, query_mask=mask)
    queries[:, 0] += 1.0
    after = decoder(queries, memory, positions, query_mask=mask)
    assert torch.equal(before[:, :, 2:], after[:, :, 2:])
    assert not torch.allclose(before[:, :, 1], after[:, :, 1])


def test_positions_join_queries_and_keys_but_not_values() -> None:
    # With one token, attention returns its value: positions must not be seen at all.
    encoder = TransformerEncoder(1, 16, 2, 32, dropout=0.0).eval()
    token = torch.randn(1, 1, 16)
    torch.testing.assert_close(encoder(token, torch.zeros(1, 16)), encoder(token, torch.randn(1, 16)))


def test_a_layer_follows_its_formula() -> None:
    torch.manual_seed(0)
    encoder = TransformerEncoder(1, 8, 2, 16, dropout=0.0).eval()
    layer, tokens, positions = encoder.layers[0], torch.randn(1, 5, 8), sine_positions(5, 8)

    def norm(x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()

    weight, bias = layer.self_attn.in_proj_weight, torch.randn(24)
    layer.self_attn.in_proj_bias.data = bias
    values = norm(tokens[0])
    q, k, v = (
        (x @ w.T + b).view(5, 2, 4).transpose(0, 1)
        for x, w, b in zip((values + positions, values + positions, values), weight.chunk(3), bias.chunk(3))
    )
    heads = (q @ k.transpose(1, 2) / math.sqrt(4)).softmax(-1) @ v
    attended = heads.transpose(0, 1).reshape(5, 8) @ layer.self_attn.out_proj.weight.T + layer.self_attn.out_proj.bias
    middle = tokens[0] + attended
    hidden = (norm(middle) @ layer.linear1.weight.T + layer.linear1.bias).clamp_min(0)
    expected = norm(middle + hidden @ layer.linear2.weight.T + layer.linear2.bias)
    torch.testing.assert_close(encoder(tokens, positions)[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cells", [1, 31, 200])
def test_any_number_of_cells_has_positions(cells: int) -> None:
    positions = sine_positions(cells, 64)
    assert positions.shape == (cells, 64)
    assert positions.abs().max() <= 1


def test_attention_weights_may_go_without_dropout() -> None:
    layer = EncoderLayer(16, 2, 32, dropout=0.3, attention_dropout=0.0)
    assert (layer.self_attn.dropout, layer.dropout.p) == (0.0, 0.3)
    assert EncoderLayer(16, 2, 32, dropout=0.3).self_attn.dropout == 0.3
