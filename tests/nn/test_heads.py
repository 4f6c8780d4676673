import torch

from pmam_plugin.nn.heads import PredictionHead, TagHead


def test_prediction_reaches_the_width_of_the_prototypes() -> None:
    assert PredictionHead(6, output_dim=10)(torch.randn(2, 7, 6)).shape == (2, 7, 10)


def test_tags_are_float_probabilities_even_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        tags = TagHead(8, classes=3, heads=2)(torch.randn(2, 9, 8))
    assert tags.dtype == torch.float32
    assert tags.shape == (2, 3)
    assert bool(((tags > 0) & (tags < 1)).all())
