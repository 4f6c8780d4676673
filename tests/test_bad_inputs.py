"""Every kind of input that cannot be used is refused in one sentence: what, where, and what to do about it.

A row is a kind: who reads it, the file, its content (None: there is none), and the sentence that the user sees.
"""

import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from pmam_plugin.audio import read_audio
from pmam_plugin.checkpoints import load_model
from pmam_plugin.checkpoints.foreign import read_checkpoint
from pmam_plugin.cli import main
from pmam_plugin.errors import InputError
from pmam_plugin.evaluation.tables import read_operating_points, read_scores
from pmam_plugin.tables import read_durations, read_events, read_weak
from pmam_plugin.tables.formats import read_annotations
from tests.audio.files import encoded, flac_total, noise
from tests.tables.test_formats import STUDIO as STUDIO_EXPORT
from tests.tables.test_formats import TEXTGRID

STUDIO = STUDIO_EXPORT[0]
EVENTS, WEAK, SECONDS = "filename\tonset\toffset\tevent_label\n", "filename\tevent_labels\n", "filename\tduration\n"
SCORES = "onset\toffset\tDog\n"
SOUND = noise(2.0)

READERS = {
    "events": read_events,
    "known events": lambda path: read_events(path, ["Dog", "Cat"]),
    "weak": read_weak,
    "known weak": lambda path: read_weak(path, ["Dog", "Cat"]),
    "durations": read_durations,
    "labels": read_annotations,
    "scores": lambda path: read_scores(path.parent),
    "points": lambda path: read_operating_points(path.parent),
    "sound": lambda path: read_audio(path, 16000),
    "weights": read_checkpoint,
    "model": lambda path: load_model(path.parent),
}


def with_value(value):
    return encoded(np.where(np.arange(len(SOUND)) == 100, value, SOUND).astype(np.float32), "WAV", "FLOAT")


TABLES = [
    ("events", "e.tsv", None, r"e\.tsv: no such file; check the path or restore the annotations"),
    ("events", "e.tsv", "", r"line 1: the column 'filename' is missing; the header must name filename, onset"),
    ("events", "e.tsv", b"\x89PNG\r\n\x1a\n\0\0\0", r"e\.tsv.*cannot be read"),
    (
        "events",
        "e.tsv",
        EVENTS.encode() + b"a\t0\t1\tcaf\xe9\n",
        r"line 2: cannot be read as UTF-8 text; save the table as",
    ),
    ("events", "e.tsv", "file\tonset\toffset\tevent_label\n", r"line 1: the column 'filename' is missing"),
    ("events", "e.tsv", "filename\tonset\tonset\toffset\tevent_label\n", r"line 1: the column 'onset' occurs twice"),
    ("events", "e.tsv", EVENTS + "a\tx\t1\tDog\n", r"line 2: the onset 'x' is not a number; write seconds with a dec"),
    ("events", "e.tsv", EVENTS + "a\tnan\t1\tDog\n", r"line 2: the onset 'nan' is not a number"),
    ("events", "e.tsv", EVENTS + "a\t0\tinf\tDog\n", r"line 2: the offset 'inf' is not a number"),
    ("events", "e.tsv", EVENTS + "a\t-1\t1\tDog\n", r"line 2: the onset '-1' lies before the clip; write 0 or more"),
    (
        "events",
        "e.tsv",
        EVENTS + "a\t2\t1\tDog\n",
        r"line 2: the offset '1' lies before the onset; exchange or correct",
    ),
    ("events", "e.tsv", EVENTS + "a\t0\t1\t\n", r"line 2: the event_label '' is empty; name the class"),
    ("events", "e.tsv", EVENTS + "\t0\t1\tDog\n", r"line 2: the filename '' is empty; fill it or remove the row"),
    ("events", "e.tsv", EVENTS + "a\t0\t1\tDog\tCat\n", r"line 2: 5 fields where the header has 4; remove or quote"),
    ("events", "e.tsv", EVENTS + 'a\t0\t1\t"Dog\n', r"line 2: a quotation mark is not closed; close it, or double it"),
    (
        "events",
        "e.csv",
        "filename,onset,offset,event_label\na,0,5,1,5,Dog\n",
        r"line 2: 6 fields .*decimal comma needs semic",
    ),
    ("events", "e.tsv", EVENTS + "a\t1_0\t2_0\tDog\n", r"line 2: the onset '1_0' is not a number"),
    (
        "known events",
        "e.tsv",
        EVENTS + "a\t0\t1\tdog\n",
        r"line 2: the event_label 'dog' is no known class; .* Dog, Cat",
    ),
    ("weak", "w.tsv", EVENTS, r"line 1: the column 'event_labels' is missing"),
    (
        "weak",
        "w.tsv",
        WEAK + "a.wav\tDog\na.flac\tCat\n",
        r"line 3: the filename 'a.flac' is listed for the second time",
    ),
    ("weak", "w.tsv", WEAK + 'a\tDog"\n', r"line 2: .*quotation mark.*not closed"),
    (
        "known weak",
        "w.tsv",
        WEAK + "a\tDog,Cow\n",
        r"line 2: the event_labels 'Dog,Cow' holds an unknown class; .* Dog, Cat",
    ),
    (
        "durations",
        "d.tsv",
        SECONDS + "a\t0\n",
        r"line 2: the duration '0' is not positive; measure the recording again",
    ),
    ("durations", "d.tsv", SECONDS + "a\tlong\n", r"line 2: the duration 'long' is not a number"),
    ("durations", "d.tsv", SECONDS + "a\t1\n./a\t1\n", r"line 3: the filename './a' is listed for the second time"),
    ("scores", "s/a.txt", "", r"s: holds no <clip>\.tsv; give the folder that the scores were written to"),
    ("scores", "s/a.tsv", "onset\tDog\n", r"a\.tsv.*offset"),
    ("scores", "s/a.tsv", SCORES + "0\t1\t0.5\n2\t3\t0.5\n", r"a\.tsv, line 3"),
    (
        "scores",
        "s/a.tsv",
        SCORES + "0\t1\thigh\n",
        r"a\.tsv, line 2: 'high' in the column Dog is not a number; write the scores again",
    ),
    ("points", "p/predictions_th_half.tsv", EVENTS, r"the threshold in this file name is not a number; rename it"),
    ("points", "p/a.tsv", EVENTS, r"p: holds no predictions_th_<threshold>\.tsv"),
]
SOUNDS = [
    ("sound", "a.wav", None, r"a\.wav.*no such file"),
    ("sound", "a.wav", b"", r"a\.wav.*empty"),
    ("sound", "a.wav", EVENTS.encode() * 50, r"a\.wav: is a text file that begins"),
    ("sound", "a.mp3", np.random.default_rng(0).bytes(5000), r"a\.mp3.*cannot be decoded"),
    ("sound", "a.raw", bytes(200), r"a\.raw: is nothing but zeros"),
    ("sound", "a.m4a", b"\0\0\0\x20ftypM4A " + bytes(100), r"a\.m4a.*convert"),
    ("sound", "a.wav", encoded(SOUND[:0], "WAV"), r"a\.wav.*zero length"),
    ("sound", "a.wav", encoded(SOUND, "WAV")[:30000], r"a\.wav.*ends before"),
    ("sound", "a.ogg", encoded(SOUND, "OGG", "VORBIS")[:9000], r"a\.ogg.*ends before"),
    ("sound", "a.aiff", encoded(SOUND, "AIFF")[:30000], r"a\.aiff.*"),
    ("sound", "a.w64", encoded(SOUND, "W64")[:30000], r"a\.w64.*"),
    ("sound", "a.flac", flac_total(encoded(SOUND, "FLAC"), 40000), r"a\.flac.*"),
    ("sound", "a.wav", with_value(np.nan), r"a\.wav.*NaN"),
    ("sound", "a.wav", with_value(-np.inf), r"a\.wav.*NaN or infinite"),
    ("sound", "a.wav", with_value(1e30), r"a\.wav.*scale the recording down"),
]
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
CONFIG = {"format_version": 1, "architecture": "X", "model": {"type": "X"}}
WEIGHTS = [
    ("weights", "x.pt", None, r"x\.pt: no such file; download the checkpoint first"),
    ("weights", ".", None, r"is a folder; name the checkpoint file inside it"),
    ("weights", "x.pt", b"", r"x\.pt: not a whole PyTorch checkpoint .*; download it again"),
    ("weights", "x.pt", LFS, r"is a pointer of Git LFS, not the weights; fetch them with 'git lfs pull'"),
    ("weights", "x.safetensors", LFS, r"is a pointer of Git LFS, not the weights"),
    ("weights", "x.pt", b"<!DOCTYPE html><html>", r"is a web page, not weights; download the file itself"),
    ("weights", "x.pt", b"Access denied\n", r"is a text file that begins with 'Access denied', not weights"),
    ("weights", "x.pt", b"\x1f\x8b\x08" + bytes(600), r"is an archive; unpack it and name the checkpoint inside"),
    ("weights", "x.pt", torch.ones(2), r"holds Tensor, not a dictionary of tensors; give another file"),
    ("weights", "x.pt", [1], r"holds list, not a dictionary of tensors; give another file"),
    ("weights", "x.pt", {"a": struct.Struct}, r"its pickle names .*, which is no data and is not run"),
    ("weights", "x.safetensors", b"\xff" * 64, r"x\.safetensors.*"),
    ("model", "m/notes.md", "x", r"config\.json"),
    ("model", "m/config.json", "{", r"config\.json: not valid JSON"),
    ("model", "m/config.json", "[]", r"config\.json"),
    ("model", "m/config.json", json.dumps(CONFIG | {"format_version": 99}), r"config\.json.*99"),
    ("model", "m/config.json", json.dumps(CONFIG), r"config\.json.*X"),
    ("model", "m/config.json", json.dumps(CONFIG | {"model": {"type": "os.system"}}), r"config\.json.*os\.system"),
]
TRACK = "0\t1\tDog\n"
COMMANDS = [
    ("label convert {}/a.txt {}/b.doc", TRACK, r"b\.doc: events are written as .*choose one of these endings"),
    ("label convert {}/a.txt {}/b.txt --format word", TRACK, r"--format word: is no format; choose from tsv, csv"),
    ("label convert {}/a.txt {}/b.tsv --from word", TRACK, r"word: is no format; choose from tsv"),
    ("label convert {}/none {}/b.tsv", TRACK, r"none: no such file"),
    (
        "label convert {}/a.txt {}/b.tsv --label-column x",
        TRACK,
        r"is no table with named columns; leave --label-column out",
    ),
    ("detect {}/none.wav --model {}/none", TRACK, r"none: no such model folder"),
    ("detect {}/*.wav", TRACK, r"matches no file; check the pattern"),
    ("detect {}", TRACK, r"no audio in this folder"),
    ("detect {}/a.txt --out {}/e.doc", TRACK, r"e\.doc: events are written as"),
    ("detect {}/a.txt --out {}/a.txt/e.tsv", TRACK, r"e\.tsv: cannot be written"),
    ("detect {}/a.txt --format raven", TRACK, r"--format raven: has no effect without --out"),
    ("info {}/none", TRACK, r"none: no such model folder"),
    (
        "import-checkpoint --kind passt {}/none.pt {}/out",
        TRACK,
        r"none\.pt: no such file; download the checkpoint first",
    ),
    ("import-checkpoint --kind passt {}/a.txt {}/out", TRACK, r"a\.txt: is a text file that begins with"),
    ("evaluate --ground-truth {}/a.txt --durations {}/a.txt --events {}/a.txt", TRACK, r"a\.txt, line 1: the column"),
    ("corpus birds {}/x {}/y", TRACK, r"'birds' is no known corpus; choose from"),
]
LABELS = [
    ("labels", "a.txt", "0\t1\n", r"a\.txt, line 1: the label is empty; name the class"),
    ("labels", "a.txt", "0\t1\tDog\n1\tx\tDog\n", r"line 2: a time is not a number"),
    ("labels", "a.txt", "0\t1\tDog\tCat\n", r"line 1: 4 fields; a label track has start, end and label"),
    ("labels", "a.txt", "3\t1\tDog\n", r"line 1: ends at 1 s, before it begins at 3 s"),
    ("labels", "a.txt", "-1\t1\tDog\n", r"line 1: begins at -1 s, before the recording"),
    ("labels", "a.txt", "Dog barks\n", r"line 1: 'Dog barks' begins no known label file.*--from"),
    ("labels", "a.csv", "0.5,1.25,Dog\n", r"line 1: 3 fields without a header.*onset,offset,event_label"),
    ("labels", "a.csv", "start,end\n0,1\n", r"line 1: no column names the class.*--label-column"),
    (
        "labels",
        "a.csv",
        "start_samples,end_samples,label\n0,1,x\n",
        r"'start_samples' counts samples; export times in sec",
    ),
    ("labels", "a.csv", "start,end,label\n0,1,\n", r"line 2: the label is empty"),
    ("labels", "a.csv", "start,end,label\n0:61,0:62,x\n", r"line 2: a time is not a number"),
    ("labels", "a.csv", "onset,start,end,label\n0,0.5,1,x\n", r"line 2: 'onset' and 'start' differ \(0 and 0.5 s\)"),
    (
        "labels",
        "a.csv",
        "file,path,start,end,label\na,b,0,1,x\n",
        r"line 2: 'file' and 'path' name different recordings",
    ),
    ("labels", "a.csv", "file,start,end,label\n,0,1,x\n", r"line 2: names no recording"),
    ("labels", "a.txt", "x\t\t500\t1250\t750\tDog\n", r"line 1: .* begins no known label file"),
    ("labels", "a.txt", "x\t\t0.5\t1.25\t0.7\tDog\n", r"line 1: begin, end and duration do not agree"),
    ("labels", "a.rttm", "SPEAKER a 1 0 1 <NA>\n", r"line 1: 6 fields; RTTM has ten"),
    ("labels", "a.rttm", "LEXEME a 1 0 1 <NA> <NA> x <NA> <NA>\n", r"line 1: 'LEXEME' is no event"),
    ("labels", "a.rttm", "SPEAKER a 1 0 -1 <NA> <NA> x <NA> <NA>\n", r"line 1: the duration is negative"),
    ("labels", "a.rttm", "SPEAKER a 1 0 1 <NA> <NA> x high <NA>\n", r"line 1: the confidence 'high' is not a number"),
    ("labels", "a.TextGrid", TEXTGRID.split('"TextTier"')[0], r"a\.TextGrid: ends before all of its intervals"),
    ("labels", "a.TextGrid", TEXTGRID.replace('"Dog"', '"Dog'), r"line 18: a quotation mark is not closed"),
    ("labels", "a.TextGrid", TEXTGRID.replace("0.5\n1.25", "-0.5\n1.25"), r"line 16: begins at -0.5 s"),
    ("labels", "a.TextGrid", TEXTGRID.replace('"IntervalTier"', '"Sound"'), r"line 8: 'Sound' is no tier"),
    ("labels", "a.json", "[", r"line 1: is not JSON"),
    ("labels", "a.json", "[1]", r"task 1: is no task of Label Studio"),
    ("labels", "a.json", '[{"data": {"text": "x"}}]', r"task 1: names no audio"),
    (
        "labels",
        "a.json",
        json.dumps([{**STUDIO, "annotations": [{"result": []}] * 2}]),
        r"task 1: has several annotations",
    ),
    ("labels", "a.json", '{"recordings": [{"filename": "a"}]}', r"recording 1: has no 'events'"),
    (
        "labels",
        "a.json",
        '{"recordings": [{"filename": "a", "events": [{}]}]}',
        r"recording 1, event 1: has no 'onset'",
    ),
]
FILES = TABLES + SOUNDS + WEIGHTS + LABELS


@pytest.mark.parametrize(("reader", "name", "content", "sentence"), FILES)
def test_a_file_is_refused_in_one_sentence(tmp_path, reader, name, content, sentence):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str | bytes):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError) as caught:
        READERS[reader](path)
    check(str(caught.value), sentence, tmp_path)


@pytest.mark.parametrize(("command", "content", "sentence"), COMMANDS)
def test_a_command_ends_with_one_line(tmp_path, capsys, command, content, sentence):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(SystemExit) as caught:
        main(command.replace("{}", str(tmp_path)).split())
    assert caught.value.code == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    check(error, sentence, tmp_path)


def check(message: str, sentence: str, folder: Path) -> None:
    assert re.search(sentence, message), message
    assert "\n" not in message
    assert len(message.replace(str(folder), "")) < 500


def test_no_kind_is_counted_twice(capsys):
    kinds = {(reader, name, str(sentence)) for reader, name, _, sentence in FILES} | {row[0] for row in COMMANDS}
    assert len(kinds) == len(FILES) + len(COMMANDS)
    with capsys.disabled():
        print(f" {len(kinds)} kinds of bad input")
