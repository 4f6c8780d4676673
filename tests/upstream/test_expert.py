"""Hidden states: exact grids, no dependence on batch neighbours, evaluation mode, no random numbers."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from pmam_plugin.errors import InputError
from pmam_plugin.upstream import UpstreamExpert
from tests.sedt_models import tiny_sedt
from tests.upstream.models import (
    atst_detector,
    beats_detector,
    ctrans_detector,
    dual_detector,
    frame_mn_detector,
    noise,
    patch_detector,
    recurrent_detector,
    write_folder,
)

# Models and their strides.
MODELS = {
    "patch": (patch_detector, 640),
    "dual": (dual_detector, 160),
    "recurrent": (recurrent_detector, 1024),
    "atst": (atst_detector, 1024),
    "ctrans": (ctrans_detector, 1024),
    "beats": (lambda: beats_detector("mean"), 640),
    "frame_mn": (frame_mn_detector, 640),
    "sedt": (tiny_sedt, 320),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {name: write_folder(root / name, build()) for name, (build, _) in MODELS.items()}


@pytest.fixture(scope="module")
def experts(folders):
    return {name: UpstreamExpert(folder) for name, folder in folders.items()}


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_has_the_same_width_and_one_frame_for_every_stride(experts, name):
    expert = experts[name]
    stride = expert.get_downsample_rates("hidden_states")
    assert isinstance(stride, int)
    assert stride == MODELS[name][1]
    wavs = [noise(1.0), noise(0.73, 1), noise(1.3, 2)]
    hidden = expert(wavs)["hidden_states"]
    assert len(hidden) == len(expert.layers) >= 2
    assert len({state.shape for state in hidden}) == 1
    assert hidden[0].shape[:2] == (3, -(-len(wavs[2]) // stride))
    for state in hidden:
        for row, wav in zip(state, wavs):
            valid = (len(wav) - 1) // stride + 1  # s3prl's own formula
            assert torch.all(row[valid:] == 0)
            assert torch.all(row[:valid].abs().sum(dim=1) > 0)


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(800, 40000))
def test_the_number_of_frames_is_exact_for_every_length(experts, samples):
    for name in ("patch", "recurrent"):
        expert = experts[name]
        with torch.inference_mode():
            hidden = expert([noise(samples / 16000)])["hidden_states"]
        assert hidden[0].shape[1] == len(range(0, samples, expert.stride))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("samples", [1, 799, 800, 801])
def test_very_short_clips_survive(experts, name, samples):
    hidden = experts[name]([noise(samples / 16000)])["hidden_states"]
    assert all(torch.isfinite(state).all() for state in hidden)
    assert hidden[0].shape[1] == -(-samples // experts[name].stride)


@pytest.mark.parametrize("name", MODELS)
def test_a_clip_does_not_know_its_neighbours(experts, name):
    clip, loud, longer = noise(0.9), 5 * noise(0.9, 1), noise(2.2, 2)
    with torch.inference_mode():
        alone = experts[name]([clip])["hidden_states"]
        together = experts[name]([loud, longer, clip, loud])["hidden_states"]
    for single, batch in zip(alone, together):
        torch.testing.assert_close(batch[2, : single.shape[1]], single[0], rtol=1e-4, atol=1e-5)


def test_states_are_the_models_own_where_the_grids_agree(experts):
    expert, wav = experts["patch"], noise(1.0)
    backbone = expert.model.backbone
    hidden = expert([wav])["hidden_states"]
    features = backbone.frontend(wav[None])
    for name, state in zip(expert.layers, hidden, strict=True):
        torch.testing.assert_close(state, backbone.embed(features, name))


def test_narrow_layers_are_filled_up_with_zeros_and_can_be_left_out(experts, folders):
    hidden = dict(zip(experts["dual"].layers, experts["dual"]([noise(0.5)])["hidden_states"]))
    assert hidden["block_3"].shape[-1] == hidden["context_2"].shape[-1] == 24
    assert torch.all(hidden["context_2"][..., 16:] == 0)
    narrow = UpstreamExpert(folders["dual"], layers=["encoder", "context_2"])([noise(0.5)])["hidden_states"]
    torch.testing.assert_close(narrow[1], hidden["context_2"][..., :16])


def test_layers_are_chosen_by_name_or_position(folders):
    assert UpstreamExpert(folders["patch"], layers=[-1, 0]).layers == ("context_2", "stem")
    assert UpstreamExpert(folders["patch"], layers="encoder").layers == ("encoder",)
    for wrong in ("block_9", 17, -18):
        with pytest.raises(InputError, match="there is no layer"):
            UpstreamExpert(folders["patch"], layers=[wrong])
    with pytest.raises(InputError, match="at least one layer"):
        UpstreamExpert(folders["patch"], layers=[])


def test_the_upstream_stays_in_evaluation_mode_unless_asked(folders):
    wav = [noise(0.5)]
    expert = UpstreamExpert(folders["dual"])
    before = expert(wav)["last_hidden_state"]
    assert not any(module.training for module in expert.train().modules())
    torch.testing.assert_close(expert(wav)["last_hidden_state"], before, rtol=0, atol=0)
    trainable = UpstreamExpert(folders["dual"], trainable=True)
    assert not trainable.training
    assert all(module.training for module in trainable.train().modules())


def test_gradients_reach_every_parameter_that_the_states_depend_on(folders):
    expert = UpstreamExpert(folders["patch"])
    wav = noise(0.5).requires_grad_()
    sum(state.square().mean() for state in expert([wav])["hidden_states"]).backward()
    idle = [name for name, parameter in expert.model.backbone.named_parameters() if parameter.grad is None]
    assert idle == []
    assert wav.grad is not None


@pytest.mark.parametrize("name", MODELS)
def test_neither_building_nor_running_draws_random_numbers(folders, name):
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    UpstreamExpert(folders[name]).train()([noise(0.5), noise(12.0)])
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert random.getstate() == python_state


def test_long_clips_are_read_in_windows_of_the_trained_length(tmp_path):
    folder = write_folder(tmp_path / "short", patch_detector(clip_seconds=2.0))
    expert, whole = UpstreamExpert(folder), UpstreamExpert(write_folder(tmp_path / "long", patch_detector()))
    assert expert._window == 50
    wav = noise(7.3)
    with torch.inference_mode():
        windows, once = (each([wav])["hidden_states"] for each in (expert, whole))
        first = expert([wav[:32000]])["hidden_states"]
    assert windows[0].shape == once[0].shape == (1, 183, 16)
    for window, start in zip(windows, first):  # what lies in a window's middle comes from that window
        torch.testing.assert_close(window[:, :37], start[:, :37])
    # The stem sees a few frames only: away from the seams, windows make no difference.
    index = torch.arange(183)
    away = ((index - 37) % 25 > 3) & ((index - 37) % 25 < 22) & (index < 150)
    torch.testing.assert_close(windows[0][:, away], once[0][:, away], rtol=1e-3, atol=1e-4)


def test_what_is_no_upstream_is_refused_with_a_reason(tmp_path):
    from pmam_plugin.checkpoints import save_model
    from pmam_plugin.nn.context import RecurrentContext

    save_model(tmp_path / "part", RecurrentContext(4, 4, 1))
    with pytest.raises(InputError, match="RecurrentContext turns no waveform into frames"):
        UpstreamExpert(tmp_path / "part")
    with pytest.raises(InputError, match="no such model folder"):
        UpstreamExpert(tmp_path / "absent")


def test_a_folder_with_an_at_sign_is_a_folder(tmp_path):
    assert UpstreamExpert(str(write_folder(tmp_path / "me@home"))).stride == 640


def test_unknown_options_are_ignored_but_not_silently(folders, caplog):
    UpstreamExpert(folders["patch"], None, False, layer_selection=[3])
    assert "layer_selection" in caplog.text
