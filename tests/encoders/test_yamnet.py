import copy

import numpy as np
import pytest
import torch

from pmam_plugin.checkpoints.yamnet import load_yamnet
from pmam_plugin.encoders.yamnet import PATCH, SILENCE, YAMNet, YAMNetEncoder, YAMNetPatches
from pmam_plugin.features import YAMNetMel
from tests.support import shared

TINY = (4, 4, 8, 8, 8, 8, 16, 16, 16, 16, 16, 16, 16, 16)


def mel(frames: int, batch: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    return {"mel": torch.randn(batch, 64, frames, generator=torch.Generator().manual_seed(seed))}


@pytest.fixture(
    params=[YAMNetEncoder(4, channels=TINY), YAMNetEncoder(8, channels=TINY), YAMNetPatches(8, True, channels=TINY)]
)
def encoder(request):
    return request.param.eval()


def test_log_mel_of_any_length_is_what_the_published_front_end_computes():
    outputs = np.load(shared("yamnet/outputs.npz"))
    for name in ("wav0", "wav3", "noise_wav0", "noise_wav2", "noise_wav3"):
        expected = outputs[name.replace("wav", "mel")]
        log_mel = YAMNetMel()(torch.from_numpy(outputs[name])[None])[0].T.numpy()
        # In bands that are all but silent the published ones themselves are 8e-5 from what double precision gives.
        np.testing.assert_allclose(log_mel, expected[: len(log_mel)], atol=1e-4)
        assert len(log_mel) == -(-len(outputs[name]) // 160)
        # What the published padding adds hears nothing of the clip.
        np.testing.assert_allclose(expected[len(log_mel) :], SILENCE, atol=1e-5)


@torch.inference_mode()
def test_a_frame_stands_where_its_sound_is(encoder):
    averaging = copy.deepcopy(encoder)
    for parameter in averaging.parameters():
        parameter.fill_(0.0 if parameter.ndim == 1 else 1.0 / parameter[0].numel())
    reach = 8.0 if isinstance(encoder, YAMNetPatches) else 1.0
    for middle in (150, 200, 263):
        click = torch.zeros(1, 64, 400)
        click[..., middle] = 1.0
        heard = averaging({"mel": click}).frames.sum(dim=-1)[0]
        time = (torch.arange(len(heard)) + 0.5) * encoder.hop
        # Mel frame m hears the 25 ms from hop m on: their middle is hop m + 1.25. The cells of a patch lie late in it.
        assert abs(float((heard * time).sum() / heard.sum()) - middle - 1.25) < reach


@torch.inference_mode()
def test_a_clip_is_encoded_alike_alone_in_a_batch_and_in_training(encoder):
    both = torch.cat([mel(200)["mel"], 3 * mel(200, seed=1)["mel"]])
    together = encoder({"mel": both}).frames
    torch.testing.assert_close(encoder({"mel": both[:1]}).frames, together[:1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder.train()({"mel": both}).frames, together)
    encoder.eval()


@torch.inference_mode()
@pytest.mark.parametrize("frames", [1, 7, 96, 97, 251])
def test_clips_of_any_length_give_a_frame_for_every_started_hop(encoder, frames):
    found = encoder(mel(frames), embed=["layer_2", "layer_12"])
    count = -(-frames // encoder.hop)
    assert encoder.output_frames({"mel": frames}) == count
    assert found.frames.shape == (1, count, encoder.dim)
    assert {name: value.shape for name, value in found.embeddings.items()} == {
        "layer_2": (1, count, 4),
        "layer_12": (1, count, 16),
    }


@torch.inference_mode()
def test_a_dilated_layer_sees_what_a_striding_one_saw():
    # Away from the edges, every fourth (second) frame of a finer pass is a frame of the published strides.
    network = YAMNet(TINY)
    image = mel(1024)["mel"].transpose(1, 2).unsqueeze(1)
    coarse = network(image, 14, 32)[-1]
    for stride in (4, 8, 16):
        fine = network(image, 14, stride)[-1]
        step = 32 // stride
        offset = step - 1  # strides look ahead, dilated kernels around
        torch.testing.assert_close(fine[:, :, offset::step][:, :, 6:-6], coarse[:, :, 6:-6], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_taps_keep_or_pool_the_frequency_cells():
    encoder = YAMNetEncoder(8, {"layer_5": "keep", "layer_12": "mean_max", "layer_14": "max"}, TINY)
    frames = encoder(mel(80)).frames
    assert encoder.dim == frames.shape[-1] == 8 * 8 + 2 * 16 + 16
    kept = frames[..., :64].unflatten(-1, (8, 8))
    torch.testing.assert_close(kept.mean(dim=-1), encoder(mel(80), embed=["layer_5"]).embeddings["layer_5"])
    shallow = YAMNetEncoder(8, {"layer_5": "keep"}, TINY[:5])
    shallow.load_state_dict({n: v for n, v in encoder.state_dict().items() if n in shallow.state_dict()})
    torch.testing.assert_close(shallow(mel(80)).frames, frames[..., :64])


@torch.inference_mode()
def test_a_patch_in_the_clip_is_the_patch_alone():
    encoder = YAMNetPatches(48, channels=TINY)
    clip = mel(PATCH + 3 * 48)["mel"]
    for number, frame in enumerate(encoder({"mel": clip}).frames[0]):
        alone = encoder({"mel": clip[..., 48 * number : 48 * number + PATCH]}).frames[0, 0]
        torch.testing.assert_close(frame, alone, rtol=1e-4, atol=1e-5)
    centred = YAMNetPatches(8, True, channels=TINY)
    centred.load_state_dict(encoder.state_dict())
    # Frame 9 has its middle at hop 76; the patch around it hears from hop 28 to hop 125.
    torch.testing.assert_close(
        centred({"mel": clip}).frames[0, 9], encoder({"mel": clip[..., 27 : 27 + PATCH]}).frames[0, 0]
    )


@torch.inference_mode()
def test_a_whole_clip_at_once_resembles_its_patches_but_is_not_the_published_embedding():
    weights, outputs = shared("yamnet/yamnet.h5"), np.load(shared("yamnet/outputs.npz"))
    log_mel = {"mel": YAMNetMel()(torch.from_numpy(outputs["wav3"][:64000])[None])}
    found = []
    for encoder in (YAMNetEncoder(8), YAMNetPatches(8, True)):
        load_yamnet(encoder, weights)
        found.append(encoder(log_mel).frames[0])
    similarity = torch.cosine_similarity(*found, dim=-1).mean()
    assert 0.5 < similarity < 0.95


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="hop is 4, 8, 16 or 32"):
        YAMNetEncoder(5)
    with pytest.raises(ValueError, match="at least one mel frame"):
        YAMNetPatches(0)
    with pytest.raises(ValueError, match="no layer 'layer_6'"):
        YAMNetEncoder(8, {"layer_6": "mean"}, TINY[:5])
    with pytest.raises(ValueError, match="median"):
        YAMNetEncoder(8, {"layer_6": "median"})
