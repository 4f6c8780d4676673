import pytest
import torch
from timm.models.vision_transformer import Block
from torch import nn

from pmam_plugin.nn.lora import PeftLinear, add_lora, merge_lora


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(16, 2, qkv_bias=True) for _ in range(3))
        self.norm = nn.LayerNorm(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.transformer = Tiny()
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.transformer(x))


def adapted(blocks: tuple[int, ...] = (1, 2)) -> Model:
    model = Model()
    add_lora(model, blocks)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return model


def test_adapters_start_as_nothing() -> None:
    x, plain, model = torch.randn(2, 5, 16), Model(), Model()
    add_lora(model, [1, 2])
    torch.testing.assert_close(model(x), plain(x))


def test_only_adapters_final_norm_and_the_rest_of_the_model_learn() -> None:
    model = Model()
    model.head.bias.requires_grad_(False)
    add_lora(model, [2], rank=4)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    inside = {name for name in learning if name.startswith("transformer.blocks")}
    assert all(".blocks.2." in name and ".lora_" in name for name in inside)
    assert len(inside) == 8
    assert learning - inside == {"transformer.norm.weight", "transformer.norm.bias", "head.weight"}
    assert sum(dict(model.named_parameters())[name].numel() for name in inside) == 4 * (64 + 32 + 80 + 80)


def test_forward_and_gradients_are_those_of_peft() -> None:
    model = adapted()
    x = torch.randn(3, 5, 16)
    results = []
    for layers_forward in (None, PeftLinear.forward):
        for layer in model.modules():
            if isinstance(layer, PeftLinear) and layers_forward is not None:
                layer.forward = layers_forward.__get__(layer)
        model.zero_grad()
        inputs = x.clone().requires_grad_()
        output = model(inputs)
        output.square().sum().backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        results.append((output, inputs.grad, gradients))
    (ours, our_input, our_gradients), (theirs, their_input, their_gradients) = results
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(our_input, their_input, atol=1e-5, rtol=1e-4)
    assert our_gradients.keys() == their_gradients.keys()
    for name in our_gradients:
        torch.testing.assert_close(our_gradients[name], their_gradients[name], atol=1e-4, rtol=1e-3)


def test_bfloat16_autocast_runs_forward_and_backward() -> None:
    model = adapted()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(torch.randn(2, 5, 16))
    output.float().sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.dtype == torch.float32


def test_merged_state_loads_into_a_plain_model_and_computes_the_same() -> None:
    model, plain = adapted().eval(), Model().eval()
    plain.load_state_dict(merge_lora(model))
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(plain(x), model(x), atol=1e-5, rtol=1e-4)


def test_merging_twice_or_between_modes_changes_nothing() -> None:
    model = adapted()
    first = merge_lora(model)
    model.eval()
    model.train()
    model(torch.randn(1, 2, 16))
    second = merge_lora(model)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_state_with_adapters_reloads_unmerged() -> None:
    """A checkpoint of training holds base and adapters apart, so that a resumed run counts them once."""
    model, other = adapted(), adapted()
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    other.load_state_dict(model.state_dict())
    x = torch.randn(1, 4, 16)
    torch.testing.assert_close(other(x), model(x))


def test_adding_twice_or_to_absent_blocks_is_refused() -> None:
    model = adapted()
    with pytest.raises(ValueError, match="already"):
        add_lora(model, [0])
    with pytest.raises(ValueError, match="not all there"):
        add_lora(Model(), [2, 3])
    with pytest.raises(ValueError, match="not all there"):
        add_lora(Model(), [1], targets=("attn.query",))


def test_a_pattern_adapts_what_it_names_inside_a_part() -> None:
    model = Model()
    add_lora(model, rank=2, pattern=r"blocks\.[01]\.mlp\.fc1", within="transformer")
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    adapted = {name.split(".lora_")[0] for name in learning if ".lora_" in name}
    assert adapted == {"transformer.blocks.0.mlp.fc1", "transformer.blocks.1.mlp.fc1"}
    assert {"transformer.norm.weight", "head.weight"} <= learning
    for arguments, message in (
        ({"pattern": ".*", "within": "nowhere"}, "no part 'nowhere'"),
        ({"pattern": "query", "within": "transformer"}, "no linear layer in transformer matches"),
        ({"pattern": ".*"}, "either blocks"),
        ({"blocks": [1], "pattern": ".*", "within": "transformer"}, "either blocks"),
        ({}, "either blocks"),
    ):
        with pytest.raises(ValueError, match=message):
            add_lora(Model(), **arguments)
