import hashlib

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pmam_plugin import SoundEventDetector
from pmam_plugin.checkpoints import load_module, save_model
from pmam_plugin.checkpoints.pretrained_sed import class_names, import_pretrained_sed, load_pretrained_sed
from pmam_plugin.encoders import ATSTFrame, BEATsEncoder, FrameMobileNetEncoder, FramePaSSTEncoder
from pmam_plugin.errors import InputError
from pmam_plugin.models import AttentionHead
from pmam_plugin.nn.context import RecurrentContext
from pmam_plugin.nn.interpolate import interpolate_frames
from tests.checkpoints.beats_files import SMALL, prefixed, published_tensors
from tests.support import run, shared

CLASSES = [f"class, {number}" for number in range(64)]


@pytest.fixture(scope="module")
def stored():
    return load_file(shared("reference_outputs/pretrained_sed_components.safetensors"))


def from_reference(stored, network, folder):
    """The file that the reference's random weights make."""
    prefix = f"{network}.weights."
    torch.save({n[len(prefix) :]: t for n, t in stored.items() if n.startswith(prefix)}, folder / f"{network}.pt")
    return import_pretrained_sed(folder / f"{network}.pt", CLASSES)


@torch.no_grad()
def test_the_beats_detector_scores_as_the_reference(stored, tmp_path):
    model, report = from_reference(stored, "beats", tmp_path)
    assert report.layout == "PretrainedSED, BEATs, strong"
    assert report.skipped == ("weak_head.bias", "weak_head.weight")
    detection = model.eval()(model.frontend(stored["frontend.waveform"]))
    expected = stored["wrapper.strong_logits"].sigmoid().transpose(1, 2)
    torch.testing.assert_close(detection.frames, expected, atol=1e-4, rtol=0)
    assert model.frame_rate == 25.0


@torch.no_grad()
def test_the_frame_mn_detector_scores_as_the_reference(stored, tmp_path):
    model, report = from_reference(stored, "mn", tmp_path)
    assert (report.layout, report.loaded) == ("PretrainedSED, frame_mn, strong", 310)
    model.eval()
    frames = model.backbone({"mel": stored["mn.input"][:, 0]}).frames
    logits = interpolate_frames(model.head.classifier(frames), 250)  # 2 s, which the reference stretches to 250 frames
    torch.testing.assert_close(logits.transpose(1, 2), stored["mn.strong_logits"], atol=1e-4, rtol=0)
    segment = stored["frontend.waveform"][:, 32000:64000]
    scores = model(model.frontend(segment)).frames
    torch.testing.assert_close(scores, model.head.classifier(frames).sigmoid(), atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_teachers_recurrent_layers_and_attention_are_ours(stored):
    context, head = RecurrentContext(24, 16, 2).eval(), AttentionHead(32, 10).eval()
    prefix = "wrapper.rnn.weights."
    weights = {name[len(prefix) :]: t for name, t in stored.items() if name.startswith(prefix)}
    context.load_state_dict({n.replace("seq_model.rnn", "gru"): t for n, t in weights.items() if "seq_model" in n})
    names = {"strong_head": "classifier", "weak_head": "attention"}
    head.load_state_dict({f"{names[n.split('.')[0]]}.{n.split('.')[1]}": t for n, t in weights.items() if "head" in n})
    sequence = context(stored["wrapper.rnn.input"])
    torch.testing.assert_close(sequence, stored["wrapper.rnn.sequence"], atol=1e-5, rtol=0)
    detection = head(sequence)
    torch.testing.assert_close(detection.frames.transpose(1, 2), stored["wrapper.rnn.strong_scores"], atol=1e-5, rtol=0)
    torch.testing.assert_close(detection.clips, stored["wrapper.rnn.weak_scores"], atol=1e-5, rtol=0)


def test_classes_are_audioset_strongs():
    names = class_names()
    assert (len(names), names[0], names[-1]) == (447, "Accelerating, revving, vroom", "Zipper (clothing)")
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    assert digest == "db048a1f22e917e33a2a4a131f3549edb8af6b49d019efa32388daa524b44c15"


ENCODERS = {
    "BEATs": lambda: BEATsEncoder(pooling="tokens", depth=2, dim=32, heads=2, patch_dim=8, position_kernel=8),
    "ATST-Frame": lambda: ATSTFrame(dim=64, depth=1, heads=1),
    "fPaSST": lambda: FramePaSSTEncoder(depth=1, dim=64, heads=1),
    "frame_mn": lambda: FrameMobileNetEncoder(0.4),
}
PREFIXES = {
    "BEATs": ("model.beats.", "model.model."),
    "ATST-Frame": ("model.atst.",),
    "fPaSST": ("model.fpasst.", "model."),
    "frame_mn": ("model.frame_mn.", "model.fmn.", "net.model."),
}


def published(family, prefix):
    """An encoder's tensors as PretrainedSED publishes them, and the encoder's width."""
    if family == "BEATs":
        return prefixed(prefix, published_tensors(**SMALL)), 32
    torch.manual_seed(0)
    encoder = ENCODERS[family]()
    state = {name.removeprefix("transformer."): tensor for name, tensor in encoder.state_dict().items()}
    return prefixed(prefix, state), encoder.dim


def head(name, classes, dim, prefix=""):
    return {f"{prefix}{name}.weight": 0.1 * torch.randn(classes, dim), f"{prefix}{name}.bias": torch.randn(classes)}


LAYOUTS = [(family, prefix) for family, prefixes in PREFIXES.items() for prefix in prefixes]


@pytest.mark.parametrize(("family", "prefix"), LAYOUTS)
def test_every_published_layout_becomes_a_detector_that_says_what_it_was(tmp_path, capsys, family, prefix):
    tensors, dim = published(family, prefix)
    outer = "net." if prefix.startswith("net.") else ""
    heads = {**head("strong_head", 447, dim, outer), **head("weak_head", 447, dim, outer)}
    torch.save({**tensors, **heads}, tmp_path / "x.pt")
    assert run("import-checkpoint", "--kind", "pretrained-sed", tmp_path / "x.pt", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert f"(PretrainedSED, {family}, strong): {len(tensors) + 2} tensors loaded" in said
    assert "2 skipped" in said
    detector = SoundEventDetector.from_pretrained(tmp_path / "out")
    assert (len(detector.labels), detector.frame_rate) == (447, 25.0)
    assert detector.postprocessing.median_seconds == 0.36
    scores = detector.scores(0.1 * torch.randn(16000), sample_rate=16000)
    assert len(scores) == 25
    torch.testing.assert_close(detector.model.head.classifier.bias.data, heads[f"{outer}strong_head.bias"])
    # The file and the folder serve as a start too.
    first, second = ENCODERS[family](), ENCODERS[family]()
    load_pretrained_sed(first, tmp_path / "x.pt")
    load_pretrained_sed(second, tmp_path / "out")
    torch.testing.assert_close(dict(first.state_dict()), dict(second.state_dict()))


@pytest.mark.parametrize("family", ["ATST-Frame", "fPaSST", "frame_mn"])
def test_files_without_a_strong_head_become_encoders(tmp_path, family):
    tensors, dim = published(family, PREFIXES[family][0])
    torch.save(tensors, tmp_path / "ssl.pt")
    encoder, report = import_pretrained_sed(tmp_path / "ssl.pt")
    assert (type(encoder), report.layout) == (type(ENCODERS[family]()), f"PretrainedSED, {family}, self-supervised")
    torch.save({**tensors, **head("weak_head", 527, dim)}, tmp_path / "weak.pt")
    encoder, report = import_pretrained_sed(tmp_path / "weak.pt")
    assert report.skipped == ("weak_head.weight", "weak_head.bias")
    save_model(tmp_path / "out", encoder)
    torch.testing.assert_close(dict(load_module(tmp_path / "out").model.state_dict()), dict(encoder.state_dict()))
    with pytest.raises(InputError, match="is a weak file, whose encoder alone is imported"):
        import_pretrained_sed(tmp_path / "weak.pt", ["a"])


def test_a_file_with_recurrent_layers_becomes_a_detector_with_them(tmp_path):
    tensors, dim = published("frame_mn", "model.frame_mn.")
    gru = nn.GRU(dim, 8, 2, batch_first=True, bidirectional=True).state_dict()
    torch.save({**tensors, **prefixed("seq_model.rnn.", gru), **head("strong_head", 3, 16)}, tmp_path / "x.pt")
    model, _ = import_pretrained_sed(tmp_path / "x.pt", ["a", "b", "c"])
    torch.testing.assert_close(dict(model.backbone.context.gru.state_dict()), dict(gru))


@pytest.mark.parametrize(
    ("encoder", "tensors"),
    [
        (lambda: ATSTFrame(), 138),
        (lambda: FramePaSSTEncoder(), 159),
        (lambda: FrameMobileNetEncoder(1.0), 308),
    ],
)
def test_full_sizes_have_as_many_tensors_as_published(encoder, tensors):
    assert len(encoder().state_dict()) == tensors


def strong(family, drop=(), **others):
    tensors, dim = published(family, PREFIXES[family][0])
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(tuple(drop) or "\0")}
    return {**kept, **head("strong_head", 447, dim), **others}
