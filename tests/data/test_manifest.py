"""Manifests: written once, read as they are asked for, and never trusted."""

import json
import pickle

import pytest

from pmam_plugin.data import Clip, Event, Manifest, prepare
from pmam_plugin.errors import InputError
from tests.data.corpus import prepare_tiny


def test_damaged_manifests_are_written_again(corpus, tmp_path):
    save = tmp_path / "out"
    first = prepare_tiny(corpus, save)
    for damage in ('{"w0": {}}', "", (save / "weak.json").read_text().replace("w0", "w")):
        (save / "weak.json").unlink()
        (save / "weak.json").write_text(damage)
        assert prepare_tiny(corpus, save) == first
    (save / "weak.lines.npy").write_bytes(b"no array")
    assert prepare_tiny(corpus, save) == first
    (save / "weak.json").unlink()
    assert prepare_tiny(corpus, save) == first


def test_skip_prep_without_preparation_is_refused(corpus, tmp_path):
    with pytest.raises(InputError, match="no prepared data; run once without skip_prep"):
        prepare(corpus, tmp_path / "out", skip_prep=True)


def test_prepared_data_survive_a_move_of_the_corpus(corpus, tmp_path):
    first = prepare_tiny(corpus, tmp_path / "out")
    moved = corpus.rename(tmp_path / "moved")
    second = prepare_tiny(moved, tmp_path / "out", skip_prep=True)
    assert second.fingerprint == first.fingerprint
    assert all(clip.path.exists() for manifest in second.manifests.values() for clip in manifest)


def test_manifests_hold_no_path_of_the_machine_and_speechbrain_reads_them(corpus, tmp_path):
    prepare_tiny(corpus, tmp_path / "out")
    assert str(tmp_path) not in (tmp_path / "out/strong.json").read_text()
    from speechbrain.dataio.dataset import DynamicItemDataset

    dataset = DynamicItemDataset.from_json(tmp_path / "out/weak.json", replacements={"data_root": corpus})
    with dataset.output_keys_as(["id", "wav", "labels"]):
        assert dataset[0] == {"id": "w0", "wav": str(corpus / "audio/train/weak/w0.wav"), "labels": ["Cat", "Dog"]}


def test_a_manifest_cannot_point_outside_of_the_data_folder(tmp_path):
    for wav in ("/etc/passwd", "{data_root}/../secret.wav"):
        (tmp_path / "test.json").write_text(json.dumps({"a": {"wav": wav, "duration": 1.0}}))
        with pytest.raises(InputError, match=r"test\.json, clip 'a'"):
            Manifest.load(tmp_path / "test.json", tmp_path)


def test_a_manifest_reads_the_clips_that_are_asked_for(tmp_path):
    clips = [
        Clip(f"é{number}", tmp_path / f"{number}\udce9.wav", 1.0, events=(Event(0.0, 0.5, "Dog"),) * (number % 3))
        for number in range(2500)
    ]
    Manifest("strong", clips).save(tmp_path / "strong.json", tmp_path)
    loaded = Manifest.load(tmp_path / "strong.json", tmp_path)
    assert list(loaded) == clips
    assert (loaded.clips[1234], loaded.clips[-1], loaded.clips[998:1002]) == (clips[1234], clips[-1], clips[998:1002])
    with pytest.raises(IndexError):
        loaded.clips[2500]
    as_sent = pickle.dumps(loaded)
    assert len(as_sent) < 1000, "a worker process opens the file itself"
    assert pickle.loads(as_sent) == loaded
    Manifest("strong", clips[:3]).save(tmp_path / "strong.json", tmp_path)
    assert loaded.clips[2000] == clips[2000], "written anew, the file that is open stays as it was"
    text = (tmp_path / "strong.json").read_bytes()
    (tmp_path / "strong.json").write_bytes(text.replace(b'"duration"', b'"duratiom"', 1))
    with pytest.raises(InputError, match=r"strong\.json, clip 'é0': not an entry of a manifest"):
        Manifest.load(tmp_path / "strong.json", tmp_path).clips[0]
    (tmp_path / "strong.json").write_bytes(text + b"\n")
    with pytest.raises(InputError, match="was changed since it was written; prepare the data again"):
        Manifest.load(tmp_path / "strong.json", tmp_path)
