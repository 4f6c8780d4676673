import pytest
import torch

from pmam_plugin.checkpoints import load_module
from pmam_plugin.checkpoints.beats import encoder_size, import_beats, load_beats, rename_beats
from pmam_plugin.encoders import BEATsEncoder
from tests.checkpoints.beats_files import SMALL, parametrised, prefixed, published_tensors
from tests.support import run

CFG = {
    "encoder_layers": 2,
    "deep_norm": True,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "max_distance": 800,
}


def layouts():
    bare = published_tensors(**SMALL)
    heads = {"strong_head.weight": torch.ones(447, 32), "strong_head.bias": torch.ones(447)}
    classifier = {"predictor.weight": torch.ones(527, 32), "predictor.bias": torch.ones(527)}
    return {
        "Microsoft": ({"cfg": CFG, "model": bare}, 0),
        "Microsoft, tuned": ({"cfg": CFG, "model": {**bare, **classifier}, "label_dict": {0: "/m/09x0r"}}, 2),
        "bare": (parametrised(bare), 0),
        "PretrainedSED": ({**prefixed("model.model.", bare), **heads}, 2),
        "PretrainedSED, canonical": ({**prefixed("model.beats.", parametrised(bare)), **heads}, 2),
    }


def changed(cfg=None, drop=(), **tensors):
    """A file of Microsoft's with something wrong."""
    model = {**published_tensors(**SMALL), **tensors}
    return {"cfg": {**CFG, **(cfg or {})}, "model": {name: t for name, t in model.items() if name not in drop}}


@pytest.mark.parametrize(
    "layout", ["Microsoft", "Microsoft, tuned", "bare", "PretrainedSED", "PretrainedSED, canonical"]
)
def test_every_published_layout_gives_the_same_encoder(tmp_path, layout):
    content, skipped = layouts()[layout]
    torch.save(content, tmp_path / "x.pt")
    encoder, report = import_beats(tmp_path / "x.pt")
    assert (report.loaded, len(report.skipped)) == (10 + 20 * 2, skipped)
    assert set(report.renamed.values()) == set(encoder.transformer.state_dict())
    torch.save(layouts()["Microsoft"][0], tmp_path / "plain.pt")
    twin, _ = import_beats(tmp_path / "plain.pt")
    torch.testing.assert_close(dict(encoder.state_dict()), dict(twin.state_dict()))
    assert encoder.transformer.blocks[0].scale == pytest.approx(4**0.25)


def test_a_full_size_file_has_a_place_for_each_of_its_tensors():
    published = published_tensors(full=True)
    assert len(published) == 250
    tensors, renamed = rename_beats(published, "file")
    assert renamed.keys() == published.keys()
    encoder = BEATsEncoder(**encoder_size(tensors, None, "file"))
    expected = encoder.transformer.state_dict()
    assert {name: tensor.shape for name, tensor in tensors.items()} == {n: t.shape for n, t in expected.items()}
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 90_311_792


def test_the_encoder_serves_from_its_folder_as_from_the_file(tmp_path, capsys):
    torch.save(layouts()["Microsoft"][0], tmp_path / "x.pt")
    assert run("import-checkpoint", "--kind", "beats", tmp_path / "x.pt", tmp_path / "out") == 0
    assert "x.pt (BEATs): 50 tensors loaded, 50 of them renamed, 0 skipped" in capsys.readouterr().out
    encoder, _ = import_beats(tmp_path / "x.pt")
    torch.testing.assert_close(dict(load_module(tmp_path / "out").model.state_dict()), dict(encoder.state_dict()))
    other = BEATsEncoder(pooling="attention", pooling_heads=2, depth=2, dim=32, heads=2, patch_dim=8, position_kernel=8)
    for source in (tmp_path / "out", tmp_path / "x.pt"):
        load_beats(other, source)
        torch.testing.assert_close(other.transformer.state_dict(), encoder.transformer.state_dict())


def test_the_configuration_in_the_file_is_honoured(tmp_path):
    torch.save(changed({"deep_norm": False, "max_distance": 100}), tmp_path / "x.pt")
    encoder, _ = import_beats(tmp_path / "x.pt")
    assert (encoder.transformer.blocks[0].scale, encoder.transformer.distance.max_distance) == (1.0, 100)
