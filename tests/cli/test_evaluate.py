import json

import pytest

from pmam_plugin import __version__
from pmam_plugin.checkpoints import save_model
from pmam_plugin.encoders import PatchEncoder
from pmam_plugin.errors import InputError
from pmam_plugin.evaluation import write_scores
from pmam_plugin.features import FrontEnds, LogMel
from pmam_plugin.models import Backbone, FrameDetector, LinearSoftmaxHead
from pmam_plugin.postprocessing import PostProcessing, Scoring
from tests.evaluation.examples import LABELS, events_table, random_set, runs
from tests.support import run, shared


def told(capsys, *arguments):
    """Exit status, standard output and standard error."""
    status = run(*arguments)
    output = capsys.readouterr()
    return status, output.out, output.err


@pytest.fixture
def dataset(tmp_path):
    """A small set on disk: ground truth, durations, detections, scores and operating points."""
    scores, events, durations = random_set(0)
    events.to_csv(tmp_path / "truth.tsv", sep="\t", index=False)
    rows = "".join(f"{name}\t{seconds}\n" for name, seconds in durations.items())
    (tmp_path / "durations.tsv").write_text("filename\tduration\n" + rows)
    write_scores(tmp_path / "scores", scores)
    (tmp_path / "points").mkdir()
    for threshold in (0.25, 0.5, 0.75):
        detections = events_table(
            [
                row
                for clip, table in scores.items()
                for row in runs(table[list(LABELS)].to_numpy() > threshold, 0.1, clip)
            ]
        )
        detections.to_csv(tmp_path / "points" / f"predictions_th_{threshold}.tsv", sep="\t", index=False)
        detections.to_csv(tmp_path / "detections.csv", index=False)
    return tmp_path


def common(folder):
    return ["evaluate", "--ground-truth", folder / "truth.tsv", "--durations", folder / "durations.tsv"]


def test_published_detections_print_the_figures_of_sed_eval(capsys):
    folder = shared("desed_metadata") / "validation"
    status, output, _ = told(
        capsys,
        "evaluate",
        *("--events", shared("published_predictions/predictions0.5.csv")),
        *("--ground-truth", folder / "validation.tsv"),
        *("--durations", folder / "validation_durations.tsv"),
        "--sed-eval",
    )
    assert status == 0
    figures = dict(line.split("\t")[:2] for line in output.splitlines() if line.count("\t") == 2)
    assert figures["event F1, macro"] == "39.87"
    assert figures["event F1, micro"] == "40.95"
    assert figures["segment F1, macro"] == "69.35"  # sed_eval: 69.3526
    assert figures["segment F1, micro"] == "75.47"


@pytest.mark.parametrize(
    ("option", "name", "keys"),
    [
        ("--events", "detections.csv", {"event_f1_macro", "segment_f1_micro", "clip_f1_macro"}),
        ("--scores", "scores", {"psds1", "psds1_mean", "psds2", "event_f1_macro"}),
        ("--operating-points", "points", {"psds1", "psds1_mean", "psds2"}),
    ],
)
def test_each_source_has_its_figures_printed_and_written(capsys, dataset, option, name, keys):
    target = dataset / "figures.json"
    status, output, errors = told(capsys, *common(dataset), option, dataset / name, "--json", target, "--bootstrap", 10)
    assert (status, errors.strip()) == (0, "")
    figures = json.loads(target.read_text())
    assert keys | {f"{key}_ci" for key in keys} <= set(figures)
    for key in keys:
        low, high = figures[f"{key}_ci"]
        assert f"\t{100 * figures[key]:.2f}\t{100 * low:.2f} - {100 * high:.2f}" in output
    assert [line.split("\t")[0] for line in output.splitlines()[-3:]] == list(LABELS)


def test_intervals_can_be_left_out_and_are_repeatable(capsys, dataset):
    arguments = [*common(dataset), "--events", dataset / "detections.csv"]
    assert "interval" not in told(capsys, *arguments, "--bootstrap", 0)[1]
    first, again, other = (told(capsys, *arguments, "--bootstrap", 10, "--seed", seed)[1] for seed in (1, 1, 2))
    assert first == again != other


def test_the_threshold_decides_what_counts(capsys, dataset):
    arguments = [*common(dataset), "--scores", dataset / "scores", "--bootstrap", 0]
    assert "event F1, macro\t0.00" in told(capsys, *arguments, "--threshold", 1.0)[1]
    assert "event F1, macro\t0.00" not in told(capsys, *arguments)[1]


def test_a_model_brings_its_thresholds(capsys, dataset):
    head = LinearSoftmaxHead(4, len(LABELS))
    rule = PostProcessing(threshold={label: 0.3 for label in LABELS})
    backbone = Backbone(FrontEnds(mel=LogMel(n_mels=16)), PatchEncoder(mel_bins=16, dim=4, depth=1, heads=2), None)
    save_model(dataset / "model", FrameDetector(backbone, head, list(LABELS)), Scoring(rule))
    arguments = [*common(dataset), "--scores", dataset / "scores", "--bootstrap", 0]
    own = told(capsys, *arguments, "--model", dataset / "model")
    assert own[0] == 0
    assert own[1] == told(capsys, *arguments, "--threshold", 0.3)[1] != told(capsys, *arguments)[1]


def test_a_terminal_gets_a_drawn_table(capsys, dataset, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    status, output, _ = told(capsys, *common(dataset), "--events", dataset / "detections.csv", "--bootstrap", 0)
    assert status == 0
    assert "event F1, macro" in output
    assert "│" in output or "┃" in output


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["evaluate"],
        ["evaluate", "--ground-truth", "a", "--durations", "b"],
        ["evaluate", "--ground-truth", "a", "--durations", "b", "--events", "c", "--scores", "d"],
        ["evaluate", "--ground-truth", "a", "--durations", "b", "--events", "c", "--bootstrap", "-1"],
        ["evaluate", "--ground-truth", "a", "--durations", "b", "--scores", "c", "--threshold", "high"],
        ["evaluate", "--ground-truth", "a", "--durations", "b", "--events", "c", "--threshold", "0.4"],
        ["evaluate", "--ground-truth", "a", "--durations", "b", "--scores", "c", "--threshold", "0.4", "--model", "d"],
    ],
)
def test_wrong_usage_is_status_two(capsys, arguments):
    status, _, errors = told(capsys, *arguments)
    assert status == 2
    assert "Traceback" not in errors


def test_help_shows_an_example(capsys):
    status, output, _ = told(capsys, "evaluate", "--help")
    assert status == 0
    assert "Example: pmam evaluate --events" in " ".join(output.split())


def test_the_version_is_printed(capsys):
    assert told(capsys, "--version")[:2] == (0, f"pmam {__version__}\n")


def test_a_multi_line_reason_becomes_one_line(capsys, dataset, monkeypatch):
    def fail(path):
        raise InputError("one\n  two")

    monkeypatch.setattr("pmam_plugin.tables.read_events", fail)
    assert told(capsys, *common(dataset), "--events", "x")[2] == "error: one two\n"
