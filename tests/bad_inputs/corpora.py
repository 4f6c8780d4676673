# ruff: noqa: E501 (a row a line, sentences as the user reads them)
# fmt: off
"""Folders of recordings and labels that are refused: reader, folder, content, sentence."""

import io
import tarfile
from pathlib import Path

import datasets
import numpy as np
import soundfile

from tests.data.corpus import EVENTS, noise, table, tiny_corpus
from tests.data.shards import pack
from tests.data.test_corpora import MAKERS, text

SHARD = "audio/train/unlabel_in_domain/x.tar"
TEST = "metadata/validation/validation.tsv"
OUTSIDE = "points outside of the audio folder; write a path inside it"


def corpus(*spoil):
    """A small corpus in DESED's layout, spoilt."""

    def write(path: Path) -> None:
        tiny_corpus(path)
        for change in spoil:
            change(path)

    return write


def download(kind, spoil):
    """A corpus as its authors publish it, spoilt."""

    def write(path: Path) -> None:
        path.mkdir()
        MAKERS[kind][0](path)
        spoil(path)

    return write


def labelled(**tracks):
    """Recordings of a second with Audacity's labels beside them."""

    def write(path: Path) -> None:
        path.mkdir()
        for name, track in tracks.items():
            noise(path / f"{name}.wav")
            (path / f"{name}.txt").write_text(track)

    return write


def replaced(place, old, new):
    """A change of a text file."""
    return lambda root: (root / place).write_text((root / place).read_text().replace(old, new))


def cut(path: Path) -> None:
    """Half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def shard(change=lambda path: None, **files):
    """A shard with a sample whose labels are given, spoilt."""

    def write(path: Path) -> None:
        pack(path, {"a": {"wav": b"x" * 2000, **files}})
        change(path)

    return write


def keeping(end):
    """A change of a file: what is beyond a place is lost."""
    return lambda path: path.write_bytes(path.read_bytes()[:end])


def member(name="a.wav", kind=tarfile.REGTYPE, times=1):
    """A tar file of one member."""

    def write(path: Path) -> None:
        with tarfile.open(path, "w") as tar:
            for _ in range(times):
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname, entry.size = kind, "b.wav" * (kind != tarfile.REGTYPE), 4 * (kind == tarfile.REGTYPE)
                tar.addfile(entry, io.BytesIO(b"abcd"))

    return write


def parquet(change=lambda path: None, **columns):
    """A folder with a Parquet file of a row."""

    def write(path: Path) -> None:
        path.mkdir()
        datasets.Dataset.from_dict({name: [value] for name, value in columns.items()}).to_parquet(path / "train.parquet")
        change(path)

    return write


SOUND = {"bytes": b"x", "path": "a.wav"}
CORPORA = [
    ("prepare", "c", None, "{}/c: no such folder; data_folder must name the corpus (the folder that holds audio/)"),
    ("prepare", "c", lambda path: (path / "audio").mkdir(parents=True), "{}/c: no training data; expected recordings in audio/train/(strong_label_real|audioset_strong|strong), audio/train/(synthetic\\d*(_train)?), audio/train/(weak), audio/train/(unlabel(l?ed)?(_in_domain)?)"),
    ("prepare", "c", corpus(lambda c: (c / "metadata/train/weak.tsv").unlink()), "{}/c/audio/train/weak: has audio but no annotations; write {}/c/metadata/train/weak.tsv or remove the folder"),
    ("prepare", "c", corpus(lambda c: [file.unlink() for file in (c / "audio/train/weak").iterdir()]), "{}/c/audio/train/weak: none of the 4 clips of {}/c/metadata/train/weak.tsv is there; put the recordings under the names in the table"),
    ("prepare", "c", corpus(lambda c: table(c / TEST, EVENTS, [("../../../secret.wav", 0, 1, "Cat")])), "{}/c/metadata/validation/validation.tsv: '../../../secret.wav' points outside of the audio folder; write a path inside it"),
    ("prepare", "c", corpus(lambda c: table(c / TEST, EVENTS, [("/etc/secret.wav", 0, 1, "Cat")])), "{}/c/metadata/validation/validation.tsv: '/etc/secret.wav' points outside of the audio folder; write a path inside it"),
    ("prepare", "c", corpus(lambda c: table(c / TEST, EVENTS, [("..\\secret.wav", 0, 1, "Cat")])), "{}/c/metadata/validation/validation.tsv: '..\\\\secret.wav' points outside of the audio folder; write a path inside it"),
    ("prepare", "c", corpus(lambda c: table(c / TEST, EVENTS, [("C:secret.wav", 0, 1, "Cat")])), "{}/c/metadata/validation/validation.tsv: 'C:secret.wav' points outside of the audio folder; write a path inside it"),
    ("prepare", "c", corpus(lambda c: noise(c / "audio/train/weak/w0.flac"), replaced("metadata/train/weak.tsv", "w0.wav", "w0")), "{}/c/metadata/train/weak.tsv: 'w0' may be w0.flac, w0.wav; write the ending, or keep one of them"),
    ("prepare", "c", corpus(replaced("metadata/train/weak.tsv", "w0.wav", "w1.flac")), "{}/c/metadata/train/weak.tsv, line 3: the filename 'w1.wav' is listed for the second time; keep one row of it, with all its classes, separated by commas"),
    ("prepare", "c", corpus(
        lambda c: (c / "audio/train/unlabel_in_domain/u1.wav").write_bytes(b""),
        lambda c: soundfile.write(c / "audio/train/weak/w2.wav", np.full(800, np.nan, np.float32), 8000, subtype="FLOAT"),
        lambda c: cut(c / "audio/train/strong_label_real/s1.wav")), "{}/c: 3 of 22 recordings cannot be read, more than max_unreadable = 0.1 allows; repair them or raise the limit (the first: {}/c/audio/train/strong_label_real/s1.wav: the audio ends before its header says it does; copy or download the file again)"),
    ("prepare", "c", corpus(lambda c: table(c / TEST, EVENTS, [])), "{}/c/metadata/validation/validation.tsv: lists no recording; write a row for each, or remove {}/c/audio/validation/validation"),
    ("prepare", "c", corpus(replaced("metadata/train/audioset_strong.tsv", "0.25", "250"), replaced("metadata/train/audioset_strong.tsv", "0.75", "750")), "strong: 9 events begin long after the end of their recording, at 250 s of 1 s for one; write times in seconds"),
    ("survey", "in", None, "{}/in: no such folder; name one that holds recordings with their labels beside them"),
    ("survey", "in", Path.mkdir, "{}/in: holds no recordings; put them beside their labels (wav, flac, mp3, ogg, ...)"),
    ("survey", "in", labelled(a="-1\t1\tDog\n", b="2\t1\tDog\n", c="1\t2\tDog\n"), "labels that cannot be read: {}/in/a.txt, line 1: begins at -1 s, before the recording; write 0 or more; {}/in/b.txt, line 1: ends at 1 s, before it begins at 2 s; correct them"),
    ("lay out", "in", labelled(a="0\t1\tDog\n", b="0\t1\tDog\n"), "{}/in: 2 labelled recordings with 2 events; at least 3 are needed, one to learn from, one to choose thresholds on and one to be measured on, since parts of one recording sound alike; label another recording"),
    ("urban-sed", "u", download("urban-sed", lambda s: (s / "annotations/train").rename(s / "labels")), "{}/u/annotations/train: not found; name the folder of URBAN-SED v2 as downloaded, which holds audio/train, annotations/train"),
    ("urban-sed", "u", download("urban-sed", lambda s: text(s / "annotations/test/soundscape_test_0.txt", (1, 2))), "{}/u/annotations/test/soundscape_test_0.txt, line 1: '1\\t2' is not onset, offset and class, separated by tabs"),
    ("urban-sed", "u", download("urban-sed", lambda s: text(s / "annotations/test/soundscape_test_0.txt", (3, 2, "a"))), "{}/u/annotations/test/soundscape_test_0.txt, line 1: ends at 2 s, before it begins at 3 s; correct them"),
    ("audioset-strong", "a", download("audioset-strong", lambda s: text(s / "mid_to_display_name.tsv", ("/m/a", "A"))), "{}/a/audioset_train_strong.tsv, line 3: the label '/m/b' is not in mid_to_display_name.tsv; restore both tables"),
    ("audioset-strong", "a", download("audioset-strong", lambda s: text(s / "audioset_eval_strong.tsv", ("segment", "label"))), "{}/a/audioset_eval_strong.tsv, line 1: the column 'segment_id' is missing; the header must name segment_id, start_time_seconds, end_time_seconds, label, and it names segment, label"),
    ("esc50", "e", download("esc50", lambda s: (s / "meta/esc50.csv").write_text("filename,category,fold\na.wav,dog,x\n")), "{}/e/meta/esc50.csv, line 2: the fold 'x' is no number; restore the official table"),
    ("maestro-real", "m", download("maestro-real", lambda s: text(s / "development_annotation/soft_labels_x/cafe_restaurant_01.txt", (0, 1, "a", 7))), "{}/m/development_annotation/soft_labels_x/cafe_restaurant_01.txt, line 1: the soft label 7 must lie in [0, 1]"),
    ("tut-sound-events", "t", download("tut-sound-events", lambda s: (s / "meta/street/a001.ann").unlink()), "{}/t/meta: has no a001.ann for street/a001.wav; restore the annotations"),
    ("prepare", "c", corpus(lambda c: shard(keeping(3584))(c / SHARD)), "{}/c/audio/train/unlabel_in_domain/x.tar: the tar file breaks off; fetch it again"),
    ("prepare", "c", corpus(lambda c: shard(keeping(1000))(c / SHARD)), "{}/c/audio/train/unlabel_in_domain/x.tar: cannot be read as a tar file (...); fetch it again, and unpack it if it is packed"),
    ("prepare", "c", corpus(lambda c: (c / SHARD).write_bytes(b"\x1f\x8b" + bytes(2000))), "{}/c/audio/train/unlabel_in_domain/x.tar: cannot be read as a tar file (...); fetch it again, and unpack it if it is packed"),
    ("prepare", "c", corpus(lambda c: member("../a.wav")(c / SHARD)), "{}/c/audio/train/unlabel_in_domain/x.tar: '../a.wav' points outside of the audio folder; write a path inside it"),
    ("prepare", "c", corpus(lambda c: member("a.wav", tarfile.SYMTYPE)(c / SHARD)), "{}/c/audio/train/unlabel_in_domain/x.tar: 'a.wav' is a link, or stored with holes; pack the file itself"),
    ("prepare", "c", corpus(lambda c: member("a.wav", times=2)(c / SHARD)), "{}/c/audio/train/unlabel_in_domain/x.tar: holds 'a.wav' twice; pack it again with names of their own"),
    ("prepare", "c", corpus(lambda c: member("a.txt")(c / SHARD)), "{}/c/audio/train/unlabel_in_domain/x.tar: holds no recording; take the shard out, or pack sound into it"),
    ("prepare", "c", corpus(lambda c: (c / SHARD).symlink_to(c / "gone.tar")), "{}/c/audio/train/unlabel_in_domain/x.tar: cannot be read (No such file or directory); restore the shard"),
    ("webdataset", "x-{000000..000002}.tar", lambda path: [pack(path.with_name(f"x-00000{n}.tar"), {"a": {"wav": b"x"}}) for n in (0, 2)], "{}/x-000001.tar: no such shard (a .tar file); fetch it, or correct the pattern"),
    ("webdataset", "x-{000000..000002.tar", None, "{}/x-{000000..000002.tar: its braces do not match; write x-{000000..000099}.tar"),
    ("webdataset", "{a,b}/x.tar", lambda path: [pack(path.parent.with_name(name) / "x.tar", {"a": {"wav": b"x"}}) for name in "ab"], "{}/{a,b}/x.tar: names shards of the same name in several folders; name one folder of them"),
    ("webdataset", "in", Path.mkdir, "{}/in: holds no shards (.tar files); name a folder of them, or a pattern in quotes"),
    ("webdataset", "x.tar.gz", b"x", "{}/x.tar.gz: no such shard (a .tar file); fetch it, or correct the pattern"),
    ("webdataset's tags", "x.tar", shard(), "{}/x.tar: no recording has a .json file with the field 'tags' beside it; name the labels, or leave --labels out"),
    ("webdataset's tags", "x.tar", shard(json=b"{"), "{}/x.tar/a.json: is no JSON object (...); correct it"),
    ("webdataset's tags", "x.tar", shard(json={"tags": [3]}), "{}/x.tar/a.json: '[3]' are no labels; give names of classes, or events with onset, offset and label"),
    ("webdataset's tags", "x.tar", shard(json={"tags": [{"onset": 2, "offset": 1, "label": "Dog"}]}), "{}/x.tar/a.json: an event from 2 to 1 s; correct it"),
    ("webdataset's tags", "x.tar", lambda path: pack(path, {"a": {"wav": b"x", "json": {"tags": ["Dog"]}}, "b": {"wav": b"x", "json": {"tags": [{"onset": 0, "offset": 1, "label": "Dog"}]}}}), "{}/x.tar: some recordings have events, x.tar/a.wav only classes; separate them"),
    ("hugging-face", "in", parquet(sound=1), "{}/in: has no column of audio, only sound; name another data set"),
    ("hugging-face", "in", None, "{}/in: split 'train' cannot be loaded as a Hugging Face data set (...); check name and split, and hf auth login for a private one"),
    ("hugging-face", "in", parquet(lambda path: (path / "train.parquet").write_bytes(b"PAR1"), audio=SOUND), "{}/in: split 'train' cannot be loaded as a Hugging Face data set (...); check name and split, and hf auth login for a private one"),
    ("hugging-face", "in", parquet(audio={"bytes": None, "path": None}), "{}/in: no row of 'train' has audio; name other columns or another split"),
    ("hugging-face", "in", parquet(audio={"bytes": None, "path": "gone.wav"}), "{}/in, row 0: names gone.wav and does not hold it; push it with its audio embedded"),
    ("hugging-face", "in", lambda path: noise(path / "train/a.wav"), "{}/in: consists of audio files, which are used as they are; fetch them (hf download --repo-type dataset {}/in --local-dir FOLDER) and lay them out"),
    ("hugging-face's tags", "in", parquet(audio=SOUND), "{}/in: has no column 'tags', only audio; name the one with the labels"),
    ("hugging-face's tags", "in", parquet(audio=SOUND, tags=[3]), "{}/in, row 0: '[3]' are no labels; give names of classes, or events with onset, offset and label"),
]
