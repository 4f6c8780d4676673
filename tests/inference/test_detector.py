import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from pmam_plugin.audio import read_audio, reader
from pmam_plugin.checkpoints import save_model
from pmam_plugin.encoders.base import Windows
from pmam_plugin.errors import InputError
from pmam_plugin.inference import SoundEventDetector
from pmam_plugin.postprocessing import PostProcessing, Scoring
from tests.tiny_models import LABELS, tiny_detector

RATE = 16_000


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Noise whose loudness changes, so that scores do."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    loudness = np.interp(time, np.arange(0, seconds + 1, 0.5), generator.random(len(np.arange(0, seconds + 1, 0.5))))
    return (0.3 * loudness * generator.standard_normal(len(time))).astype(np.float32)


def values(table: pd.DataFrame) -> np.ndarray:
    return table[list(LABELS)].to_numpy()


def balanced(**settings) -> SoundEventDetector:
    """A detector whose thresholds every class exceeds half of the time."""
    raw = SoundEventDetector(tiny_detector(), Scoring(PostProcessing(**settings)), device="cpu")
    middle = raw.scores(noise(12.0), RATE)[list(LABELS)].median().to_dict()
    return SoundEventDetector(raw.model, Scoring(PostProcessing(**settings, threshold=middle)), device="cpu")


@pytest.fixture(scope="module")
def detector() -> SoundEventDetector:
    return balanced(median_seconds=0.2)


def test_a_clip_without_post_processing_is_the_plain_forward(detector):
    wave = noise(2.0)
    model = detector.model
    with torch.inference_mode():
        expected = model(model.frontend(torch.from_numpy(wave)[None])).frames[0].numpy()
    table = detector.scores(wave, sample_rate=RATE, postprocess=False)
    np.testing.assert_array_equal(values(table).astype(np.float32), expected)
    assert list(table.columns) == ["onset", "offset", *LABELS]
    assert table.offset.iloc[-1] == 2.0


def test_the_temperature_is_the_models(detector):
    wave = noise(2.0)
    model = detector.model
    with torch.inference_mode():
        expected = model(model.frontend(torch.from_numpy(wave)[None]), temperature=0.5).frames[0].numpy()
    table = detector.scores(wave, RATE, postprocess=False, temperature=0.5)
    np.testing.assert_array_equal(values(table).astype(np.float32), expected)


def test_a_short_clip_is_scored_as_evaluation_scores_it(detector):
    """Zero-padded to the clip, with the padding marked."""
    wave, model = torch.from_numpy(noise(0.7)), detector.model
    padding = torch.arange(50) >= 18
    with torch.inference_mode():
        features = model.frontend(torch.nn.functional.pad(wave, (0, 20_800))[None])
        expected = model(features, padding=padding[None]).frames[0, :18].numpy()
    table = detector.scores(wave, RATE, postprocess=False)
    assert table.offset.iloc[-1] == pytest.approx(0.7)
    np.testing.assert_array_equal(values(table).astype(np.float32), expected)


@pytest.mark.parametrize("seconds", [0.0001, 0.04, 0.3, 1.99, 2.0, 2.01, 2.5, 5.37, 11.0])
def test_any_length_gives_one_row_per_frame(detector, seconds):
    table = detector.scores(noise(seconds), RATE)
    duration = len(noise(seconds)) / RATE
    assert len(table) == max(1, np.ceil(duration * 25 - 1e-6))
    assert table.offset.iloc[-1] == pytest.approx(duration)
    assert ((values(table) >= 0) & (values(table) <= 1)).all()


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (8_000, 1), (48_000, 5)])
def test_files_and_samples_of_any_rate_and_channel_count_agree(detector, tmp_path, rate, channels):
    samples = np.stack([noise(3.0, seed, rate) for seed in range(channels)], axis=1)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    expected = values(detector.scores(read_audio(tmp_path / "a.wav", RATE), RATE))
    for table in (
        detector.scores(tmp_path / "a.wav"),
        detector.scores(str(tmp_path / "a.wav")),
        detector.scores(samples, rate),
        detector.scores(torch.from_numpy(samples), rate),
    ):
        np.testing.assert_allclose(values(table), expected, atol=1e-6)


def test_a_long_file_read_in_blocks_equals_its_samples_at_once(detector, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", noise(9.0), RATE, subtype="FLOAT")
    expected = values(detector.scores(noise(9.0), RATE))
    monkeypatch.setattr(reader, "BLOCK_SECONDS", 0.7)
    np.testing.assert_allclose(values(detector.scores(tmp_path / "a.wav")), expected, atol=1e-6)


@pytest.mark.slow
def test_a_long_file_is_never_in_memory_as_a_whole(detector, tmp_path):
    block = np.stack((noise(10.0, 0, 48_000), noise(10.0, 1, 48_000)), axis=1)
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 48_000, 2) as file:
        for _ in range(60):
            file.write(block)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    except OSError:
        pytest.skip("this system does not tell a process its peak memory")
    before = _kilobytes("VmRSS")
    table = detector.scores(tmp_path / "long.wav")
    assert len(table) == 600 * 25
    assert (_kilobytes("VmHWM") - before) / 1e3 < 120  # MB; the samples alone are 230


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def test_joined_windows_show_no_seams():
    """The same sound moved by half a window (and by a frame): scores agree as well inside as across borders."""
    detector = SoundEventDetector(tiny_detector(recurrent=False), device="cpu")
    wave = noise(12.0)
    whole = values(detector.scores(wave, RATE))
    for frames in (1, 12, 25):  # of 50 in a clip; the hop is 25
        moved = values(detector.scores(wave[frames * 640 :], RATE))
        difference = np.abs(whole[frames:] - moved)[2 : len(moved) - 2]
        # A model of short sight scores a frame alike in every window that holds it, but for a window's first and last.
        assert difference.max() < 0.02


def test_seams_of_a_model_that_sees_the_whole_clip_are_small(detector):
    wave = noise(12.0)
    whole = values(detector.scores(wave, RATE, postprocess=False))
    moved = values(detector.scores(wave[25 * 640 // 2 :], RATE, postprocess=False))
    steps = np.abs(np.diff(whole, axis=0)).max(axis=1)
    borders = np.arange(24, len(whole) - 26, 25)
    assert steps[borders].mean() < 1.5 * steps.mean()
    assert np.abs(whole[12 : 12 + len(moved)] - moved[: len(whole) - 12]).mean() < 0.1


def test_clip_masks_apply_clip_by_clip():
    rule = PostProcessing(weak_mask="soft")
    detector = SoundEventDetector(tiny_detector(), Scoring(rule), device="cpu")
    wave = noise(2.0)
    detection = detector.model(detector.model.frontend(torch.from_numpy(wave)[None]))
    expected = (detection.frames * detection.clips[:, None]).detach()[0].numpy()
    np.testing.assert_allclose(values(detector.scores(wave, RATE)), expected, atol=1e-6)
    # Two copies of the clip: at the start only the first window is heard, and its own clip scores apply.
    twice = values(detector.scores(np.concatenate((wave, wave)), RATE))
    np.testing.assert_allclose(twice[:24], expected[:24], atol=1e-6)


def test_a_compiled_network_scores_every_window(monkeypatch):
    heard = []

    def compile_(call, **_):
        return lambda *inputs, **options: heard.append(call.__self__) or call(*inputs, **options)

    wave, plain = noise(5.0), SoundEventDetector(tiny_detector(), device="cpu")
    expected = values(plain.scores(wave, RATE))
    monkeypatch.setattr(torch, "compile", compile_)
    detector = SoundEventDetector(tiny_detector(), device="cpu", compiled=True, batch_size=2)
    np.testing.assert_allclose(values(detector.scores(wave, RATE)), expected, atol=1e-6)
    assert heard == [detector.model] * 2


def test_options_of_the_model_folder_apply_to_post_processed_scores_only():
    model, wave = tiny_detector(), noise(2.0)
    plain = SoundEventDetector(model, device="cpu").scores(wave, RATE, temperature=0.3)
    detector = SoundEventDetector(model, Scoring(temperature=0.3), device="cpu")
    np.testing.assert_array_equal(values(detector.scores(wave, RATE)), values(plain))
    assert (values(detector.scores(wave, RATE, postprocess=False)) != values(plain)).any()


def test_windows_of_a_model_folder_are_refused_by_a_model_without():
    detector = SoundEventDetector(tiny_detector(), Scoring(windows=Windows()), device="cpu")
    with pytest.raises(InputError, match="CNNEncoder encodes clips whole; leave out windows"):
        detector.scores(noise(2.0), RATE)


def test_events_follow_the_scores(detector):
    wave = noise(5.0)
    scores, events = detector.scores(wave, RATE), detector.detect(wave, RATE)
    assert list(events.columns) == ["filename", "onset", "offset", "event_label", "score"]
    assert set(events.event_label) == set(LABELS)
    for label in LABELS:
        active = (scores[label] > detector.postprocessing.threshold[label]).to_numpy()
        mine = events[events.event_label == label]
        inside = [((mine.onset <= t) & (t < mine.offset)).any() for t in (scores.onset + scores.offset) / 2]
        np.testing.assert_array_equal(active, inside)


def test_a_threshold_overrides_the_configured_one(detector):
    wave = noise(3.0)
    assert len(detector.detect(wave, RATE, threshold=1.0)) == 0
    every = detector.detect(wave, RATE, threshold={"bell": 0.0, "dog": 1.0, "speech": 1.0})
    assert every.event_label.tolist() == ["bell"]
    assert every[["onset", "offset"]].iloc[0].tolist() == [0.0, 3.0]


def test_many_recordings_share_batches_and_keep_their_order(detector, tmp_path):
    waves = [noise(seconds, seed) for seed, seconds in enumerate((0.5, 7.0, 2.0, 3.1, 0.1))]
    for number, wave in enumerate(waves):
        soundfile.write(tmp_path / f"{number}.wav", wave, RATE, subtype="FLOAT")
    files = [tmp_path / f"{number}.wav" for number in range(5)]
    results = list(detector.detect_each(files))
    assert [result.name for result in results] == [file.name for file in files]
    for result, wave in zip(results, waves, strict=True):
        np.testing.assert_allclose(values(result.scores), values(detector.scores(wave, RATE)), atol=1e-5)
        assert result.seconds == pytest.approx(len(wave) / RATE)
    table = detector.detect_batch(files)
    assert len(table)
    assert table.filename.drop_duplicates().tolist() == [r.name for r in results if len(r.events)]


def test_a_bad_recording_does_not_stop_the_others(detector, tmp_path):
    soundfile.write(tmp_path / "good.wav", noise(3.0), RATE)
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    results = list(
        detector.detect_each([tmp_path / "good.wav", tmp_path / "bad.wav", tmp_path / "none.wav", noise(1.0)])
    )
    assert [result.error is None for result in results] == [True, False, False, False]
    assert "bad.wav" in str(results[1].error)
    assert "sample_rate" in str(results[3].error)
    with pytest.raises(InputError, match=r"bad\.wav"):
        detector.detect_batch([tmp_path / "good.wav", tmp_path / "bad.wav"])
    with pytest.raises(InputError, match=r"none\.wav"):
        detector.scores(tmp_path / "none.wav")


def test_progress_reaches_the_end(detector, tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(9.0), RATE)
    calls: list[tuple[str, float, float]] = []
    list(detector.detect_each([tmp_path / "a.wav"], progress=lambda *call: calls.append(call)))
    done = [seconds for _, seconds, _ in calls]
    assert done == sorted(done)
    assert calls[-1] == ("a.wav", pytest.approx(9.0), pytest.approx(9.0))


@pytest.mark.parametrize("wrong", [None, 3, b"kitchen.wav"])
def test_what_is_no_audio_is_told_so(detector, wrong):
    with pytest.raises(InputError, match="is no audio; give the path of a file, or samples"):
        detector.detect(wrong, sample_rate=RATE)


def test_one_recording_where_many_are_expected_is_not_taken_letter_by_letter(detector):
    with pytest.raises(InputError, match=r"a\.wav: is one recording"):
        detector.detect_batch("a.wav")


def test_settings_that_make_no_sense_are_refused(detector):
    with pytest.raises(InputError, match="temperature 0: must be more than 0"):
        detector.scores(noise(1.0), RATE, temperature=0)
    with pytest.raises(InputError, match="batch_size 0: must be at least 1"):
        SoundEventDetector(detector.model, batch_size=0)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16, torch.int16, torch.int32])
def test_samples_of_any_type_sound_alike(detector, kind):
    wave = torch.from_numpy(noise(2.0)).clamp(-0.99, 0.99)
    scale = 1 if kind.is_floating_point else -torch.iinfo(kind).min
    expected = detector.scores(wave, RATE)
    difference = (detector.scores((wave * scale).to(kind), RATE) - expected).abs().to_numpy().max()
    assert difference < (0.05 if kind == torch.bfloat16 else 0.01)


def test_no_recordings_give_no_events(detector):
    assert list(detector.detect_each([])) == []


def test_a_detector_leaves_the_random_state_alone(detector):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    detector.detect(noise(5.0), RATE)
    assert torch.equal(before, torch.get_rng_state())


def test_threads_may_share_a_detector(detector):
    waves = [noise(4.0, seed) for seed in range(4)]
    expected = [values(detector.scores(wave, RATE)) for wave in waves]
    found: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: values(detector.scores(waves[n], RATE))}))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        np.testing.assert_array_equal(found[number], expected[number])


def test_lower_precision_stays_close(detector):
    coarse = SoundEventDetector(detector.model, detector.scoring, device="cpu", precision="bfloat16")
    wave = noise(3.0)
    scores = values(coarse.scores(wave, RATE))
    assert np.abs(scores - values(detector.scores(wave, RATE))).max() < 0.05
    assert (scores != values(detector.scores(wave, RATE))).any()


def test_unknown_devices_and_precisions_are_refused():
    with pytest.raises(InputError, match="device nonsense"):
        SoundEventDetector(tiny_detector(), device="nonsense")
    with pytest.raises(InputError, match="precision 'double'"):
        SoundEventDetector(tiny_detector(), device="cpu", precision="double")  # type: ignore[arg-type]


def test_a_saved_folder_detects_the_same(detector, tmp_path):
    save_model(tmp_path / "model", detector.model, detector.scoring)
    loaded = SoundEventDetector.from_pretrained(tmp_path / "model", device="cpu")
    assert loaded.labels == LABELS
    assert (loaded.sample_rate, loaded.frame_rate) == (RATE, 25.0)
    assert loaded.config["architecture"] == "FrameDetector"
    pd.testing.assert_frame_equal(loaded.detect(noise(3.0), RATE), detector.detect(noise(3.0), RATE))
    with pytest.raises(InputError, match="no such model folder"):
        SoundEventDetector.from_pretrained(tmp_path / "nothing")


def test_a_first_detection_imports_only_what_the_model_needs():
    """Half of the time to a first detection was timm, which brings torchvision and torch's compiler along."""
    code = (
        "import sys, numpy; from pmam_plugin import SoundEventDetector;"
        "SoundEventDetector.from_pretrained(device='cpu').detect(numpy.zeros(16000, 'float32'), 16000);"
        "heavy = ('timm', 'torchvision', 'torchaudio', 'torch._dynamo', 'torch.onnx.utils', 'sklearn', 'speechbrain',"
        "'scipy', 'matplotlib', 'huggingface_hub');"
        "print(*[name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
