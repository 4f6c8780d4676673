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

LINEARS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def both(*names: str) -> list[str]:
    return [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]


def attention_pool(prefix: str, query: str, attention: str) -> list[str]:
    inner = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    return [f"{prefix}.{query}", *(f"{prefix}.{attention}.{name}" for name in inner)]


def published_names(pretraining: bool) -> list[str]:
    """The reference's names as the published files have them."""
    names = [f"backbone.{name}" for name in ("cls_token", "dist_token", "new_pos_embed")]
    names += ["backbone.freq_new_pos_embed", "backbone.time_new_pos_embed", *both("backbone.patch_embed.proj")]
    for block in range(12):
        names += both(*(f"backbone.blocks.{block}.{layer}" for layer in ("norm1", "norm2", *LINEARS)))
    names += both("backbone.norm", "backbone.head.0", "backbone.head.1", "backbone.head_dist", "out_norm")
    names += attention_pool("f_pool_module", "f_att_token", "frequency_att")
    names += [*attention_pool("at_adpater.0", "f_att_token", "frequency_att"), *both("at_adpater.1")]
    for stage in range(10):
        names += both(f"cnn.cnn.conv{stage}", f"cnn.cnn.batchnorm{stage}", f"cnn.cnn.cg{stage}.linear")
        names += [f"cnn.cnn.batchnorm{stage}.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")]
    names += [*both("cnn_projector", "transformer_projector", "classifier"), "merge_weight"]
    for block in range(3):
        prefix = f"decoder.encoder_blocks.{block}"
        names += both(f"{prefix}.norm1", f"{prefix}.norm2", f"{prefix}.attn.in_proj", f"{prefix}.attn.out_proj")
        names += [f"{prefix}.attn.{name}" for name in ("pos_bias_u", "pos_bias_v", "linear_pos.weight")]
        names += both(f"{prefix}.mlp.fc1", f"{prefix}.mlp.fc2")
    if pretraining:
        names += [f"backbone.blocks.{b}.{layer}.lora_{m}" for b in range(12) for layer in LINEARS for m in "AB"]
        names += [f"backbone.{head}.lora_{matrix}" for head in ("head.1", "head_dist") for matrix in "AB"]
        names += ["mask_token", *both("mlm_mlp.0", "mlm_mlp.2")]
    return names


def state(pretraining: bool) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(float(index)) for index, name in enumerate(published_names(pretraining))}


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


def test_fine_tuned_state_has_the_names_of_a_detector() -> None:
    published = state(pretraining=False)
    assert len(published) == 315
    detector = FrameDetector(
        backbone(), LinearSoftmaxHead(64, 10, token_dim=128, tag_heads=2), [str(i) for i in range(10)]
    )
    renamed = rename_keys(published)
    assert set(renamed) == set(detector.state_dict())
    assert len({float(tensor) for tensor in renamed.values()}) == 309


def test_pretrained_state_has_the_names_of_a_masked_model() -> None:
    published = state(pretraining=True)
    assert len(published) == 420
    model = MaskedModel(backbone(), BlockMasking(), PredictionHead(64, 128), TagHead(128, 30, 2))
    renamed = rename_keys({f"module.{name}": tensor for name, tensor in published.items()})
    assert set(renamed) == set(model.state_dict())


def test_backbone_names_are_the_same_in_both() -> None:
    names = [{name for name in rename_keys(state(kind)) if name.startswith("backbone.")} for kind in (True, False)]
    assert names[0] == names[1]


def test_a_name_of_another_model_is_refused() -> None:
    with pytest.raises(InputError, match=r"encoder\.layers\.0 is no tensor of a Transformer4SED"):
        rename_keys({"encoder.layers.0": torch.zeros(1)})


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
