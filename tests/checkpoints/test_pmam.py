import pytest
import torch

from pmam_plugin.checkpoints import load_model, load_module, save_model
from pmam_plugin.checkpoints.transformer4sed import import_transformer4sed, rename_keys
from pmam_plugin.encoders import CNNEncoder, DualBranchEncoder, PaSSTEncoder
from pmam_plugin.errors import InputError
from pmam_plugin.features import FrontEnds, PaSSTMel
from pmam_plugin.models import Backbone, FrameDetector, LinearSoftmaxHead, MaskedModel
from pmam_plugin.nn.context import RelativePositionTransformer
from pmam_plugin.nn.heads import PredictionHead, TagHead
from pmam_plugin.nn.masking import BlockMasking
from tests.checkpoints.test_transformer4sed import published_names


def backbone() -> Backbone:
    transformer = PaSSTEncoder(dim=128, heads=2, pooling_heads=1, centred_patches=False)
    encoder = DualBranchEncoder(transformer, CNNEncoder(), dim=64)
    return Backbone(FrontEnds(mel=PaSSTMel()), encoder, RelativePositionTransformer(64, heads=2))


def published(model: torch.nn.Module, pretraining: bool) -> dict[str, torch.Tensor]:
    """The tensors of ``model`` under the reference's names, and those that only the reference has."""
    marks = {name: torch.zeros(1) for name in published_names(pretraining)}
    ours = {id(mark): name for name, mark in rename_keys(marks).items()}
    state = model.state_dict()
    return {name: state[ours[id(mark)]] if id(mark) in ours else mark for name, mark in marks.items()}


@pytest.fixture(scope="module")
def detector() -> FrameDetector:
    torch.manual_seed(0)
    head = LinearSoftmaxHead(64, 10, token_dim=128, tag_heads=2)
    return FrameDetector(backbone(), head, [str(index) for index in range(10)]).eval()


def test_a_fine_tuned_file_becomes_a_detector(detector, tmp_path):
    tensors = published(detector, pretraining=False)
    assert len(tensors) == 315
    torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "best_teacher.pt")
    model, report = import_transformer4sed(tmp_path / "best_teacher.pt")
    assert model.labels[3] == "Dishes"
    assert report.loaded + len(report.skipped) == 315
    assert all("head" in name for name in report.skipped)
    features = detector.frontend(torch.randn(1, 32_000))
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(features).frames, detector(features).frames)
    save_model(tmp_path / "model", model)
    assert load_model(tmp_path / "model").model.sample_rate == 32_000


def test_a_pre_training_file_becomes_a_masked_model(tmp_path):
    torch.manual_seed(0)
    masked = MaskedModel(backbone(), BlockMasking(), PredictionHead(64, 128), TagHead(128, 30, 2))
    tensors = published(masked, pretraining=True)
    assert len(tensors) == 420
    torch.save(tensors, tmp_path / "best_model.pt")
    model, report = import_transformer4sed(tmp_path / "best_model.pt")
    torch.testing.assert_close(dict(model.state_dict()), dict(masked.state_dict()))
    assert sum("lora" in name for name in report.skipped) == 100
    save_model(tmp_path / "model", model)
    assert load_module(tmp_path / "model").config["architecture"] == "MaskedModel"


def test_files_that_do_not_fit_are_refused(detector, tmp_path):
    tensors = published(detector, pretraining=False)
    for change, message in (
        ({"classifier.bias": None}, r"x\.pt: lacks head"),
        ({"classifier.bias": torch.ones(7)}, "shape"),
        ({"surprise": torch.ones(1)}, r"x\.pt: surprise"),
        ({"transformer_projector.weight": None}, "no PMAM model"),
    ):
        changed = {name: tensor for name, tensor in {**tensors, **change}.items() if tensor is not None}
        torch.save(changed, tmp_path / "x.pt")
        with pytest.raises(InputError, match=message):
            import_transformer4sed(tmp_path / "x.pt")
    torch.save(tensors, tmp_path / "x.pt")
    with pytest.raises(InputError, match="10 classes but 2 labels"):
        import_transformer4sed(tmp_path / "x.pt", labels=["a", "b"])
