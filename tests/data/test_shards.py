"""Shards and Hugging Face data sets: the same clips as files give, wherever the bytes lie."""

import os
import shutil
import sys
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
import torch
from speechbrain.utils.checkpoints import Checkpointer
from typer.testing import CliRunner
from webdataset import WebDataset

from pmam_plugin.audio import audio_info, read_audio
from pmam_plugin.audio.shards import Member, members
from pmam_plugin.cli import app
from pmam_plugin.data import ClipDataset, Event, listing, prepare, read_clip, training_loader
from pmam_plugin.data.corpora import CORPORA
from pmam_plugin.data.corpora.hugging_face import hugging_face
from pmam_plugin.errors import InputError
from tests.audio.files import encoded, noise as samples
from tests.data.corpus import noise, tiny_corpus
from tests.data.shards import pack, packed_folder

RATE = 8000
WAV = encoded(samples(1.0, rate=RATE), "WAV", rate=RATE)


def lay_out(*arguments):
    result = CliRunner().invoke(app, ["corpus", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def in_shards(corpus: Path) -> Path:
    """A copy of a corpus whose recordings without labels are packed."""
    copy = Path(shutil.copytree(corpus, corpus.with_name("packed")))
    folder = copy / "audio/train/unlabel_in_domain"
    packed_folder(folder, folder / "shards")
    for path in folder.glob("*.*"):
        path.unlink()
    return copy


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF", "W64", "AU"])
def test_a_recording_in_a_shard_is_sample_for_sample_the_file(tmp_path, kind):
    wave = samples(3.0)
    wave[24_000] = 0.99  # a click at 1.5 s
    content = encoded(wave, kind)
    (tmp_path / f"a.{kind.lower()}").write_bytes(content)
    shard = pack(tmp_path / "x.tar", {"before": {"wav": WAV}, "a": {kind.lower(): content}, "z": {"wav": WAV}})
    file, member = tmp_path / f"a.{kind.lower()}", {each.name: each for each in members(shard)}[f"a.{kind.lower()}"]
    assert audio_info(member) == audio_info(file)
    for rate, start, seconds in ((16_000, 0.0, None), (16_000, 1.25, 0.5), (22_050, 1.0, 1.0)):
        assert torch.equal(read_audio(member, rate, start, seconds), read_audio(file, rate, start, seconds))
    if kind not in ("OGG", "MP3"):
        assert int(read_audio(member, 16_000, 1.25, 0.5).argmax()) == 4000


def test_an_mp3_with_a_tag_and_a_wav_of_a_broken_off_recorder_are_read_in_a_shard(tmp_path):
    tagged = b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10) + encoded(samples(), "MP3")
    unfinished = WAV[:40] + bytes(4) + WAV[44:]
    shard = pack(tmp_path / "x.tar", {"a": {"mp3": tagged}, "b": {"wav": unfinished}})
    for member, content in zip(members(shard), (tagged, unfinished)):
        path = tmp_path / member.name
        path.write_bytes(content)
        assert torch.equal(read_audio(member, 16_000), read_audio(path, 16_000))


def test_a_set_in_shards_has_the_clips_of_the_set_in_files(tmp_path):
    corpus = tiny_corpus(tmp_path / "corpus")
    noise(corpus / "audio/train/unlabel_in_domain/long.flac", seconds=2.6)
    packed = in_shards(corpus)
    plain, shards = (prepare(root, tmp_path / f"{root.name}.out", clip_seconds=1.0) for root in (corpus, packed))
    assert shards.counts == plain.counts
    assert shards.counts["unlabelled"] == 5 + 2
    datasets_of = [ClipDataset(data.manifests, None, RATE, 1.0, tmp_path / "cache") for data in (plain, shards)]
    for _ in range(2):  # decoded, then from the cache
        for file, member in zip(*(ds.clips("unlabelled") for ds in datasets_of)):
            assert member.id == f"shards/{member.path.parent.name}/{file.id}"
            assert (member.start, member.seconds) == (file.start, file.seconds)
            assert torch.equal(read_clip(member, RATE, 1.0), read_clip(file, RATE, 1.0))
        for index in datasets_of[0].indices["unlabelled"]:
            assert torch.equal(datasets_of[0][index].wave, datasets_of[1][index].wave)
    assert prepare(packed, tmp_path / "packed.out", skip_prep=True).manifests == shards.manifests
    assert str(tmp_path) not in (tmp_path / "packed.out/unlabelled.json").read_text()


def test_processes_share_the_clips_of_shards_and_a_resumed_loader_goes_on_with_the_next(tmp_path):
    packed = in_shards(tiny_corpus(tmp_path / "corpus", unlabelled=12))
    data = prepare(packed, tmp_path / "out", clip_seconds=1.0)
    dataset = ClipDataset(data.manifests, None, RATE, 1.0)
    batch = {"unlabelled": 4}

    def loader(rank=0, world=1):
        return training_loader(dataset, batch, 3, rank=rank, world_size=world)

    alone = [batch.ids for batch in loader()]
    shared = [[batch.ids for batch in loader(rank, 2)] for rank in range(2)]
    heard = [clip for ids in shared for batch in ids for clip in batch]
    assert len(heard) == len(set(heard)) == 12
    assert [set(first) | set(second) for first, second in zip(*shared)] == [set(ids) for ids in alone]
    interrupted, resumed = loader(), loader()
    iterator = iter(interrupted)
    next(iterator)
    Checkpointer(tmp_path / "save", {"loader": interrupted}).save_checkpoint(end_of_epoch=False)
    Checkpointer(tmp_path / "save", {"loader": resumed}).recover_if_possible()
    assert [batch.ids for batch in resumed] == alone[1:]


def test_an_unlabelled_set_is_listed_once(tmp_path, monkeypatch):
    corpus = tiny_corpus(tmp_path / "corpus")
    folder = corpus / "audio/train/unlabel_in_domain"
    (folder / "more").mkdir()
    noise(folder / "more/u9.wav")
    old = lambda: [os.utime(path, (1e9, 1e9)) for path in (*folder.rglob("*"), folder)]  # noqa: E731
    old()
    first = prepare(corpus, tmp_path / "out", clip_seconds=1.0)
    listed: list[Path] = []
    find = listing.find_audio
    monkeypatch.setattr(listing, "find_audio", lambda path, shards: (listed.append(path), find(path, shards))[1])
    assert prepare(corpus, tmp_path / "out", clip_seconds=1.0) == first
    assert folder not in listed
    assert len(listed) == 3, "sets with labels are few"
    prepare(corpus, tmp_path / "out", clip_seconds=1.0, seed=5)
    assert folder in listed, "other clips may be held out"
    for change in (
        lambda: noise(folder / "more/new.wav"),
        lambda: (folder / "more/new.wav").unlink(),
        lambda: (folder / "u1.wav").rename(folder / "renamed.wav"),
        lambda: noise(folder / "u2.wav", seed=88),
        lambda: (folder / "empty").mkdir(),
        lambda: noise(folder / "empty/late.wav"),
    ):
        prepare(corpus, tmp_path / "out", clip_seconds=1.0)
        old()
        before = prepare(corpus, tmp_path / "out", clip_seconds=1.0)
        change()
        listed.clear()
        after = prepare(corpus, tmp_path / "out", clip_seconds=1.0)
        assert folder in listed
        assert (after.fingerprint == before.fingerprint) == (after.manifests == before.manifests)
    (tmp_path / "out/listings.json").write_text("[1]")
    assert prepare(corpus, tmp_path / "out", clip_seconds=1.0) == after


def test_a_start_reads_no_line_of_a_large_manifest(tmp_path, monkeypatch):
    corpus = tiny_corpus(tmp_path / "corpus")
    first = prepare(corpus, tmp_path / "out", clip_seconds=1.0)
    digest = first.digest("strong", "synthetic", "weak", "unlabelled", "selection")
    from pmam_plugin.data import manifest

    monkeypatch.setattr(manifest.LazyClips, "_read", lambda *_: pytest.fail("a line was read"))
    data = prepare(corpus, tmp_path / "out", clip_seconds=1.0)
    assert data.digest("strong", "synthetic", "weak", "unlabelled", "selection") == digest
    ClipDataset(data.manifests, None, 16000, 1.0)  # looks for recordings of a lower rate


def test_a_shard_that_was_replaced_or_is_gone_is_noticed(tmp_path):
    packed = in_shards(tiny_corpus(tmp_path / "corpus"))
    first = prepare(packed, tmp_path / "out", clip_seconds=1.0)
    shard = packed / "audio/train/unlabel_in_domain/shards/shard-000001.tar"
    pack(shard, {"other": {"wav": WAV}})
    second = prepare(packed, tmp_path / "out", clip_seconds=1.0)
    assert second.counts["unlabelled"] == first.counts["unlabelled"] - 1
    shard.unlink()
    with pytest.raises(InputError, match=r"shard-000001\.tar: no such shard; restore it, or prepare the data again"):
        read_clip(second.manifests["unlabelled"].clips[2], RATE, 1.0)
    cut = packed / "audio/train/unlabel_in_domain/shards/shard-000000.tar"
    cut.write_bytes(cut.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"u0\.wav: lies beyond the end of its shard; fetch that again"):
        read_clip(second.manifests["unlabelled"].clips[0], RATE, 1.0)


def test_a_broken_recording_in_a_shard_counts_as_any_other(tmp_path):
    corpus = tiny_corpus(tmp_path / "corpus")
    shards = corpus / "audio/train/unlabel_in_domain"
    pack(shards / "x.tar", {"a": {"wav": WAV[:6000]}, "b": {"wav": b""}, "c": {"wav": WAV}, "._d": {"wav": b"x"}})
    data = prepare(corpus, tmp_path / "out", clip_seconds=1.0, max_unreadable=0.2)
    assert data.report["unreadable"] == 2
    assert "x.tar/c" in {clip.id for clip in data.manifests["unlabelled"]}
    assert any("x.tar/a.wav: the audio ends before" in text for text in data.report["unreadable_examples"])


def test_a_member_is_a_path_below_its_shard(tmp_path):
    shard = pack(tmp_path / "x.TAR", {"day/a": {"wav": WAV}})
    [member] = members(shard)
    assert Path(member) == tmp_path / "x.TAR/day/a.wav"
    assert Member.at(Path(member), member.offset, member.size) == member
    with tarfile.open(shard) as tar:
        assert shard.read_bytes()[member.offset :][: member.size] == tar.extractfile("day/a.wav").read() == WAV


def test_recordings_of_the_test_set_do_not_train_from_shards_either(tmp_path):
    corpus = tiny_corpus(tmp_path / "corpus")
    noise(corpus / "audio/validation/validation/Yabc_0.000_1.000.wav")
    with (corpus / "metadata/validation/validation.tsv").open("a") as file:
        file.write("Yabc_0.000_1.000.wav\t0\t1\tCat\n")
    pack(corpus / "audio/train/unlabel_in_domain/x.tar", {"1/Yabc_0.000_1.000": {"wav": WAV}})
    data = prepare(corpus, tmp_path / "out", clip_seconds=1.0)
    assert data.report["subsets"]["unlabelled"]["also_evaluated_on"] == 1


def test_webdataset_shards_are_linked_and_their_labels_become_tables(tmp_path, caplog):
    event = {"onset": 0.25, "offset": 0.5, "label": "Dog"}
    for number in range(3):
        pack(
            tmp_path / f"in/x-{number:06d}.tar",
            {
                f"{number}a": {
                    "wav": WAV,
                    "json": {"tags": ["Dog", "Cat, big"], "events": [event]},
                    "txt": b"Dog\nCat",
                },
                f"{number}b": {"wav": WAV, "json": {"tags": [], "events": []}},
                f"{number}c": {"wav": WAV},
            },
        )
    pattern = tmp_path / "in/x-{000000..000002}.tar"
    assert "9 unlabelled recordings" in lay_out("webdataset", pattern, tmp_path / "plain")
    links = sorted((tmp_path / "plain/audio/train/unlabel_in_domain").iterdir())
    assert [link.resolve().name for link in links] == [f"x-00000{number}.tar" for number in range(3)]
    told = lay_out("webdataset", tmp_path / "in", tmp_path / "weak", "--labels", "tags")
    assert "3 recordings have no tags and are left out" in caplog.text
    assert "6 weak recordings" in told
    data = prepare(tmp_path / "weak", tmp_path / "weak.out", clip_seconds=1.0, selection="none")
    assert data.labels == ("Cat, big", "Dog")
    assert {clip.labels for clip in data.manifests["weak"]} == {("Cat, big", "Dog"), ()}
    assert "3 weak" in lay_out("webdataset", tmp_path / "in/x-*.tar", tmp_path / "text", "--labels", "txt")
    assert "6 strong" in lay_out("webdataset", tmp_path / "in", tmp_path / "strong", "--labels", "events")
    data = prepare(tmp_path / "strong", tmp_path / "strong.out", clip_seconds=1.0, selection="none")
    assert {clip.events for clip in data.manifests["strong"]} == {(Event(0.25, 0.5, "Dog"),), ()}
    shutil.rmtree(tmp_path / "in/", ignore_errors=True)
    assert lay_out("webdataset", pack(tmp_path / "new/x.tar", {"a": {"wav": WAV}}), tmp_path / "plain")
    assert [path.name for path in (tmp_path / "plain/audio/train/unlabel_in_domain").iterdir()] == ["x.tar"]


def rows(**columns):
    """A data set with a column of audio."""
    return datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))


def test_a_hugging_face_data_set_is_streamed_into_shards(tmp_path, caplog):
    classes = datasets.ClassLabel(names=["Cat", "Dog"])
    contents = [
        encoded(samples(1.0 + number, rate=RATE), kind, rate=RATE) for number, kind in enumerate(("WAV", "FLAC"))
    ]
    data = rows(
        audio=[{"bytes": contents[0], "path": "Yabc_0.000_1.000.wav"}, {"bytes": contents[1], "path": None}, None],
        tags=[[1, 0], [], [0]],
        one=[1, 0, 1],
        events=[[{"onset": 0.1, "offset": 0.5, "label": 1}], [], []],
    )
    data = data.cast_column("tags", datasets.List(classes)).cast_column("one", classes)
    data = data.cast_column(
        "events",
        datasets.List({"onset": datasets.Value("float64"), "offset": datasets.Value("float64"), "label": classes}),
    )
    (tmp_path / "in").mkdir()
    data.to_parquet(tmp_path / "in/train-00000-of-00001.parquet")
    told = lay_out("hugging-face", tmp_path / "in", tmp_path / "plain")
    assert "1 rows without audio" in caplog.text
    assert "2 unlabelled recordings" in told
    shard = tmp_path / "plain/audio/train/unlabel_in_domain/train-000000.tar"
    assert [member.name for member in members(shard)] == ["000000000/Yabc_0.000_1.000.wav", "000000001/audio.flac"]
    assert [read_audio(member, RATE).shape for member in members(shard)] == [(RATE,), (2 * RATE,)]
    assert len(list(WebDataset(str(shard), shardshuffle=False))) == 2
    prepared = prepare(tmp_path / "plain", tmp_path / "plain.out", selection="none")
    assert [clip.size for clip in prepared.manifests["unlabelled"]] == [len(content) for content in contents]
    for column, expected in (("tags", {("Cat", "Dog"), ()}), ("one", {("Dog",), ("Cat",)})):
        assert "2 weak" in lay_out("hugging-face", tmp_path / "in", tmp_path / column, "--labels", column)
        prepared = prepare(tmp_path / column, tmp_path / f"{column}.out", selection="none")
        assert {clip.labels for clip in prepared.manifests["weak"]} == expected
    lay_out("hugging-face", tmp_path / "in", tmp_path / "strong", "--labels", "events", "--split", "train")
    prepared = prepare(tmp_path / "strong", tmp_path / "strong.out", selection="none")
    assert {clip.events for clip in prepared.manifests["strong"]} == {(Event(0.1, 0.5, "Dog"),), ()}
    with pytest.raises(InputError, match=r"train-000000\.tar: is there already; remove the shards of 'train'"):
        hugging_face(tmp_path / "in", tmp_path / "plain")


@pytest.mark.parametrize(("kind", "missing"), [("webdataset", "braceexpand"), ("hugging-face", "datasets")])
def test_what_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch, kind, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    options = {"folder": tmp_path / "out"} if kind == "hugging-face" else {}
    with pytest.raises(InputError, match=rf"{missing} is not installed; .*pip install 'pmam-plugin\[shards\]'"):
        CORPORA[kind](tmp_path / "x-{0..1}.tar", **options)


def test_options_that_have_no_effect_are_refused(tmp_path):
    for option in ("split", "labels"):
        result = CliRunner().invoke(app, ["corpus", "esc50", str(tmp_path), str(tmp_path / "o"), f"--{option}", "x"])
        assert f"--{option} x: means nothing for esc50; leave it out" in str(result.exception)
    assert np.isclose(soundfile.info(noise(tmp_path / "a.wav")).duration, 1.0)
