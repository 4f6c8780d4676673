"""The upstreams under their names, through s3prl's own interfaces."""

import subprocess
import sys

import pytest
import torch

from pmam_plugin.errors import InputError
from pmam_plugin.upstream import UpstreamExpert, register
from tests.support import s3prl_hub
from tests.upstream.models import noise, write_folder


@pytest.fixture(scope="module")
def hub():
    return s3prl_hub()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("models") / "patch")


def test_importing_the_package_imports_neither_s3prl_nor_torch_models():
    code = "import sys, pmam_plugin.upstream; sys.exit(any(n.split('.')[0] in ('s3prl', 'timm') for n in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_registering_twice_is_harmless_and_the_names_are_listed(hub):
    register()
    names = hub.options()
    assert {"pmam", "pmam_local", "pmam_hub"} <= set(names)
    assert "pmam_local" not in hub.options(only_registered_ckpt=True)


def test_a_foreign_upstream_is_not_overwritten(hub, monkeypatch):
    def foreign():
        raise AssertionError

    monkeypatch.setattr(hub, "pmam_local", foreign)
    with pytest.raises(InputError, match="already has another upstream named pmam_local"):
        register()
    assert hub.pmam_local is foreign


def test_s3prl_takes_the_upstream_and_its_featurizer_too(hub, folder):
    from s3prl.nn import Featurizer, S3PRLUpstream

    upstream = S3PRLUpstream("pmam_local", path_or_url=str(folder)).eval()
    assert upstream.num_layers == 6
    assert set(upstream.hidden_sizes) == {16}
    assert set(upstream.downsample_rates) == {640}
    wavs = torch.stack([noise(2.0), noise(2.0, 1)])
    lengths = torch.tensor([32000, 17001])
    states, frames = upstream(wavs, lengths)
    assert frames[0].tolist() == [50, 27]
    merged, _ = Featurizer(upstream)(states, frames)
    assert merged.shape == (2, 50, 16)
    torch.testing.assert_close(states[-1], UpstreamExpert(folder)([wavs[0], wavs[1, :17001]])["last_hidden_state"])


def test_one_layer_alone_goes_through_extra_conf(hub, folder):
    from s3prl.nn import Featurizer, S3PRLUpstream

    upstream = S3PRLUpstream("pmam_local", str(folder), extra_conf={"layers": [-1]}).eval()
    states, frames = upstream(noise(0.02)[None], torch.tensor([320]))  # s3prl pads it to 800 samples
    merged, _ = Featurizer(upstream)(states, frames)
    assert merged.shape == (1, 1, 16)


def test_the_older_interface_passes_three_arguments(hub, folder):
    expert = hub.pmam_local(ckpt=str(folder), model_config=None, refresh=False)
    assert expert.get_downsample_rates("hidden_states") == 640


def test_a_missing_checkpoint_gets_one_sentence(hub, tmp_path):
    with pytest.raises(InputError, match="no model folder was named"):
        hub.pmam_local()
    with pytest.raises(InputError, match="no such model folder"):
        hub.pmam_local(ckpt=tmp_path / "absent")
    with pytest.raises(InputError, match="no Hub id was named"):
        hub.pmam_hub()


def test_the_built_in_model_is_an_upstream_without_a_checkpoint(hub):
    states = hub.pmam()([noise(0.5), noise(0.3)])["hidden_states"]
    assert {tuple(state.shape) for state in states} == {(2, 7, 1024)}
