"""Every kind of input that cannot be used is refused in one sentence: what, where, and what to do about it.

A row of ``tests/bad_inputs`` is a kind: who reads it, the file, its content (None: there is none; a function makes it),
and the sentence that the user sees.
"""

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch

from pmam_plugin.audio import read_audio
from pmam_plugin.checkpoints import load_model
from pmam_plugin.checkpoints.atst import import_atst_frame, import_atst_sed, load_atst_frame
from pmam_plugin.checkpoints.beats import import_beats
from pmam_plugin.checkpoints.foreign import read_checkpoint
from pmam_plugin.checkpoints.passt import import_passt
from pmam_plugin.checkpoints.pretrained_sed import import_pretrained_sed, load_pretrained_sed
from pmam_plugin.checkpoints.sedt import import_sedt, import_sedt_tagger, import_sp_sedt, read_band_statistics
from pmam_plugin.checkpoints.yamnet import import_detector, import_yamnet
from pmam_plugin.cli import main
from pmam_plugin.data import prepare
from pmam_plugin.data.annotated import lay_out
from pmam_plugin.data.corpora import CORPORA as CORPUS_READERS, hugging_face, webdataset
from pmam_plugin.data.survey import survey_folder
from pmam_plugin.encoders import ATSTFrame
from pmam_plugin.errors import InputError
from pmam_plugin.tables import read_durations, read_events, read_weak
from pmam_plugin.tables.formats import read_annotations
from pmam_plugin.tables.scores import read_operating_points, read_scores
from tests.bad_inputs.checkpoints import IMPORTS, MODELS, WEIGHTS
from tests.bad_inputs.commands import COMMANDS
from tests.bad_inputs.corpora import CORPORA
from tests.bad_inputs.sounds import SOUNDS
from tests.bad_inputs.tables import EVENTS, LABELS, SCORES, SECONDS, TABLES

READERS = {
    "events": read_events,
    "weak": read_weak,
    "durations": read_durations,
    "labels": read_annotations,
    "scores": lambda path: read_scores(path.parent),
    "points": lambda path: read_operating_points(path.parent),
    "sound": lambda path: read_audio(path, 16000),
    "weights": read_checkpoint,
    "model": lambda path: load_model(path.parent),
    "folder": load_model,
    "passt": import_passt,
    "atst-frame": import_atst_frame,
    "atst-frame into a narrower one": lambda path: load_atst_frame(ATSTFrame(dim=64, depth=2, heads=2), path),
    "atst-frame into a deeper one": lambda path: load_atst_frame(ATSTFrame(dim=128, depth=3, heads=2), path),
    "atst-sed": import_atst_sed,
    "beats": import_beats,
    "pretrained-sed": import_pretrained_sed,
    "fPaSST into ATST-Frame": lambda path: load_pretrained_sed(ATSTFrame(dim=64, depth=1, heads=1), path),
    "sedt": lambda path: import_sedt(path, ["a", "b", "c"]),
    "sedt of two classes": lambda path: import_sedt(path, ["a", "b"]),
    "sedt's teacher": lambda path: import_sedt(path, ["a", "b", "c"], teacher=True),
    "sp-sedt": import_sp_sedt,
    "sedt's tagger": import_sedt_tagger,
    "sedt's statistics": read_band_statistics,
    "yamnet": import_yamnet,
    "yamnet's classes": import_detector,
    "yamnet of two classes": lambda path: import_detector(path, ["a", "b"]),
    "prepare": lambda path: prepare(path, path.parent / "out", clip_seconds=1.0, max_unreadable=0.1),
    "survey": lambda path: survey_folder(path, 0.08),
    "lay out": lambda path: lay_out(survey_folder(path, 0.08), path.parent / "out"),
    **CORPUS_READERS,
    "webdataset's tags": lambda path: webdataset(path, "tags"),
    "hugging-face": lambda path: hugging_face(path, path.parent / "out"),
    "hugging-face's tags": lambda path: hugging_face(path, path.parent / "out", labels="tags"),
}
FILES = [*TABLES, *LABELS, *SOUNDS, *WEIGHTS, *MODELS, *IMPORTS, *CORPORA]


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


def last_line(folder: Path, command: str) -> str:
    """What a command leaves on standard error."""
    (folder / "s").mkdir()
    (folder / "a.txt").write_text("0\t1\tDog\n")
    (folder / "e.tsv").write_text(EVENTS + "a\t0\t1\tDog\n")
    (folder / "d.tsv").write_text(SECONDS + "a\t1\n")
    (folder / "s" / "a.tsv").write_text(SCORES + "0\t1\t0.5\n")
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


@pytest.mark.parametrize(("command", "sentence"), COMMANDS, ids=lambda row: row[:60])
def test_a_command_ends_with_one_line(tmp_path, command, sentence):
    check(last_line(tmp_path, command), sentence, tmp_path)


def check(message: str, sentence: str, folder: Path) -> None:
    assert pattern(sentence, folder).fullmatch(message), message
    assert "\n" not in message
    assert len(message.replace(str(folder), "")) < 500
    assert re.search(r"[;:] |\.", sentence)  # what is wrong, and what to do about it


def test_no_kind_is_counted_twice(capsys):
    rows = [(row[0], row[1], str(row[2])) for row in FILES] + [row[:1] for row in COMMANDS]
    assert len(set(rows)) == len(rows) >= 350
    sentences = {(row[0], row[-1]) for row in FILES} | {row[-1] for row in COMMANDS}
    with capsys.disabled():
        print(f" {len(rows)} kinds of bad input, {len(sentences)} sentences")
