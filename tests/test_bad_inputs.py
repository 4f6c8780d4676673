# ruff: noqa: E501 (sentences stand as the user reads them)
"""Every kind of input that cannot be used is refused in one sentence: what, where, and what to do about it.

A row is a kind: who reads it, the file, its content (None: there is none), and the sentence that the user sees.
"""

import contextlib
import io
import json
import os
import re
import struct
import zipfile
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
from tests.audio.test_layouts import DAMAGED
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
    "folder": load_model,
}


def with_value(value):
    return encoded(np.where(np.arange(len(SOUND)) == 100, value, SOUND).astype(np.float32), "WAV", "FLOAT")


def zipped(path: Path, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "")


# fmt: off
TABLES = [
    ("events", "e.tsv", None, "{}/e.tsv: no such file; check the path or restore the annotations"),
    ("events", "e.tsv", "", "{}/e.tsv, line 1: the column 'filename' is missing; the header must name filename, onset, offset, event_label, and it names nothing"),
    ("events", "e.tsv", b"\x89PNG\r\n\x1a\n\0\0\0", "{}/e.tsv, line 1: cannot be read as UTF-8 text; save the table as UTF-8 text"),
    ("events", "e.tsv", EVENTS.encode() + b"a\t0\t1\tcaf\xe9\n", "{}/e.tsv, line 2: cannot be read as UTF-8 text; save the table as UTF-8 text"),
    ("events", "e.tsv", "file\tonset\toffset\tevent_label\n", "{}/e.tsv, line 1: the column 'filename' is missing; the header must name filename, onset, offset, event_label, and it names file, onset, offset, event_label"),
    ("events", "e.tsv", "filename\tonset\tonset\toffset\tevent_label\n", "{}/e.tsv, line 1: the column 'onset' occurs twice; keep one of them"),
    ("events", "e.tsv", EVENTS + "a\tx\t1\tDog\n", "{}/e.tsv, line 2: the onset 'x' is not a number; write seconds with a decimal point"),
    ("events", "e.tsv", EVENTS + "a\tnan\t1\tDog\n", "{}/e.tsv, line 2: the onset 'nan' is not a number; write seconds with a decimal point"),
    ("events", "e.tsv", EVENTS + "a\t0\tinf\tDog\n", "{}/e.tsv, line 2: the offset 'inf' is not a number; write seconds with a decimal point"),
    ("events", "e.tsv", EVENTS + "a\t-1\t1\tDog\n", "{}/e.tsv, line 2: the onset '-1' lies before the clip; write 0 or more"),
    ("events", "e.tsv", EVENTS + "a\t2\t1\tDog\n", "{}/e.tsv, line 2: the offset '1' lies before the onset; exchange or correct them"),
    ("events", "e.tsv", EVENTS + "a\t0\t1\t\n", "{}/e.tsv, line 2: the event_label '' is empty; name the class"),
    ("events", "e.tsv", EVENTS + "\t0\t1\tDog\n", "{}/e.tsv, line 2: the filename '' is empty; fill it or remove the row"),
    ("events", "e.tsv", EVENTS + "a\t0\t1\tDog\tCat\n", "{}/e.tsv, line 2: 5 fields where the header has 4; remove or quote what is too much"),
    ("events", "e.tsv", EVENTS + 'a\t0\t1\t"Dog\n', "{}/e.tsv, line 2: a quotation mark is not closed; close it, or double it to mean itself"),
    ("events", "e.csv", "filename,onset,offset,event_label\na,0,5,1,5,Dog\n", "{}/e.csv, line 2: 6 fields where the header has 4; remove or quote what is too much; a decimal comma needs semicolons or tabs between cells"),
    ("events", "e.tsv", EVENTS + "a\t1_0\t2_0\tDog\n", "{}/e.tsv, line 2: the onset '1_0' is not a number; write seconds with a decimal point"),
    ("known events", "e.tsv", EVENTS + "a\t0\t1\tdog\n", "{}/e.tsv, line 2: the event_label 'dog' is no known class; the classes are Dog, Cat"),
    ("events", "e.tsv", Path.mkdir, "{}/e.tsv: is a folder; name the table inside it"),
    ("events", "e.tsv", EVENTS + "a,0,1,Dog\n", "{}/e.tsv, line 2: 'a,0,1,Dog' is no row of a table whose header separates cells with tabs; separate these alike, or remove the line"),
    ("events", "e.tsv", EVENTS + "# checked twice\na\t0\t1\tDog\n", "{}/e.tsv, line 2: '# checked twice' is no row of a table whose header separates cells with tabs; separate these alike, or remove the line"),
    ("events", "e.tsv", EVENTS + "a\tNA\tNA\tNA\n", "{}/e.tsv, line 2: the onset 'NA' is no time; leave all cells but the filename empty where a clip has no events"),
    ("events", "e.tsv", EVENTS + "a\t0\t1\tDog\n" + EVENTS, "{}/e.tsv, line 3: the onset 'onset' is not a number; write seconds with a decimal point"),
    ("events", "e.tsv", EVENTS + "a\t0\t\tDog\n", "{}/e.tsv, line 2: the offset '' is not a number; write seconds with a decimal point"),
    ("events", "e.tsv", EVENTS + "a\t0\t0x2\tDog\n", "{}/e.tsv, line 2: the offset '0x2' is not a number; write seconds with a decimal point"),
    ("events", "e.tsv", EVENTS + "a\t0\t٢\tDog\n", "{}/e.tsv, line 2: the offset '٢' is not a number; write seconds with a decimal point"),
    ("events", "e.tsv", EVENTS + "a\t1e400\t2\tDog\n", "{}/e.tsv, line 2: the onset '1e400' is not a number; write seconds with a decimal point"),
    ("events", "e.tsv", EVENTS + "a\t1,234.5\t2\tDog\n", "{}/e.tsv, line 2: the onset '1,234.5' is not a number; write seconds with a decimal point"),
    ("events", "e.tsv", EVENTS + "a\t" + "9" * 200 + "x\t2\tDog\n", "{}/e.tsv, line 2: the onset '9999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999 ...' is not a number; write seconds with a decimal point"),
    ("events", "e.tsv", EVENTS.replace("onset", "onset_ms"), "{}/e.tsv, line 1: the column 'onset' is missing; the header must name filename, onset, offset, event_label, and it names filename, onset_ms, offset, event_label"),
    ("events", "e.tsv", b"PK\x03\x04" + bytes(60), "{}/e.tsv: is a spreadsheet or a zip archive; save the sheet as CSV or TSV in UTF-8"),
    ("events", "e.tsv", b"\xd0\xcf\x11\xe0" + bytes(60), "{}/e.tsv: is a spreadsheet; save it as CSV or TSV in UTF-8"),
    ("events", "e.tsv", b"\x1f\x8b" + bytes(60), "{}/e.tsv: is compressed with gzip; unpack it"),
    ("events", "e.tsv", b"version https://git-lfs.github.com/spec/v1\n", "{}/e.tsv: is a pointer of Git LFS, not the table; fetch it with git lfs pull"),
    ("events", "e.csv", EVENTS.replace("\t", ",") + 'a,0,1,"Dog \\"x\\""\n', "{}/e.csv, line 2: a backslash does not mask a quotation mark; double the mark instead"),
    ("events", "e.csv", EVENTS.replace("\t", ",") + "a,0,1,Dishes, pots\n", "{}/e.csv, line 2: 5 fields where the header has 4; remove or quote what is too much; a decimal comma needs semicolons or tabs between cells"),
    ("events", "e.csv", EVENTS.replace("\t", ",") + 'a,"0,5",1,Dog\n', "{}/e.csv, line 2: the onset '0,5' is not a number; write seconds with a decimal point or semicolons between cells"),
    ("events", "e.tsv", EVENTS + "a\t1,234\t2,500\tDog\n", "{}/e.tsv, line 2: the onset '1,234' may count thousands or have a decimal comma; write seconds with a decimal point"),
    ("events", "e.tsv", EVENTS + "a\t0.5\t1\tDog\nb\t1,5\t2\tDog\n", "{}/e.tsv, line 3: the onset '1,5' may count thousands or have a decimal comma; write seconds with a decimal point"),
    ("events", "e.tsv", EVENTS + "a\t0\t1\tDog|Cat\nb\t0\t1\tCat\nc\t0\t1\tDog\n", "{}/e.tsv, line 2: the event_label 'Dog|Cat' joins classes that also stand by themselves; write a row for each, or rename the class"),
    ("weak", "w.tsv", WEAK + "a\tDog,Cat\nb\tDog;Cat\n", "{}/w.tsv, line 3: the event_labels 'Dog;Cat' joins classes that also stand by themselves; separate them by commas, or rename the class"),
    ("known weak", "w.tsv", WEAK + "a\tDog; Cat\n", "{}/w.tsv, line 2: the event_labels 'Dog; Cat' joins classes that also stand by themselves; separate them by commas, or rename the class"),
    ("weak", "w.tsv", WEAK + "a\t['Dog', 'Cat']\n", "{}/w.tsv, line 2: the event_labels \"['Dog', 'Cat']\" is a list as Python prints it; separate the classes by commas alone"),
    ("durations", "d.tsv", SECONDS, "{}/d.tsv: names no recording; write a row for every recording of the set"),
    ("durations", "d.tsv", SECONDS + "a\t0:10\n", "{}/d.tsv, line 2: the duration '0:10' is not a number; write seconds with a decimal point"),
    ("weak", "w.tsv", EVENTS, "{}/w.tsv, line 1: the column 'event_labels' is missing; the header must name filename, event_labels, and it names filename, onset, offset, event_label"),
    ("weak", "w.tsv", WEAK + "a.wav\tDog\na.flac\tCat\n", "{}/w.tsv, line 3: the filename 'a.flac' is listed for the second time; keep one row of it"),
    ("weak", "w.tsv", WEAK + 'a\tDog"\n', "{}/w.tsv, line 2: a quotation mark is not closed; close it, or double it to mean itself"),
    ("known weak", "w.tsv", WEAK + "a\tDog,Cow\n", "{}/w.tsv, line 2: the event_labels 'Dog,Cow' holds an unknown class; the classes are Dog, Cat"),
    ("durations", "d.tsv", SECONDS + "a\t0\n", "{}/d.tsv, line 2: the duration '0' is not positive; measure the recording again"),
    ("durations", "d.tsv", SECONDS + "a\tlong\n", "{}/d.tsv, line 2: the duration 'long' is not a number; write seconds with a decimal point"),
    ("durations", "d.tsv", SECONDS + "a\t1\n./a\t1\n", "{}/d.tsv, line 3: the filename './a' is listed for the second time; keep one row of it"),
    ("scores", "s/a.txt", "", "{}/s: holds no <clip>.tsv; give the folder that the scores were written to"),
    ("scores", "s/a.tsv", "onset\tDog\n", "{}/s/a.tsv, line 1: the columns must be onset, offset and one per class, not onset, Dog; write the scores again, with tabs"),
    ("scores", "s/a.tsv", SCORES + "0\t1\t0.5\n1.00001\t2\t0.5\n", "{}/s/a.tsv, line 3: the row does not begin where the row before ends; write the scores again"),
    ("scores", "s/a.tsv", SCORES + "0\t1\thigh\n", "{}/s/a.tsv, line 2: 'high' in the column Dog is not a number; write the scores again"),
    ("scores", "s/a.tsv", "", "{}/s/a.tsv, line 1: the columns must be onset, offset and one per class, not nothing; write the scores again, with tabs"),
    ("scores", "s/a.tsv", SCORES, "{}/s/a.tsv: holds no scores; write at least one row"),
    ("scores", "s/a.tsv", SCORES.replace("\t", ",") + "0,1,0.5\n", "{}/s/a.tsv, line 1: the columns must be onset, offset and one per class, not onset,offset,Dog; write the scores again, with tabs"),
    ("scores", "s/a.tsv", SCORES.replace("Dog", "Dog\tDog") + "0\t1\t0.5\t0.5\n", "{}/s/a.tsv, line 1: the column 'Dog' occurs twice; keep one of them"),
    ("scores", "s/a.tsv", SCORES.replace("Dog", "Dog\t") + "0\t1\t0.5\t0.5\n", "{}/s/a.tsv, line 1: a column has no name; write the scores again with a class each"),
    ("scores", "s/a.tsv", SCORES + "0\t1\t0.5\t7\n", "{}/s/a.tsv, line 2: 4 fields where the header has 3; write the scores again"),
    ("scores", "s/a.tsv", SCORES + "\n0\t1\t0.5\n\n1\t2\n", "{}/s/a.tsv, line 5: 2 fields where the header has 3; write the scores again"),
    ("scores", "s/a.tsv", SCORES + "0\t1\tTrue\n", "{}/s/a.tsv, line 2: 'True' in the column Dog is not a number; write the scores again"),
    ("scores", "s/a.tsv", SCORES + "0\t1\t0,5\n", "{}/s/a.tsv, line 2: '0,5' in the column Dog is not a number; write the scores again"),
    ("scores", "s/a.tsv", SCORES + "0\t1\t\n", "{}/s/a.tsv, line 2: '' in the column Dog is not a number; write the scores again"),
    ("scores", "s/a.tsv", SCORES + "\n0\t1\tnan\n", "{}/s/a.tsv, line 3: the row holds NaN, an infinite time or an endless score; write the scores again"),
    ("scores", "s/a.tsv", SCORES + "0\t1\tinf\n", "{}/s/a.tsv, line 2: the row holds NaN, an infinite time or an endless score; write the scores again"),
    ("scores", "s/a.tsv", SCORES + "-1\t1\t0.5\n", "{}/s/a.tsv, line 2: the row begins before the recording; write the scores again"),
    ("scores", "s/a.tsv", SCORES + "1\t1\t0.5\n", "{}/s/a.tsv, line 2: the row ends before it begins; write the scores again"),
    ("scores", "s/a.tsv", SCORES.encode() + b"0\t1\t\xe9\n", "{}/s/a.tsv, line 2: cannot be read as UTF-8 text; save the table as UTF-8 text"),
    ("points", "p/predictions_th_nan.tsv", EVENTS, "{}/p/predictions_th_nan.tsv: the threshold in this file name is not a number; rename it"),
    ("points", "p/predictions_th_0.50.tsv", lambda path: [(path.parent / f"predictions_th_{value}.tsv").write_text(EVENTS) for value in ("0.50", "0.5")], "{}/p/predictions_th_0.50.tsv: stands for the same threshold as predictions_th_0.5.tsv; keep one of them"),
    ("points", "p/predictions_th_half.tsv", EVENTS, "{}/p/predictions_th_half.tsv: the threshold in this file name is not a number; rename it"),
    ("points", "p/a.tsv", EVENTS, "{}/p: holds no predictions_th_<threshold>.tsv; give the folder of the operating points"),
]
SOUNDS = [
    ("sound", "b.wav", Path.mkdir, "{}/b.wav: is a folder; name an audio file inside it"),
    ("sound", "c.wav", os.mkfifo, "{}/c.wav: is no regular file; save the audio to a file first"),
    ("sound", "d.wav", lambda path: path.symlink_to(path), "{}/d.wav: cannot be opened (...); check the path and its permissions"),
    ("sound", "e.wav", lambda path: path.symlink_to("nowhere"), "{}/e.wav: no such file; check the path or restore the recording"),
    ("sound", "a.wav", None, "{}/a.wav: no such file; check the path or restore the recording"),
    ("sound", "a.wav", b"", "{}/a.wav: the file is empty (0 bytes); copy or download it again"),
    ("sound", "a.wav", EVENTS.encode() * 50, "{}/a.wav: is a text file that begins with 'filename onset offset event_label filena', not a recording; give an audio file"),
    ("sound", "a.mp3", np.random.default_rng(0).bytes(5000), "{}/a.mp3: cannot be decoded (no format that is known); give a whole wav, flac, ogg or mp3 file"),
    ("sound", "a.raw", bytes(200), "{}/a.raw: is nothing but zeros; copy or download it again"),
    ("sound", "a.m4a", b"\0\0\0\x20ftypM4A " + bytes(100), "{}/a.m4a: is MPEG-4 (m4a, mp4), which cannot be decoded; convert it to wav or flac"),
    ("sound", "a.wav", encoded(SOUND, "WAV")[:30000], "{}/a.wav: the audio ends before its header says it does; copy or download the file again"),
    ("sound", "a.ogg", encoded(SOUND, "OGG", "VORBIS")[:9000], "{}/a.ogg: the audio ends before its header says it does; copy or download the file again"),
    ("sound", "a.aiff", encoded(SOUND, "AIFF")[:30000], "{}/a.aiff: the audio ends before its header says it does; copy or download the file again"),
    ("sound", "a.w64", encoded(SOUND, "W64")[:30000], "{}/a.w64: the audio ends before its header says it does; copy or download the file again"),
    ("sound", "a.flac", flac_total(encoded(SOUND, "FLAC"), 40000), "{}/a.flac: the audio ends before its header says it does; copy or download the file again"),
    ("sound", "a.wav", with_value(np.nan), "{}/a.wav: NaN or infinite samples; repair the recording or leave it out"),
    ("sound", "a.wav", with_value(-np.inf), "{}/a.wav: NaN or infinite samples; repair the recording or leave it out"),
    ("sound", "a.wav", with_value(1e30), "{}/a.wav: samples up to 1e+30, where full scale is 1; scale the recording down"),
]
SOUNDS += [("sound", "a.wav", content, sentence) for content, sentence in DAMAGED.values()]
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
CONFIG = {"format_version": 1, "architecture": "X", "model": {"type": "X"}}
WEIGHTS = [
    ("weights", "x.pt", None, "{}/x.pt: no such file; download the checkpoint first"),
    ("weights", ".", None, "{}: is a folder; name the checkpoint file inside it"),
    ("weights", "x.pt", b"", "{}/x.pt: the file is empty (0 bytes); download it again"),
    ("weights", "x.pt", LFS, "{}/x.pt: is a pointer of Git LFS, not the weights; fetch them with 'git lfs pull'"),
    ("weights", "x.safetensors", LFS, "{}/x.safetensors: is a pointer of Git LFS, not the weights; fetch them with 'git lfs pull'"),
    ("weights", "x.pt", b"<!DOCTYPE html><html>", "{}/x.pt: is a web page, not weights; download the file itself, not the page about it"),
    ("weights", "x.pt", b"Access denied\n", "{}/x.pt: is a text file that begins with 'Access denied', not weights; download it again"),
    ("weights", "x.pt", b"\x1f\x8b\x08" + bytes(600), "{}/x.pt: is an archive; unpack it and name the checkpoint inside"),
    ("weights", "x.pt", torch.ones(2), "{}/x.pt: holds Tensor, not a dictionary of tensors; give another file"),
    ("weights", "x.pt", [1], "{}/x.pt: holds list, not a dictionary of tensors; give another file"),
    ("weights", "x.pt", {"a": struct.Struct}, "{}/x.pt: its pickle names _struct.Struct, which is no data and is not run; export the tensors alone"),
    ("weights", "x.h5", b"\x89HDF\r\n\x1a\n" + bytes(600), "{}/x.h5: is an HDF5 file, as Keras writes them; of these only YAMNet's is read, with --kind yamnet"),
    ("weights", "x.npy", b"\x93NUMPY" + bytes(600), "{}/x.npy: is an array of NumPy, not a checkpoint of PyTorch; give another file"),
    ("weights", "x.pt", bytes(600), "{}/x.pt: is nothing but zeros where it begins; download it again"),
    ("weights", "x.pt", lambda path: zipped(path, "model.pt"), "{}/x.pt: is a zip archive that holds model.pt; unpack it and name the checkpoint inside"),
    ("weights", "x.pt", lambda path: zipped(path, "x/constants.pkl"), "{}/x.pt: is a program in TorchScript, which is not run; export its state_dict"),
    ("weights", "x.keras", lambda path: zipped(path, "model.weights.h5"), "{}/x.keras: is a model of Keras 3; give the weights as the authors published them"),
    ("weights", "x.safetensors", b"", "{}/x.safetensors: the file is empty (0 bytes); download it again"),
    ("weights", "x.safetensors", b"\xff" * 64, "{}/x.safetensors: not a whole safetensors file (...); fetch it again"),
    ("model", "m/notes.md", "x", "{}/m: holds no config.json, so it is no model folder; give a folder that training or pmam import-checkpoint wrote"),
    ("model", "m/notes.md", lambda path: zipped(path.parent / "1" / "model" / "config.json", "x"), "{}/m: holds no config.json, so it is no model folder; give {}/m/1/model inside it"),
    ("folder", "m.md", "x", "{}/m.md: is a file, not a model folder; give a folder that training or pmam import-checkpoint wrote"),
    ("folder", "m.pt", {}, "{}/m.pt: is a file of weights, not a model folder; give a folder that training or pmam import-checkpoint wrote"),
    ("folder", "m.zip", lambda path: zipped(path, "m/config.json"), "{}/m.zip: is an archive, not a model folder; unpack it and give the folder inside"),
    ("folder", "m", lambda path: path.symlink_to("nowhere"), "{}/m: is a link that leads nowhere; check what it should lead to"),
    ("model", "m/config.json", "{", "{}/m/config.json: not valid JSON (...); correct it, or copy it again"),
    ("model", "m/config.json", "[]", "{}/m/config.json: not the configuration of a model of this package (it needs a 'model' with a 'type'); give a folder that training or pmam import-checkpoint wrote"),
    ("model", "m/config.json", json.dumps(CONFIG | {"format_version": 99}), "{}/m/config.json: format_version 99 is not 1, the one known here; update pmam_plugin"),
    ("model", "m/config.json", json.dumps(CONFIG), "{}/m/config.json: the configuration names an unknown architecture 'X'; update pmam_plugin or check config.json"),
    ("model", "m/config.json", json.dumps(CONFIG | {"model": {"type": "os.system"}}), "{}/m/config.json: architecture is 'X' but the model is 'os.system'; fetch the folder again"),
]
COMMANDS = [
    ("label convert {}/a.txt {}/b.doc", "error: {}/b.doc: events are written as .selections.txt, .txt, .textgrid, .rttm, .json, .tsv, .csv; choose one of these endings, or name a --format (tsv, csv, json, rttm, audacity, textgrid, raven, elan, label-studio, sonic-visualiser)"),
    ("label convert {}/a.txt {}/b.txt --format word", "error: --format word: is no format; choose from tsv, csv, json, rttm, audacity, textgrid, raven, elan, label-studio, sonic-visualiser"),
    ("label convert {}/a.txt {}/b.tsv --from word", "error: --format word: is no format; choose from tsv, csv, json, rttm, audacity, textgrid, raven, elan, label-studio, sonic-visualiser"),
    ("label convert {}/none {}/b.tsv", "error: {}/none: no such file; check the path or restore the annotations"),
    ("label convert {}/a.txt {}/b.tsv --label-column x", "error: {}/a.txt: is no table with named columns; leave --label-column out"),
    ("detect {}/none.wav --model {}/none", "error: {}/none: no such model folder, and not a Hub id (org/name); check the name"),
    ("detect {}/*.wav", "error: {}/*.wav: matches no file; check the pattern"),
    ("detect {}", "error: {}: no audio in this folder (looked for 8svx, aif, aifc, aiff, au, avr, bwf, caf, flac, iff, ircam, mp2, mp3, mpga, nist, oga, ogg, opus, paf, pvf, rf64, sds, sf, snd, sph, svx, voc, w64, wav, wave, wve, xi)"),
    ("detect {}/a.txt --out {}/e.doc", "error: {}/e.doc: events are written as .selections.txt, .txt, .textgrid, .rttm, .json, .tsv, .csv; choose one of these endings, or name a --format (tsv, csv, json, rttm, audacity, textgrid, raven, elan, label-studio, sonic-visualiser)"),
    ("detect {}/a.txt --out {}/a.txt/e.tsv", "error: {}/a.txt/e.tsv: cannot be written (...); choose another folder"),
    ("detect {}/a.txt --format raven", "error: --format raven: has no effect without --out; name the file to write"),
    ("evaluate --scores {} --ground-truth {}/e.tsv --durations {}/d.tsv --model {}/a.txt", "error: {}/a.txt: is a file, not a model folder; give a folder that training or pmam import-checkpoint wrote"),
    ("push {}/a.txt org/name", "error: {}/a.txt: is a file, not a model folder; give a folder that training or pmam import-checkpoint wrote"),
    ("export {} --onnx {}/x.onnx", "error: {}: holds no config.json, so it is no model folder; give a folder that training or pmam import-checkpoint wrote"),
    ("pull org/name {}/a.txt", "error: {}/a.txt: is a file; choose another destination, an empty or a new folder"),
    ("prototypes {}/a.txt", "error: {}/a.txt: no such folder; give the output folder of a training run"),
    ("info {}/none", "error: {}/none: no such model folder, and not a Hub id (org/name); check the name"),
    ("import-checkpoint --kind passt {}/none.pt {}/out", "error: {}/none.pt: no such file; download the checkpoint first"),
    ("import-checkpoint --kind passt {}/a.txt {}/out", "error: {}/a.txt: is a text file that begins with '0\\t1\\tDog', not weights; download it again"),
    ("evaluate --ground-truth {}/a.txt --durations {}/a.txt --events {}/a.txt", "error: {}/a.txt, line 1: the column 'filename' is missing; the header must name filename, onset, offset, event_label, and it names 0, 1, dog"),
    ("evaluate --ground-truth {}/a.txt --durations {}/a.txt --scores {} --threshold nan", "error: --threshold nan: is no number that scores can exceed; give one such as 0.5"),
    ("evaluate --ground-truth {}/a.txt --durations {}/a.txt --events {}/a.txt --json {}", "error: {}: is a folder; give the name of a file"),
    ("corpus urban-sed {}/x {}/y", "error: {}/x: no such folder; name the folder of urban-sed as downloaded"),
    ("corpus birds {}/x {}/y", "error: 'birds' is no known corpus; choose from audioset-strong, urban-sed, maestro-real, urbansound8k, esc50, tut-sound-events, dcase2018-task5"),
]


def event(**facts) -> str:
    whole = {"onset": 0, "offset": 1, "event_label": "Dog", **facts}
    return json.dumps({"recordings": [{"filename": "a", "events": [whole]}]})


LABELS = [
    ("labels", "a.txt", "0\t1\n", "{}/a.txt, line 1: the label is empty; name the class or remove the entry"),
    ("labels", "a.txt", "0\t1\tDog\n1\t2\tCat\n2\t3\tDog;Cat\n", "{}/a.txt, line 3: 'Dog;Cat' joins classes that also stand by themselves; write an entry for each, or rename the class"),
    ("labels", "a.txt", "0\t1\tDog\n1\tx\tDog\n", "{}/a.txt, line 2: a time is not a number; write seconds, minutes:seconds or h:min:s"),
    ("labels", "a.txt", "0\t1\tDog\tCat\n", "{}/a.txt, line 1: 4 fields; a label track has start, end and label between tabs"),
    ("labels", "a.txt", "3\t1\tDog\n", "{}/a.txt, line 1: ends at 1 s, before it begins at 3 s; correct them"),
    ("labels", "a.txt", "-1\t1\tDog\n", "{}/a.txt, line 1: begins at -1 s, before the recording; write 0 or more"),
    ("labels", "a.txt", "Dog barks\n", "{}/a.txt, line 1: 'Dog barks' begins no known label file; give the columns a header (filename, onset, offset, event_label) or name its --from format (tsv, csv, json, rttm, audacity, textgrid, raven, elan, label-studio, sonic-visualiser)"),
    ("labels", "a.csv", "0.5,1.25,Dog\n", "{}/a.csv, line 1: 3 fields without a header; export a layer of regions (time, value, duration, label), or add a header (onset,offset,event_label)"),
    ("labels", "a.csv", "start,end\n0,1\n", "{}/a.csv, line 1: no column names the class; call it event_label, or name it with --label-column"),
    ("labels", "a.csv", "start_samples,end_samples,label\n0,1,x\n", "{}/a.csv, line 1: 'start_samples' counts samples; export times in seconds"),
    ("labels", "a.csv", "start,end,label\n0,1,\n", "{}/a.csv, line 2: the label is empty; name the class or remove the entry"),
    ("labels", "a.csv", "start,end,label\n0:61,0:62,x\n", "{}/a.csv, line 2: a time is not a number; write seconds, minutes:seconds or h:min:s"),
    ("labels", "a.csv", "onset,start,end,label\n0,0.5,1,x\n", "{}/a.csv, line 2: 'onset' and 'start' differ (0 and 0.5 s); remove or rename one of the columns"),
    ("labels", "a.csv", "file,path,start,end,label\na,b,0,1,x\n", "{}/a.csv, line 2: 'file' and 'path' name different recordings; remove or rename one of the columns"),
    ("labels", "a.csv", "file,start,end,label\n,0,1,x\n", "{}/a.csv, line 2: names no recording; fill it or remove the entry"),
    ("labels", "a.txt", "x\t\t500\t1250\t750\tDog\n", "{}/a.txt, line 1: 'x\\t\\t500\\t1250\\t750\\tDog' begins no known label file; give the columns a header (filename, onset, offset, event_label) or name its --from format (tsv, csv, json, rttm, audacity, textgrid, raven, elan, label-studio, sonic-visualiser)"),
    ("labels", "a.txt", "x\t\t0.5\t1.25\t0.7\tDog\n", "{}/a.txt, line 1: begin, end and duration do not agree; export with column headers"),
    ("labels", "a.rttm", "SPEAKER a 1 0 1 <NA>\n", "{}/a.rttm, line 1: 6 fields; RTTM has ten, without spaces in them"),
    ("labels", "a.rttm", "LEXEME a 1 0 1 <NA> <NA> x <NA> <NA>\n", "{}/a.rttm, line 1: 'LEXEME' is no event; keep the SPEAKER lines"),
    ("labels", "a.rttm", "SPEAKER a 1 0 -1 <NA> <NA> x <NA> <NA>\n", "{}/a.rttm, line 1: the duration is negative; correct it"),
    ("labels", "a.rttm", "SPEAKER a 1 0 1 <NA> <NA> x high <NA>\n", "{}/a.rttm, line 1: the confidence 'high' is not a number; write <NA>"),
    ("labels", "a.TextGrid", TEXTGRID.split('"TextTier"')[0], "{}/a.TextGrid: ends before all of its intervals; save it again from Praat"),
    ("labels", "a.TextGrid", TEXTGRID.replace('"Dog"', '"Dog'), "{}/a.TextGrid, line 18: a quotation mark is not closed; double those inside"),
    ("labels", "a.TextGrid", TEXTGRID.replace("0.5\n1.25", "-0.5\n1.25"), "{}/a.TextGrid, line 16: begins at -0.5 s, before the recording; write 0 or more"),
    ("labels", "a.TextGrid", TEXTGRID.replace('"IntervalTier"', '"Sound"'), "{}/a.TextGrid, line 8: 'Sound' is no tier; save it again from Praat"),
    ("labels", "a.json", "[", "{}/a.json, line 1: is not JSON (...); export it again"),
    ("labels", "a.json", "[1]", "{}/a.json, line 1: '[1]' begins no known label file; give the columns a header (filename, onset, offset, event_label) or name its --from format (tsv, csv, json, rttm, audacity, textgrid, raven, elan, label-studio, sonic-visualiser)"),
    ("labels", "a.json", '[{"audio": "a"}, 1]', "{}/a.json, task 2: is no task of Label Studio; export the project as JSON"),
    ("labels", "a.json", "[" * 100_000, "{}/a.json: is nested too deeply for annotations; export it again"),
    ("labels", "a.json", '{"recordings": [{"filename": "a", "duration": -5, "events": []}]}', "{}/a.json: a is said to last -5 s; correct the length of the recording"),
    ("labels", "a.json", event(onset="0"), "{}/a.json, recording 1, event 1: has no usable 'onset'; export it again"),
    ("labels", "a.json", event(onset=10**400), "{}/a.json, recording 1, event 1: a time is not a number; write seconds, minutes:seconds or h:min:s"),
    ("labels", "a.json", event(onset=-1), "{}/a.json, recording 1, event 1: begins at -1 s, before the recording; write 0 or more"),
    ("labels", "a.json", event(event_label="\ud800"), "{}/a.json, recording 1, event 1: a name holds half a character, which no file can keep; correct it"),
    ("labels", "a.json", event(event_label=3), "{}/a.json, recording 1, event 1: has no usable 'event_label'; export it again"),
    ("labels", "a.json", '[{"data": {"text": "x"}}]', "{}/a.json, task 1: names no audio; its data should have the key audio"),
    ("labels", "a.json", json.dumps([{**STUDIO, "annotations": [{"result": []}] * 2}]), "{}/a.json, task 1: has several annotations; mark one of them as ground truth"),
    ("labels", "a.json", '{"recordings": [{"filename": "a"}]}', "{}/a.json, recording 1: has no 'events'; export it again"),
    ("labels", "a.json", '{"recordings": [{"filename": "a", "events": [{}]}]}', "{}/a.json, recording 1, event 1: has no 'onset'; export it again"),
]
# fmt: on
FILES = TABLES + SOUNDS + WEIGHTS + LABELS


def refusal(folder: Path, row) -> str:
    """What a reader says about a row's file, laid in a folder."""
    reader, name, content, _ = row
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if callable(content):
        content(path)
    elif isinstance(content, str | bytes):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError) as caught:
        READERS[reader](path)
    return str(caught.value)


def last_line(folder: Path, row) -> str:
    """What a command leaves on standard error."""
    command, _ = row
    (folder / "a.txt").write_text("0\t1\tDog\n")
    with contextlib.redirect_stderr(io.StringIO()) as error, pytest.raises(SystemExit) as caught:
        main(command.replace("{}", str(folder)).split())
    assert caught.value.code == 1
    return error.getvalue().strip().splitlines()[-1]


def pattern(sentence: str, folder: Path) -> re.Pattern[str]:
    """The whole sentence; ``(...)`` stands for what a library said, which differs between its versions."""
    return re.compile(re.escape(sentence.replace("{}", str(folder))).replace(re.escape("(...)"), r"\(.+\)"))


@pytest.mark.parametrize("row", FILES, ids=lambda row: f"{row[0]}: {row[3][:60]}")
def test_a_file_is_refused_in_one_sentence(tmp_path, row):
    check(refusal(tmp_path, row), row[-1], tmp_path)


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row[0])
def test_a_command_ends_with_one_line(tmp_path, row):
    check(last_line(tmp_path, row), row[-1], tmp_path)


def check(message: str, sentence: str, folder: Path) -> None:
    assert pattern(sentence, folder).fullmatch(message), message
    assert "\n" not in message
    assert len(message.replace(str(folder), "")) < 500
    assert re.search(r"[;:] |\.", sentence)  # what is wrong, and what to do about it


def test_no_kind_is_counted_twice(capsys):
    rows = [(row[0], row[1], str(row[2])) for row in FILES] + [row[:1] for row in COMMANDS]
    assert len(set(rows)) == len(rows) >= 110
    sentences = {(row[0], row[-1]) for row in FILES} | {row[-1] for row in COMMANDS}
    with capsys.disabled():
        print(f" {len(rows)} kinds of bad input, {len(sentences)} sentences")
