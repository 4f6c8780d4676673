import torch

from pmam_plugin.losses.prototype import PrototypeBCE
from pmam_plugin.models import MaskedModel
from pmam_plugin.nn.heads import PredictionHead, TagHead
from pmam_plugin.nn.masking import BlockMasking
from tests.models.support import tiny_backbone, tiny_features


def tiny_masked(**masking: object) -> MaskedModel:
    settings = {"block_frames": 2, "replace_with": {"mask_token": 1.0}, **masking}
    backbone = tiny_backbone()
    return MaskedModel(backbone, BlockMasking(**settings), PredictionHead(16, 7), TagHead(16, 5, heads=2)).eval()  # type: ignore[arg-type]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def test_output_has_the_stated_shapes() -> None:
    output = tiny_masked()(tiny_features())
    assert output.prediction.shape == (2, 25, 7)
    assert output.mask.shape == (2, 25)
    assert output.tags is not None
    assert output.tags.shape == (2, 5)


@torch.no_grad()
def test_hidden_frames_cannot_be_seen() -> None:
    """Changing what lies under the mask token changes no prediction."""
    model = tiny_masked()
    mask = torch.zeros(1, 25, dtype=torch.bool)
    mask[:, 8:20] = True
    plan = model._plan(torch.zeros(1, 25, 16), mask, None, None)
    frames = torch.randn(1, 25, 16)
    other = torch.where(plan.mask.unsqueeze(-1), torch.randn(1, 25, 16), frames)
    predictions = []
    for encoded in (frames, other):
        model.backbone.encoder.forward = lambda *_, encoded=encoded, **__: type(
            "Encoded", (), {"frames": encoded, "tokens": encoded}
        )
        predictions.append(model(tiny_features(batch=1), mask=mask).prediction)
    assert torch.equal(*predictions)


@torch.no_grad()
def test_a_generator_fixes_the_masks() -> None:
    model, features = tiny_masked(), tiny_features()
    first, again, other = (model(features, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.prediction, again.prediction)
    assert not torch.equal(first.mask, other.mask)


@torch.no_grad()
def test_padding_is_never_hidden() -> None:
    padding = torch.zeros(2, 25, dtype=torch.bool)
    padding[0, 12:] = True
    for mask in (None, torch.ones(2, 25, dtype=torch.bool)):
        output = tiny_masked(rate=1.0)(tiny_features(), mask=mask, padding=padding)
        assert torch.equal(output.mask, ~padding)


@torch.no_grad()
def test_embeddings_are_never_masked() -> None:
    """Extraction from a masked model would poison the prototypes; it cannot happen, in any mode."""
    model, features = tiny_masked(rate=1.0), tiny_features()
    expected = model.backbone(features).frames
    for training in (False, True):
        model.train(training)
        if training:
            model.backbone.encoder.stem.eval()  # batch statistics are not what this is about
        torch.testing.assert_close(model.backbone.embed(features, "context_2"), expected)


def test_everything_learns() -> None:
    model = tiny_masked().train()
    output = model(tiny_features())
    assert output.tags is not None
    (output.prediction[output.mask].square().sum() + output.tags.sum()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_without_masking_every_frame_is_seen_and_predicted() -> None:
    model, features = tiny_masked(), tiny_features()
    plain = MaskedModel(model.backbone, "none", model.head).train()
    padding = torch.zeros(2, 25, dtype=torch.bool)
    padding[0, 20:] = True
    output = plain(features, padding=padding)
    assert torch.equal(output.mask, ~padding)
    torch.testing.assert_close(output.prediction, plain.head(plain.backbone.embed(features, "context_2")))
    prototypes = torch.randn(5, 7, generator=seeded())
    PrototypeBCE()(output.prediction, output.mask, torch.rand(2, 25, 5), prototypes).backward()
    assert float(model.head.layers[0].weight.grad.abs().sum()) > 0
