"""The encoder of a model folder, whatever else the folder holds."""

import pytest
import torch

from pmam_plugin.checkpoints import load_model, save_model
from pmam_plugin.checkpoints.encoder import encoder_of, front_ends_of, load_encoder
from pmam_plugin.encoders import BEATsEncoder, FrozenEncoder, YAMNetEncoder
from pmam_plugin.errors import InputError
from pmam_plugin.features import KaldiMel, LogMel, YAMNetMel
from tests.sedt_models import tiny_sedt
from tests.tiny_models import tiny_detector

BEATS = {"depth": 1, "heads": 2, "patch_dim": 8, "position_kernel": 8, "position_groups": 2}


def test_a_detectors_encoder_answers_as_it_does_in_the_detector(tmp_path):
    detector = tiny_detector()
    save_model(tmp_path, detector)
    front_ends, encoder = front_ends_of(tmp_path), encoder_of(tmp_path)
    assert [type(part) for part in front_ends.named().values()] == [LogMel]
    wave = torch.randn(1, 16_000)
    expected = detector.backbone.encoder(detector.backbone.frontend(wave)).frames
    torch.testing.assert_close(encoder(front_ends(wave)).frames, expected)


def test_of_a_frozen_encoder_what_is_frozen_is_taken():
    assert isinstance(encoder_of("builtin"), YAMNetEncoder)
    assert [type(part) for part in front_ends_of("builtin").named().values()] == [YAMNetMel]
    assert load_model().model.backbone.encoder.encoder.taps == encoder_of("builtin").taps


def test_an_encoder_alone_gets_the_front_end_of_its_kind(tmp_path):
    encoder = BEATsEncoder(feature="beats", dim=16, **BEATS)
    save_model(tmp_path, encoder)
    assert {name: type(part) for name, part in front_ends_of(tmp_path).named().items()} == {"beats": KaldiMel}
    frozen = FrozenEncoder(BEATsEncoder(feature="beats", dim=16, **BEATS))
    load_encoder(frozen, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(frozen.encoder.state_dict().values(), encoder.state_dict().values()))
    with pytest.raises(InputError, match="holds another BEATsEncoder than the experiment's"):
        load_encoder(FrozenEncoder(BEATsEncoder(feature="beats", dim=32, **BEATS)), tmp_path)


def test_what_encodes_no_frames_is_refused(tmp_path):
    save_model(tmp_path, tiny_sedt())
    with pytest.raises(InputError, match="SEDT has no encoder of frames to start from"):
        encoder_of(tmp_path)
