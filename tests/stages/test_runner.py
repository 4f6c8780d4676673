import functools
import shutil
import threading
from typing import ClassVar

import pytest

from pmam_plugin.config import configurable
from pmam_plugin.errors import InputError
from pmam_plugin.files import write_json
from pmam_plugin.stages.context import RunContext, Stage, StageResult
from pmam_plugin.stages.runner import run_stages
from pmam_plugin.stages.settings import describe, without


class Killed(Exception):
    pass


@configurable
class Count(Stage):
    """Writes how often it ran; may die half-way."""

    runs: ClassVar[dict[str, int]] = {}

    def __init__(self, name: str, value: int = 0) -> None:
        self.name, self.value = name, value

    def run(self, context, folder):
        Count.runs[self.name] = Count.runs.get(self.name, 0) + 1
        partial = folder / "partial.json"
        seen = partial.exists()
        write_json(partial, {"value": self.value})
        if Count.runs[self.name] == 1 and "die" in self.name:
            raise Killed
        write_json(folder / "result.json", {"value": self.value, "resumed": seen})
        return StageResult({self.name: folder / "result.json"}, {"value": self.value})


@pytest.fixture(autouse=True)
def _fresh():
    Count.runs = {}


def run(folder, stages, seed=0, overwrite=False):
    return run_stages(stages, RunContext(folder, seed, {}), overwrite)


def test_finished_stages_are_skipped(tmp_path):
    stages = [Count("a"), [Count("b"), Count("c")]]
    first = run(tmp_path, stages)
    again = run(tmp_path, stages)
    assert Count.runs == {"a": 1, "b": 1, "c": 1}
    assert [record.skipped for record in again] == [True] * 3
    assert [record.notes for record in again] == [record.notes for record in first]


@configurable
class Data(Count):
    """Prepares data: what trains depends on one part of them, what reports on another."""

    always = True
    found: ClassVar[dict[str, str]] = {"token": "a", "test_token": "b"}

    def __init__(self, value=0, data_folder="here", test="validation"):
        super().__init__("data", value)

    def run(self, context, folder):
        super().run(context, folder)
        return StageResult(**Data.found)


@configurable
class Figures(Count):
    """Reports on the test set, outside its folder."""

    reports = True

    def run(self, context, folder):
        result = super().run(context, folder)
        shutil.copy(folder / "result.json", context.folder / "metrics.json")
        return StageResult({**result.artifacts, "metrics.json": context.folder / "metrics.json"})


@configurable
class Nested(Count):
    def __init__(self, name, value=0, plan=None):
        super().__init__(name, value)
        self.plan = plan


def everything_below(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda: [Data(), Count("a"), Nested("b", 1, {"epochs": 3}), Count("c")],
            r"b was run with b\.value: 0, now 1;",
        ),
        (lambda: [Data(), Count("a"), Nested("b", 0, {"epochs": 4}), Count("c")], "b.plan.epochs: 3, now 4;"),
        (
            lambda: [Data(), Nested("b", 0, {"epochs": 3}), Count("c")],
            r"b was run with after\S*: \[.*\], now \[.data.\];",
        ),
        (
            lambda: [Data(value=1), Count("a"), Nested("b", 0, {"epochs": 3}), Count("c")],
            "a .* data.value: the default, now 1;",
        ),
        (None, "a was run on other data"),
    ],
)
def test_a_change_that_would_delete_a_finished_stage_is_refused_and_named(tmp_path, monkeypatch, change, sentence):
    stages = [Data(), Count("a"), Nested("b", 0, {"epochs": 3}), Count("c")]
    run(tmp_path, stages)
    if change is None:
        monkeypatch.setitem(Data.found, "token", "other")
    before = {path: text for path, text in everything_below(tmp_path).items() if "stages/data" not in str(path)}
    with pytest.raises(InputError, match=sentence) as refusal:
        run(tmp_path, stages if change is None else change())
    assert "--overwrite" in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)
    after = everything_below(tmp_path)
    assert {path: after.get(path) for path in before} == before
    assert {Count.runs[name] for name in "abc"} == {1}


def test_overwritten_are_a_changed_stage_and_all_after_it(tmp_path):
    run(tmp_path, [Count("a"), Count("b"), Count("c")])
    run(tmp_path, [Count("a"), Count("b", value=1), Count("c")], overwrite=True)
    assert Count.runs == {"a": 1, "b": 2, "c": 2}


def test_another_seed_redoes_everything_if_it_may(tmp_path):
    run(tmp_path, [Count("a")])
    with pytest.raises(InputError, match=r"a was run with run\.seed: 0, now 1"):
        run(tmp_path, [Count("a")], seed=1)
    run(tmp_path, [Count("a")], seed=1, overwrite=True)
    assert Count.runs == {"a": 2}


def test_the_test_set_is_a_matter_of_the_figures_alone(tmp_path, monkeypatch):
    run(tmp_path, [Data(), Count("train"), Figures("figures")])
    monkeypatch.setitem(Data.found, "test_token", "c")
    for other in (Data(test="public"), Data()):
        with pytest.raises(InputError, match="figures was run"):
            run(tmp_path, [other, Count("train"), Figures("figures")])
    run(tmp_path, [Data(test="public"), Count("train"), Figures("figures")], overwrite=True)
    assert (Count.runs["train"], Count.runs["figures"]) == (1, 2)
    # A corpus that has been moved is the same corpus.
    run(tmp_path, [Data(data_folder="there", test="public"), Count("train"), Figures("figures")])
    assert (Count.runs["train"], Count.runs["figures"]) == (1, 2)


def test_no_version_of_the_package_is_a_reason_to_train_again(tmp_path, monkeypatch):
    run(tmp_path, [Count("a")])
    monkeypatch.setattr("pmam_plugin.__version__", "99.0")
    assert [record.skipped for record in run(tmp_path, [Count("a")])] == [True]


def test_figures_of_other_settings_do_not_outlive_what_they_rest_on(tmp_path):
    """A run that is killed while it trains anew holds nothing that could be taken for its own."""
    run(tmp_path, [Count("a"), Count("b"), Figures("figures")])
    dying = Count("b", value=1)
    dying.run = lambda context, folder: Count("die").run(context, folder)
    with pytest.raises(Killed):
        run(tmp_path, [Count("a"), dying, Figures("figures")], overwrite=True)
    assert (tmp_path / "stages/a/result.json").exists()
    assert not (tmp_path / "stages/figures").exists()
    assert not (tmp_path / "metrics.json").exists()


def test_what_cannot_work_is_refused_before_anything_takes_long(tmp_path):
    class Picky(Count):
        def check(self, context):
            raise InputError("not with these data")

    with pytest.raises(InputError, match="not with these data"):
        run(tmp_path, [Data(), Count("a"), Picky("b")])
    assert Count.runs == {"data": 1}


def test_a_lost_result_is_made_again(tmp_path):
    run(tmp_path, [Count("a")])
    (tmp_path / "stages/a/result.json").unlink()
    run(tmp_path, [Count("a")])
    assert Count.runs == {"a": 2}


def test_a_killed_stage_finds_its_files_but_not_those_of_other_settings(tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, [Count("die")])
    run(tmp_path, [Count("die")])
    assert '"resumed": true' in (tmp_path / "stages/die/result.json").read_text()
    Count.runs = {}
    with pytest.raises(Killed):
        run(tmp_path, [Count("die", value=2)], overwrite=True)
    with pytest.raises(InputError, match=r"die\.value: 2, now 3"):
        run(tmp_path, [Count("die", value=3)])
    run(tmp_path, [Count("die", value=3)], overwrite=True)
    assert '"resumed": false' in (tmp_path / "stages/die/result.json").read_text()


def test_artifacts_reach_later_stages_even_when_skipped(tmp_path):
    seen = []

    class Look(Count):
        def run(self, context, folder):
            seen.append(context.artifacts["a"].exists())
            return super().run(context, folder)

    run(tmp_path, [Count("a")])
    run(tmp_path, [Count("a"), Look("b")])
    assert seen == [True]


def test_descriptions_cover_partials_and_plain_objects():
    first = describe(functools.partial(Count, name="a", value=1))
    assert first == describe(functools.partial(Count, name="a", value=1))
    assert first != describe(functools.partial(Count, name="a", value=2))
    with pytest.raises(TypeError):
        describe(object())


def test_left_out_stages_must_exist():
    stages = [Count("a"), [Count("b")]]
    assert [stage.name for stage in without(stages, ["a"])] == ["b"]
    with pytest.raises(ValueError, match="names 'z'; the stages are a, b"):
        without(stages, ["z"])


def test_what_runs_have_in_common_is_run_once(tmp_path):
    def shared(name, stages):
        return run_stages(stages, RunContext(tmp_path / name, 0, {}, shared=tmp_path / "shared"))

    first = shared("first", [Count("a"), Count("b", value=1), Count("c")])
    second = shared("second", [Count("a"), Count("b", value=2), Count("c")])
    third = shared("third", [Count("a"), Count("b", value=1), Count("c", value=3)])
    assert Count.runs == {"a": 1, "b": 2, "c": 3}
    assert [record.skipped for record in second] == [False] * 3  # its own results, though others' work
    assert (tmp_path / "second/stages/a/result.json").read_text() == (
        tmp_path / "first/stages/a/result.json"
    ).read_text()
    assert third[1].seconds == first[1].seconds
    # What was taken over stays when its owner is deleted.
    shutil.rmtree(tmp_path / "first")
    assert all(record.skipped for record in shared("second", [Count("a"), Count("b", value=2), Count("c")]))
    shared("fourth", [Count("a"), Count("b", value=1), Count("c")])
    assert Count.runs["a"] == 2


def test_two_runs_at_once_wait_for_each_other(tmp_path):
    """The second comes to the stage while the first is at it, and finds it done."""
    started, order = threading.Event(), []

    class Slow(Count):
        def run(self, context, folder):
            started.set()
            order.append(context.folder.name)
            threading.Event().wait(0.3)
            return super().run(context, folder)

    def shared(name):
        run_stages([Slow("slow")], RunContext(tmp_path / name, 0, {}, shared=tmp_path / "shared"))

    first = threading.Thread(target=shared, args=("first",))
    first.start()
    assert started.wait(10)
    shared("second")
    first.join()
    assert order == ["first"]
    assert (tmp_path / "second/stages/slow/result.json").exists()
