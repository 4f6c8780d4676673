"""The shim for torchaudio 2.9 and newer: adds what is missing, touches nothing else."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from pmam_plugin.upstream import compat

GONE = ("set_audio_backend", "get_audio_backend", "list_audio_backends", "info", "sox_effects")

# A torchaudio from which the same names are gone as from 2.11, and whose load and save would need ffmpeg.
MODERN = f"""
import sys, types, torchaudio
for name in {GONE!r}:
    vars(torchaudio).pop(name, None)
    sys.modules.pop("torchaudio." + name, None)
def needs_ffmpeg(*args, **kwargs):
    raise RuntimeError("torchcodec")
torchaudio.load = torchaudio.save = needs_ffmpeg
torchaudio.__version__ = "2.11.0+cpu"
class NoSox:
    def find_spec(self, name, path=None, target=None):
        if name == "torchaudio.sox_effects":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoSox())
"""


@pytest.fixture
def recording(tmp_path):
    samples = np.linspace(-0.5, 0.5, 2 * 1600).reshape(1600, 2)
    soundfile.write(tmp_path / "stereo.wav", samples, 16000, subtype="PCM_24")
    return tmp_path / "stereo.wav", samples.T


def test_info_load_and_save_work_through_soundfile(recording, tmp_path):
    path, samples = recording
    found = compat.info(path)
    assert (found.sample_rate, found.num_frames, found.num_channels) == (16000, 1600, 2)
    assert (found.bits_per_sample, found.encoding) == (24, "PCM")
    wave, rate = compat.load(path)
    assert rate == 16000
    torch.testing.assert_close(wave, torch.tensor(samples, dtype=torch.float32), rtol=0, atol=1e-6)
    part, _ = compat.load(path, frame_offset=10, num_frames=5, channels_first=False)
    torch.testing.assert_close(part, wave[:, 10:15].T)
    compat.save(tmp_path / "copy.wav", wave, rate)
    torch.testing.assert_close(compat.load(tmp_path / "copy.wav")[0], wave, rtol=0, atol=1e-4)


@pytest.mark.skipif(compat.needs_shim(), reason="this torchaudio has nothing left to keep")
def test_an_older_torchaudio_keeps_its_own_functions():
    before = {name: getattr(torchaudio, name) for name in (*GONE, "load", "save")}
    compat.restore_torchaudio()
    assert all(getattr(torchaudio, name) is function for name, function in before.items())


def test_the_shim_is_wanted_from_2_9_on(monkeypatch):
    for version, wanted in {"2.8.0+cpu": False, "2.9.0": True, "2.11.0": True, "3.0.0": True}.items():
        monkeypatch.setattr(torchaudio, "__version__", version)
        assert compat.needs_shim() is wanted


@pytest.mark.slow
def test_without_the_shim_the_error_says_what_to_do():
    pytest.importorskip("s3prl", reason="s3prl is not installed")
    code = """
from pmam_plugin.errors import InputError
from pmam_plugin.upstream import register
try:
    register()
except InputError as error:
    assert "register(shim=True)" in str(error), error
else:
    raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", MODERN + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_a_problem_resamples_its_corpus_through_the_shim(tmp_path):
    pytest.importorskip("s3prl", reason="s3prl is not installed")
    from tests.upstream.corpora import scene_corpus

    corpus = scene_corpus(tmp_path / "corpus", clips_per_fold=1, seconds=0.5)
    arguments = ["HearESC50", "--target_dir", str(tmp_path / "run"), "--prepare_data.dataset_root", str(corpus)]
    arguments += ["--prepare_data.test_fold", "0", "--build_upstream.name", "fbank", "--device", "cpu", "--stop", "1"]
    code = f"import sys\nsys.argv[1:] = {arguments!r}\nfrom pmam_plugin.upstream.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", MODERN + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    wave, rate = soundfile.read(corpus / "16000" / "fold00" / "0-0.wav")
    assert rate == 16000
    assert len(wave) == 8000
