import multiprocessing
import os
import pickle
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from pmam_plugin.data import (
    SUBSETS,
    Clip,
    ClipDataset,
    Event,
    Manifest,
    WaveformCache,
    collate,
    evaluation_loader,
    prepare,
    read_clip,
)
from pmam_plugin.errors import InputError
from pmam_plugin.labels import LabelEncoder
from tests.data.corpus import noise, tiny_corpus

RATE = 8000


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return prepare(tiny_corpus(folder / "corpus"), folder / "out", clip_seconds=1.0)


@pytest.fixture
def encoder(prepared):
    return LabelEncoder(prepared.labels, 20, 20, clip_seconds=1.0)


def test_items_carry_what_is_known_of_their_subset(prepared, encoder):
    dataset = ClipDataset(prepared.manifests, encoder, RATE, 1.0)
    assert len(dataset) == sum(prepared.counts.values())
    first = dataset[dataset.indices["strong"][0]]
    assert first.id == dataset.clips("strong")[0].id
    assert (first.has_strong, first.has_weak) == (True, True)
    assert first.strong.sum() == 10
    assert torch.equal(first.weak, first.strong.amax(dim=0))
    weak = dataset[dataset.indices["weak"][0]]
    assert (weak.has_strong, weak.has_weak, weak.weak.tolist(), float(weak.strong.sum())) == (False, True, [1, 1], 0)
    unlabelled = dataset[dataset.indices["unlabelled"][0]]
    assert (unlabelled.has_strong, unlabelled.has_weak) == (False, False)
    assert SUBSETS[unlabelled.group] == "unlabelled"


def test_a_soft_label_is_the_target_of_its_frames_and_a_corpus_tells_its_classes(prepared, encoder):
    events = (Event(0.0, 0.5, "Cat", 0.3), Event(0.25, 0.75, "Cat", 0.6), Event(0.5, 1.0, "Dog", 1.0))
    known, other = (
        replace(clip, id=f"{corpus}/{clip.id}", events=events)
        for clip, corpus in zip(prepared.manifests["strong"].clips, ("mine", "yours"))
    )
    manifest = Manifest("strong", (known, other))
    classes = {"mine": ["Cat", "Dog"], "yours": ["Dog", "Bird"]}
    dataset = ClipDataset({"strong": manifest}, encoder, RATE, 1.0, annotated=classes)
    for _ in range(2):  # packed labels of the first reading would be ones
        item = dataset[0]
        assert item.strong[:, 0].tolist() == pytest.approx([0.3] * 5 + [0.6] * 10 + [0.0] * 5)
        assert item.weak.tolist() == pytest.approx([0.6, 1.0])
    batch = collate([dataset[0], dataset[1]]).to("cpu")
    assert batch.annotated.tolist() == [[True, True], [False, True]]
    assert ClipDataset({"strong": manifest}, encoder, RATE, 1.0)[0].annotated is None


def test_a_batch_stacks_clips_and_marks_padding(prepared, encoder):
    dataset = ClipDataset(prepared.manifests, encoder, RATE, 1.0)
    batch = next(iter(DataLoader(dataset, batch_size=len(dataset), collate_fn=collate))).to("cpu")
    test = [index for index, group in enumerate(batch.group.tolist()) if SUBSETS[group] == "test"]
    assert batch.waves.shape == (len(dataset), RATE)
    assert batch.strong.shape == (len(dataset), 20, 2)
    assert batch.seconds[test].tolist() == pytest.approx([0.8] * len(test))
    padding = batch.padding(20)
    assert padding[test].tolist() == [[False] * 16 + [True] * 4] * len(test)
    assert not padding[0].any()
    assert bool((batch.waves[test][:, 6400:] == 0).all())


def test_padding_counts_a_frame_that_begins_within_the_recording():
    from pmam_plugin.data import Item

    def item(seconds):
        none = torch.zeros(0)
        return Item("a", torch.zeros(1000), seconds, torch.zeros(0, 0), none, False, False, 3, 100)

    batch = collate([item(10.0), item(4.2), item(9.984), item(0.001)])
    assert (~batch.padding(1000)).sum(dim=1).tolist() == [1000, 420, 999, 1]
    assert (~batch.padding(156)).sum(dim=1).tolist() == [156, 66, 156, 1]


def test_without_an_encoder_items_have_no_labels(prepared):
    batch = collate([ClipDataset(prepared.manifests, None, RATE, 1.0)[0]])
    assert batch.strong.shape == (1, 0, 0)
    assert batch.weak.shape == (1, 0)


def test_recordings_are_resampled_and_averaged_to_one_channel(tmp_path):
    time_axis = np.arange(44100) / 44100
    tone = np.sin(2 * np.pi * 440 * time_axis)
    soundfile.write(tmp_path / "tone.flac", np.stack([tone, 0 * tone], axis=1), 44100)
    dataset = ClipDataset({"test": Manifest("test", (Clip("tone", tmp_path / "tone.flac", 1.0),))}, None, 16000, 1.0)
    wave = dataset[0].wave
    assert wave.shape == (16000,)
    expected = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 16000)
    assert float((wave - expected)[500:-500].abs().max()) < 1e-3


def test_the_part_of_a_long_recording_is_read_alone(tmp_path):
    path = noise(tmp_path / "long.wav", seconds=5, rate=RATE)
    whole = read_clip(Clip("a", path, 5.0), RATE, 5.0)
    part = read_clip(Clip("a", path, 2.0, start=2.0, sample_rate=RATE), RATE, 2.0)
    assert torch.allclose(part, whole[2 * RATE : 4 * RATE])
    head = read_clip(Clip("a", path, 5.0, sample_rate=RATE), RATE, 1.0)
    assert torch.allclose(head, whole[:RATE])


def test_a_longer_recording_is_cut_unless_it_is_wanted_whole(tmp_path):
    clip = Clip("long", noise(tmp_path / "long.wav", seconds=2.5, rate=RATE), 2.5, sample_rate=RATE)
    manifests = {"test": Manifest("test", (clip,))}
    cut = ClipDataset(manifests, None, RATE, 1.0, cache=tmp_path / "cache")[0]
    assert (cut.wave.shape[0], cut.seconds) == (RATE, 1.0)
    whole = ClipDataset(manifests, None, RATE, 1.0, cache=tmp_path / "cache", whole=True)[0]
    assert (whole.wave.shape[0], whole.seconds) == (2.5 * RATE, 2.5)
    assert torch.allclose(cut.wave, whole.wave[:RATE], atol=1e-4)


def test_the_cache_gives_the_same_waveform_every_time_and_nearly_the_original(prepared, tmp_path):
    plain = ClipDataset(prepared.manifests, None, 16000, 1.0)
    cached = ClipDataset(prepared.manifests, None, 16000, 1.0, cache=tmp_path)
    for index in range(len(plain)):
        first, again = cached[index], cached[index]
        peak = float(plain[index].wave.abs().max())
        assert torch.equal(first.wave, again.wave)
        assert float((first.wave - plain[index].wave).abs().max()) <= peak / 32767 * 0.51
        assert (first.id, first.seconds) == (plain[index].id, plain[index].seconds)


def test_the_cache_is_read_instead_of_the_recording_and_opens_in_milliseconds(tmp_path):
    path = noise(tmp_path / "a.wav", rate=RATE)
    manifests = {"test": Manifest("test", (Clip("a", path, 1.0, sample_rate=RATE, size=path.stat().st_size),))}
    first = ClipDataset(manifests, None, RATE, 1.0, cache=tmp_path / "cache")[0].wave
    path.unlink()
    begin = time.process_time()
    dataset = ClipDataset(manifests, None, RATE, 1.0, cache=tmp_path / "cache")
    again = dataset[0].wave
    assert time.process_time() - begin < 0.05
    assert torch.equal(first, again)


def test_a_damaged_file_of_the_cache_is_written_anew(tmp_path):
    clip = Clip("a", noise(tmp_path / "a.wav", rate=RATE), 1.0)
    cache = WaveformCache(tmp_path / "cache", RATE, RATE)
    assert cache.get(clip) is None
    stored = cache.put(clip, torch.linspace(-0.5, 0.5, RATE))
    assert torch.equal(cache.get(clip), stored)
    [path] = (tmp_path / "cache").glob("*/*.i16")
    whole = path.read_bytes()
    for damaged in (whole[:100] + b"\x00\x01\x02\x03" + whole[104:], whole[:-7], whole[:5], b"", b"\x00" * len(whole)):
        path.write_bytes(damaged)
        assert cache.get(clip) is None
    silence = cache.put(clip, torch.zeros(RATE))
    assert torch.equal(cache.get(clip), silence)
    assert bool((silence == 0).all())


def test_a_cache_serves_every_run_and_knows_recordings_by_their_content(tmp_path):
    """Another split, another seed, a moved corpus: the waveform is there. Another content: it is not."""
    cache = WaveformCache(tmp_path / "cache", RATE, RATE)
    cache.put(Clip("a", tmp_path / "old/a.wav", 1.0, size=9, content="abc"), torch.ones(RATE))
    assert cache.get(Clip("a@strong", tmp_path / "new/b.wav", 1.0, size=9, content="abc")) is not None
    assert cache.get(Clip("a", tmp_path / "old/a.wav", 1.0, size=9, content="abd")) is None
    assert cache.get(Clip("a", tmp_path / "old/a.wav", 1.0, start=1.0, size=9, content="abc")) is None
    undigested = Clip("a", tmp_path / "old/a.wav", 1.0, size=9, content="9:1")
    cache.put(undigested, torch.ones(RATE))
    assert cache.get(undigested) is not None
    assert cache.get(replace(undigested, path=tmp_path / "new/a.wav")) is None
    assert cache.get(replace(undigested, content="9:2")) is None


def test_a_cache_keeps_to_its_limit_and_lets_the_longest_unused_go(tmp_path, caplog):
    clips = [Clip(str(number), tmp_path / f"{number}.wav", 1.0, content=f"{number}") for number in range(8)]
    cache = WaveformCache(tmp_path / "cache", RATE, RATE, gigabytes=5.5 * 2 * RATE / 1e9)
    for clip in clips:
        wave = cache.put(clip, torch.full((RATE,), 0.25))
        assert torch.allclose(wave, torch.full((RATE,), 0.25))
    assert [cache.get(clip) is not None for clip in clips] == [True] * 5 + [False] * 3
    assert caplog.text.count("keeps no more waveforms (it has grown to its limit") == 1
    for number, clip in enumerate(clips[:3]):
        os.utime(cache._path(clip), (1e9 + number, 1e9 + number))
    later = WaveformCache(tmp_path / "cache", RATE, RATE, gigabytes=5.5 * 2 * RATE / 1e9)
    later.put(clips[7], torch.ones(RATE))
    assert [later.get(clip) is not None for clip in clips] == [False, True, True, True, True, False, False, True]


def test_a_cache_that_cannot_be_written_is_said_once_and_done_without(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = WaveformCache(tmp_path / "file", RATE, RATE)
    for number in range(3):
        clip = Clip(str(number), tmp_path / f"{number}.wav", 1.0)
        assert cache.get(clip) is None
        assert torch.equal(cache.put(clip, torch.ones(RATE)), torch.ones(RATE))
    assert caplog.text.count("keeps no more waveforms") == 1


def _read_all(arguments):
    dataset, order = arguments
    return [float(dataset[index].wave.double().sum()) for index in order]


def test_several_processes_fill_one_cache(prepared, tmp_path):
    dataset = ClipDataset(prepared.manifests, None, RATE, 1.0, cache=tmp_path)
    forward = list(range(len(dataset)))
    with multiprocessing.get_context("fork").Pool(3) as pool:
        results = pool.map(_read_all, [(dataset, forward), (dataset, forward[::-1]), (dataset, forward)])
    assert results[0] == results[2] == results[1][::-1] == _read_all((dataset, forward))


def test_datasets_are_pickled_without_their_audio(prepared, encoder, tmp_path):
    dataset = ClipDataset(prepared.manifests, encoder, RATE, 1.0, cache=tmp_path)
    wave = dataset[0].wave
    content = pickle.dumps(dataset)
    assert len(content) < 50_000
    assert torch.equal(pickle.loads(content)[0].wave, wave)


def test_workers_yield_the_same_batches_as_the_process_itself(prepared, encoder, tmp_path):
    dataset = ClipDataset(prepared.manifests, encoder, RATE, 1.0, cache=tmp_path)
    alone = [batch.waves for batch in evaluation_loader(dataset, 5)]
    helped = [batch.waves for batch in evaluation_loader(dataset, 5, workers=2)]
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))
    chosen = [batch.ids for batch in evaluation_loader(dataset, 5, indices=[3, 1])]
    assert chosen == [[dataset[3].id, dataset[1].id]]


def test_loading_leaves_the_global_generator_alone(prepared):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    for _ in evaluation_loader(ClipDataset(prepared.manifests, None, RATE, 1.0), 4):
        pass
    assert torch.equal(torch.get_rng_state(), state)


def test_faults_name_the_clip(tmp_path):
    path = noise(tmp_path / "a.wav", rate=RATE)
    clip = Clip("a", path, 1.0, events=(Event(0, 0.5, "Wolf"),), labels=("Wolf",))
    dataset = ClipDataset({"strong": Manifest("strong", (clip,))}, LabelEncoder(["Dog"], 20, 20, 1.0), RATE, 1.0)
    with pytest.raises(InputError, match="clip a: unknown label 'Wolf'"):
        dataset[0]
    path.unlink()
    with pytest.raises(InputError, match=r"a\.wav: no such file"):
        dataset[0]
    with pytest.raises(InputError, match="unknown subset 'strung'"):
        ClipDataset({"strung": Manifest("strung", ())}, None, RATE)
