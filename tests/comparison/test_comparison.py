"""``pmam compare`` with a recipe that trains nothing, and with the recipe itself."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import speechbrain as sb
import yaml
from hypothesis import given, strategies as st
from scipy import stats
from typer.testing import CliRunner

from pmam_plugin.cli import app
from pmam_plugin.comparison import load_comparison, training
from pmam_plugin.comparison.statistics import gain, half_width, mean
from pmam_plugin.errors import InputError
from pmam_plugin.stages.experiment import build_experiment, lay_over, read_experiment
from tests.recipes.tiny import SETTINGS, tiny_corpus
from tests.support import ROOT

RECIPE = """
import json, sys
from pathlib import Path
flags = dict(zip(sys.argv[2::2], sys.argv[3::2]))
seed, strength = int(flags["--seed"]), float(flags.get("--strength", 0))
print("training with", flags)
if seed == int(flags.get("--fails_with", -1)):
    sys.exit("error: the disk is full")
folder = Path(flags["--output_folder"])
folder.mkdir(parents=True, exist_ok="--overwrite" in sys.argv)
names = ("psds1_mean", "psds1", "psds2", "event_f1_macro", "segment_f1_macro", "clip_f1_macro")
figures = {name: 0.1 * seed + strength for name in names}
worse = {name: value / 2 for name, value in figures.items()}
content = {"selected": "teacher", "test": {"teacher": figures, "student": worse}, "segments": {}}
if flags["--boxes"] == "true":
    content["segments"] = {"teacher": figures, "student": worse}
content["stages"] = {"prepare": {"seconds": 1.0}, "finetune_1": {"seconds": 4.0, "updates": 30}}
content["stages"]["estep_1"] = {"seconds": 0.0, "entropy": 0.25, "active": 3, "cosine": 0.5}
record = {"stage": "finetune_1", "fingerprint": str(seed), "seconds": 4.0, "notes": {"updates": 30}}
record["curves"] = {"teacher_psds2": [[15, strength], [30, 0.1 * seed + strength]]}
(folder / "stages/finetune_1").mkdir(parents=True, exist_ok=True)
(folder / "stages/finetune_1/record.json").write_text(json.dumps(record))
(folder / "metrics.json").write_text(json.dumps(content))
"""
COMPARISON = {
    "title": "weak and strong",
    "control": "weak",
    "rows": [
        {"name": "weak", "hparams": "weak.yaml", "overrides": {"boxes": True}},
        {"name": "strong", "hparams": "strong.yaml", "overrides": {"strength": 0.05, "boxes": False}},
        {"name": "student", "hparams": "weak.yaml", "overrides": {"boxes": True}, "candidate": "student"},
    ],
}


class Bench:
    """The command with a recipe that trains nothing."""

    def __init__(self, folder: Path) -> None:
        self.output, self.script, self.data = folder / "out", folder / "train.py", folder
        self.script.write_text(RECIPE)
        (folder / "pair.yaml").write_text(yaml.safe_dump(COMPARISON, sort_keys=False))
        self.printed = ""

    def __call__(self, *flags: str) -> int:
        always = ["compare", str(self.data / "pair.yaml"), "--data-folder", str(self.data), "--out", str(self.output)]
        result = CliRunner().invoke(app, [*always, *flags])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        self.printed = result.output
        return result.exit_code

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.output / "summary.json").read_text())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)
    monkeypatch.setattr(training, "recipe", lambda: made.script)
    return made


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_the_interval_is_students(values: list[float]) -> None:
    half = half_width(values)
    error = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    if error < 1e-12:
        assert half == pytest.approx(0.0, abs=1e-10)
        return
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=error)
    assert mean(values) - half == pytest.approx(low)
    assert mean(values) + half == pytest.approx(high)


def test_one_seed_has_no_interval() -> None:
    assert math.isnan(half_width([0.5]))


def test_gains_are_paired_by_seed() -> None:
    values, base = {1: 0.3, 2: 0.5, 3: 0.6, 4: 0.9}, {3: 0.5, 1: 0.2, 2: 0.3}
    found = gain(values, base)
    assert found["differences"] == pytest.approx({1: 0.1, 2: 0.2, 3: 0.1})
    assert found["relative"] == pytest.approx((0.3 + 0.5 + 0.6) / (0.2 + 0.3 + 0.5) - 1)
    paired = stats.ttest_rel([0.3, 0.5, 0.6], [0.2, 0.3, 0.5]).confidence_interval(0.95)
    assert found["difference"] - found["half_width"] == pytest.approx(paired.low)
    assert found["difference"] + found["half_width"] == pytest.approx(paired.high)
    assert gain({1: 0.3}, {2: 0.3}) is None


def test_a_comparison_trains_every_row_and_prints_a_table(bench: Bench) -> None:
    assert bench("--seeds", "1,2,3", "--jobs", "2", "--device", "cpu") == 0
    rows = bench.summary["rows"]
    strong, weak = rows["strong"]["test"]["psds2"], rows["weak"]["test"]["psds2"]
    assert weak["mean"] == pytest.approx(0.2)
    assert strong["gains"]["weak"]["relative"] == pytest.approx(0.25)
    assert strong["gains"]["weak"]["half_width"] == pytest.approx(0.0, abs=1e-9)
    assert "segments" in rows["weak"]
    assert "segments" not in rows["strong"]
    assert rows["student"]["test"]["psds2"]["mean"] == pytest.approx(0.1)
    assert rows["weak"]["seconds"] == 5.0
    assert rows["weak"]["updates"] == [30]
    assert rows["weak"]["diagnostics"] == {"entropy": 0.25, "active": 3, "cosine": 0.5}
    assert bench.summary["hours"] == pytest.approx(3 * 4.0 / 3600)  # one fingerprint per seed, whatever the row
    assert "20.00 ± 24.84" in bench.printed
    assert "+5.00 ± 0.00 (+25.0 %) on weak" in bench.printed
    log = (bench.output / "strong" / "2.log").read_text()
    assert "'--strength': '0.05'" in log
    assert "'--device': 'cpu'" in log
    assert (bench.output / "summary.md").read_text() in bench.printed


def test_the_page_stands_alone_and_shows_intervals_differences_and_curves(bench: Bench) -> None:
    assert bench("--seeds", "1,2") == 0
    page = (bench.output / "summary.html").read_text()
    assert not re.search(r"""(src|href)=["']?https?:""", page)
    assert page.count("<b>+5.00 ± 0.00 (+33.3 %) on weak</b>") == 6  # each metric; bold: the interval is above zero
    assert "<b>-7.50 ± 31.77 (-50.0 %) on weak</b>" not in page
    assert "-7.50 ± 31.77 (-50.0 %) on weak" in page
    luck = "6 of 18 differences have an interval without zero, 0.9 would if nothing differed"
    assert luck in page
    assert f"± 95 % t-interval. {luck}." in bench.printed
    assert page.count("Against updates") == 1
    assert "strength: 0.05" in page


def test_finished_runs_are_only_read(bench: Bench) -> None:
    bench("--seeds", "1,2", "--row", "weak")
    logs = sorted(bench.output.rglob("*.log"))
    before = [path.stat().st_mtime_ns for path in logs]
    assert bench("--seeds", "1,2", "--row", "weak") == 0
    assert [path.stat().st_mtime_ns for path in logs] == before
    assert "| weak, test | 15.00 ± 63.53 |" in bench.printed
    assert "would if nothing differed" not in bench.printed  # no row is held against another


def test_a_failed_run_is_shown_and_the_others_go_on(bench: Bench) -> None:
    assert bench("--seeds", "1,2", "--set", "fails_with=2") == 1
    assert bench.printed.count("the disk is full") == 3
    assert bench.summary["rows"]["weak"]["missing_seeds"] == [2]
    assert list(bench.summary["rows"]["strong"]["test"]["psds2"]["values"]) == ["1"]


def test_figures_of_other_settings_are_not_taken(bench: Bench) -> None:
    bench("--seeds", "1", "--row", "strong")
    assert bench("--seeds", "1", "--row", "strong", "--set", "strength=0.5") == 1
    assert "trained with other settings" in bench.printed
    assert bench.summary["rows"]["strong"]["test"]["psds2"]["mean"] == pytest.approx(0.15)
    assert bench("--seeds", "1", "--row", "strong", "--set", "strength=0.5", "--overwrite") == 0
    assert bench.summary["rows"]["strong"]["test"]["psds2"]["mean"] == pytest.approx(0.6)


def test_settings_in_another_order_are_the_same(bench: Bench) -> None:
    bench("--seeds", "1", "--row", "weak", "--set", "strength=0.5", "--set", "fails_with=2")
    log = bench.output / "weak" / "1.log"
    before = log.stat().st_mtime_ns
    assert bench("--seeds", "1", "--row", "weak", "--set", "fails_with=2", "--set", "strength=0.5") == 0
    assert log.stat().st_mtime_ns == before
    assert bench("--seeds", "1", "--row", "weak", "--set", "fails_with=0.5", "--set", "strength=2") == 1
    assert "trained with other settings" in bench.printed


def test_only_table_trains_nothing(bench: Bench) -> None:
    assert bench("--only-table", "--seeds", "1") == 0
    assert bench.summary["rows"]["weak"]["missing_seeds"] == [1]


def test_older_runs_call_the_test_set_validation(bench: Bench) -> None:
    bench("--seeds", "1", "--row", "weak")
    path = bench.output / "weak/1/metrics.json"
    content = json.loads(path.read_text())
    content["validation"] = content.pop("test")
    path.write_text(json.dumps(content))
    assert bench("--seeds", "1", "--row", "weak") == 0
    assert bench.summary["rows"]["weak"]["test"]["psds2"]["mean"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baselnie": "weak"}, "no use for 'baselnie'"),
        ({"control": "week"}, "'week' is to be compared with, but is no row"),
        ({"rows": [*COMPARISON["rows"], {"name": "Weak", "hparams": "x.yaml"}]}, "same name"),
        ({"rows": [{"name": "weak", "hparams": "x.yaml", "seed": 1}]}, "row 'weak' has no use for 'seed'"),
        ({"rows": [{"name": "weak"}]}, "row 'weak' names no experiment"),
        (
            {"rows": [{"name": "weak", "hparams": "x.yaml", "overrides": {"a": {"b": "!new:c.D"}}}]},
            "within 'a' would stay",
        ),
        ({"rows": "weak"}, "needs a title and rows"),
    ],
)
def test_a_wrong_comparison_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({**COMPARISON, **change}))
    with pytest.raises(InputError, match=message):
        load_comparison(path)


def test_what_all_rows_share_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "shared.yaml"
    rows = [{"name": "a"}, {"name": "b", "overrides": {"x": 2, "y": 3}, "hparams": "other.yaml"}]
    path.write_text(yaml.safe_dump({"title": "t", "hparams": "one.yaml", "overrides": {"x": 1}, "rows": rows}))
    first, second = load_comparison(path, overrides={"z": 4}, seeds=[7]).rows
    assert (first.hparams, first.overrides) == ("one.yaml", {"x": 1, "z": 4})
    assert (second.hparams, second.overrides) == ("other.yaml", {"x": 2, "y": 3, "z": 4})


@pytest.mark.parametrize("path", sorted((ROOT / "comparisons").glob("*.yaml")), ids=lambda path: path.stem)
def test_comparisons_change_what_their_experiments_have(path: Path) -> None:
    for row in load_comparison(path).rows:
        text = read_experiment(ROOT / row.hparams)
        assert set(row.overrides) <= set(re.findall(r"^(\w+):", text, re.M)), row.name
        assert all(name.split("_")[0] in text for name in row.skip_stages or ()), row.name
        if "!new:" in str(row.overrides):
            argv = [*row.arguments(), "--data_folder", "anywhere", "--labels", "[a, b]"]
            file, _, overrides = sb.parse_arguments(argv)
            build_experiment(lay_over(text, overrides, file), file)


def test_rows_share_stages_and_embeddings_in_earnest(tmp_path: Path) -> None:
    """The recipe itself: one row softens the posteriors of the other, so both cluster the same embeddings."""
    corpus = tiny_corpus(tmp_path / "corpus")
    settings = {
        "title": "softer",
        "hparams": "hparams/pmam_small.yaml",
        "overrides": {**SETTINGS, "iterations": 1, "finetune_1_epochs": 1, "finetune_2_epochs": 1},
        "metrics": ["psds1_mean"],
        "rows": [
            {"name": "hard"},
            {"name": "soft", "overrides": {"posterior_temperature": 4.0}, "against": ["hard"]},
            {"name": "hard again, tuned longer", "overrides": {"finetune_2_epochs": 2}},
        ],
    }
    settings["overrides"].pop("seed")
    (tmp_path / "softer.yaml").write_text(yaml.safe_dump(settings))
    out = tmp_path / "out"
    always = ["compare", str(tmp_path / "softer.yaml"), "--data-folder", str(corpus), "--out", str(out)]
    result = CliRunner().invoke(app, [*always, "--seeds", "5", "--threads", "1"])
    assert result.exit_code == 0, result.output
    assert len(list((out / "shared/embeddings").iterdir())) == 1
    logs = [(out / row / "5.log").read_text() for row in ("hard", "soft", "hard_again_tuned_longer")]
    assert [log.count("done by another run, taken over") for log in logs] == [0, 0, 3]  # E-step, pre-training, heads
    rows = json.loads((out / "summary.json").read_text())["rows"]
    assert rows["soft"]["diagnostics"]["entropy"] > rows["hard"]["diagnostics"]["entropy"]
    assert rows["hard"]["diagnostics"] == rows["hard again, tuned longer"]["diagnostics"]
