import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

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
folder.mkdir(parents=True)
names = ("psds1_mean", "psds1", "psds2", "event_f1_macro", "segment_f1_macro", "clip_f1_macro")
figures = {name: 0.1 * seed + strength for name in names}
worse = {name: value / 2 for name, value in figures.items()}
content = {"selected": "teacher", "validation": {"teacher": figures, "student": worse}, "segments": {}}
if flags["--boxes"] == "true":
    content["segments"] = {"teacher": figures, "student": worse}
content["stages"] = {"prepare": {"seconds": 1.0}, "finetune_1": {"seconds": 4.0, "updates": 30}}
(folder / "metrics.json").write_text(json.dumps(content))
"""
COMPARISON = {
    "title": "weak and strong",
    "baseline": "weak",
    "rows": [
        {"name": "weak", "hparams": "weak.yaml", "overrides": {"boxes": True}},
        {"name": "strong", "hparams": "strong.yaml", "overrides": {"strength": 0.05, "boxes": False}},
        {"name": "student", "hparams": "weak.yaml", "overrides": {"boxes": True}, "candidate": "student"},
    ],
}


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare", ROOT / "benchmarks" / "compare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare"] = module
    spec.loader.exec_module(module)
    return module


class Bench:
    """The command with a recipe that trains nothing."""

    def __init__(self, compare: ModuleType, folder: Path, content: dict[str, Any]) -> None:
        self.compare, self.output, self.script = compare, folder / "out", folder / "train.py"
        self.script.write_text(RECIPE)
        (folder / "pair.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        self.data = folder

    def __call__(self, *flags: str) -> int:
        always = ["pair", "--data_folder", str(self.data), "--output", str(self.output)]
        return self.compare.main([*always, *flags], self.script)

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.output / "summary.json").read_text())


@pytest.fixture
def bench(compare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(compare, "COMPARISONS", tmp_path)
    return Bench(compare, tmp_path, COMPARISON)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_the_interval_is_students(compare: ModuleType, values: list[float]) -> None:
    half = compare.half_width(values)
    error = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    if error < 1e-12:
        assert half == pytest.approx(0.0, abs=1e-10)
        return
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=error)
    assert compare.mean(values) - half == pytest.approx(low)
    assert compare.mean(values) + half == pytest.approx(high)


def test_one_seed_has_no_interval(compare: ModuleType) -> None:
    assert math.isnan(compare.half_width([0.5]))


def test_gains_are_paired_by_seed(compare: ModuleType) -> None:
    values, base = {1: 0.3, 2: 0.5, 3: 0.6, 4: 0.9}, {3: 0.5, 1: 0.2, 2: 0.3}
    found = compare.gain(values, base)
    assert found["differences"] == pytest.approx({1: 0.1, 2: 0.2, 3: 0.1})
    assert found["relative"] == pytest.approx((0.3 + 0.5 + 0.6) / (0.2 + 0.3 + 0.5) - 1)
    paired = stats.ttest_rel([0.3, 0.5, 0.6], [0.2, 0.3, 0.5]).confidence_interval(0.95)
    assert found["difference"] - found["half_width"] == pytest.approx(paired.low)
    assert found["difference"] + found["half_width"] == pytest.approx(paired.high)
    assert compare.gain({1: 0.3}, {2: 0.3}) is None


def test_a_comparison_trains_every_row_and_prints_a_table(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--seeds", "1", "2", "3", "--jobs", "2", "--device", "cpu") == 0
    printed = capsys.readouterr().out
    rows = bench.summary["rows"]
    strong, weak = rows["strong"]["validation"]["psds2"], rows["weak"]["validation"]["psds2"]
    assert weak["mean"] == pytest.approx(0.2)
    assert strong["gains"]["weak"]["relative"] == pytest.approx(0.25)
    assert strong["gains"]["weak"]["half_width"] == pytest.approx(0.0, abs=1e-9)
    assert "segments" in rows["weak"]
    assert "segments" not in rows["strong"]
    assert rows["student"]["validation"]["psds2"]["mean"] == pytest.approx(0.1)
    assert rows["weak"]["seconds"] == 5.0
    assert rows["weak"]["updates"] == [30]
    assert "20.00 ± 24.84" in printed
    assert "+25.0 %, +5.00 ± 0.00 points on weak" in printed
    log = (bench.output / "strong" / "2.log").read_text()
    assert "'--strength': '0.05'" in log
    assert "'--device': 'cpu'" in log


def test_finished_runs_are_only_read(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench("--seeds", "1", "2", "--rows", "weak")
    logs = sorted(bench.output.rglob("*.log"))
    before = [path.stat().st_mtime_ns for path in logs]
    assert bench("--seeds", "1", "2", "--rows", "weak", "--markdown") == 0
    assert [path.stat().st_mtime_ns for path in logs] == before
    assert "| weak, median filter | 15.00 ± 63.53 |" in capsys.readouterr().out


def test_a_failed_run_is_shown_and_the_others_go_on(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--seeds", "1", "2", "--set", "fails_with", "2") == 1
    printed = capsys.readouterr().out
    assert printed.count("the disk is full") == 3
    assert bench.summary["rows"]["weak"]["missing_seeds"] == [2]
    assert list(bench.summary["rows"]["strong"]["validation"]["psds2"]["values"]) == ["1"]


def test_figures_of_other_settings_are_not_taken(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench("--seeds", "1", "--rows", "strong")
    assert bench("--seeds", "1", "--rows", "strong", "--set", "strength", "0.5") == 1
    assert "trained with other settings" in capsys.readouterr().out


def test_only_table_trains_nothing(bench: Bench) -> None:
    assert bench("--only-table", "--seeds", "1") == 0
    assert bench.summary["rows"]["weak"]["missing_seeds"] == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baselnie": "weak"}, "no use for 'baselnie'"),
        ({"baseline": "week"}, "'week' is to be compared with, but is no row"),
        ({"rows": [*COMPARISON["rows"], {"name": "Weak", "hparams": "x.yaml"}]}, "same name"),
        ({"rows": [{"name": "weak", "hparams": "x.yaml", "seed": 1}]}, "row 'weak' has no use for 'seed'"),
    ],
)
def test_a_wrong_comparison_is_refused(
    compare: ModuleType, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({**COMPARISON, **change}))
    with pytest.raises(ValueError, match=message):
        compare.load_comparison(path)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks" / "comparisons").glob("*.yaml")), ids=lambda path: path.stem
)
def test_comparisons_override_what_their_recipes_have(compare: ModuleType, path: Path) -> None:
    comparison = compare.load_comparison(path)
    for row in comparison.rows:
        text = (ROOT / row.hparams).read_text()
        keys = {line.split(":")[0] for line in text.splitlines() if line[:1].isalpha() or line[:1] == "_"}
        assert set(row.overrides) <= keys, row.name
        stages = row.skip_stages or ()
        assert all(name.split("_")[0] in text for name in stages), row.name
