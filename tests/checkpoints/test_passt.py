import pytest
import torch

from pmam_plugin.checkpoints import save_model
from pmam_plugin.checkpoints.passt import import_passt, load_passt
from pmam_plugin.encoders.passt import PaSST, PaSSTEncoder
from tests.official_passt import OfficialPaSST

TINY = {"depth": 2, "dim": 64, "heads": 1}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A file in the official layout, a small one."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("passt") / "passt.pt"
    backbone = OfficialPaSST(**TINY)
    torch.save(dict(backbone.state_dict()), path)
    return backbone.eval(), path


def test_the_official_layout_has_159_tensors():
    with torch.device("meta"):
        assert len(OfficialPaSST().state_dict()) == 159


def test_a_backbone_takes_all_tensors_but_the_heads(official):
    source, path = official
    backbone = PaSST(**TINY)
    report = load_passt(backbone, path)
    assert (report.loaded, len(report.skipped)) == (len(source.state_dict()) - 6, 6)
    for name, tensor in backbone.state_dict().items():
        torch.testing.assert_close(tensor, source.state_dict()[name])


def test_an_encoder_leaves_the_audioset_heads_out_and_says_so(official):
    source, path = official
    encoder = PaSSTEncoder(layer=2, pooling_heads=1, **TINY)
    norm = encoder.out_norm.weight.clone()
    report = load_passt(encoder, path)
    assert len(report.skipped) == 6
    assert all(name.startswith(("head.", "head_dist.")) for name in report.skipped)
    torch.testing.assert_close(encoder.transformer.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    torch.testing.assert_close(encoder.out_norm.weight, norm)


def test_an_imported_folder_serves_as_well_as_the_file(official, tmp_path):
    source, path = official
    encoder, report = import_passt(path)
    assert report.loaded == len(source.state_dict()) - 6
    assert (encoder.dim, encoder.layer) == (64, 2)
    save_model(tmp_path, encoder)
    other = PaSSTEncoder(layer=1, pooling_heads=1, **TINY)
    load_passt(other, tmp_path)
    mel = torch.randn(1, 128, 100)
    tokens = [part.eval().transformer(mel, final=True).final for part in (encoder, other)]
    torch.testing.assert_close(tokens[0], tokens[1])
