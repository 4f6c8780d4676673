import functools
import shutil
import threading
from typing import ClassVar

import pytest

from pmam_plugin.config import configurable
from pmam_plugin.files import write_json
from pmam_plugin.stages.prepare import without
from pmam_plugin.stages.runner import RunContext, StageResult, describe, run_stages


class Killed(Exception):
    pass


@configurable
class Count:
    """Writes how often it ran; may die half-way."""

    always = False
    runs: ClassVar[dict[str, int]] = {}

    def __init__(self, name: str, value: int = 0) -> None:
        self.name, self.folder, self.value = name, f"stages/{name}", value

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


def run(folder, stages, seed=0):
    return run_stages(stages, RunContext(folder, seed, {}))


def test_finished_stages_are_skipped(tmp_path):
    stages = [Count("a"), [Count("b"), Count("c")]]
    first = run(tmp_path, stages)
    again = run(tmp_path, stages)
    assert Count.runs == {"a": 1, "b": 1, "c": 1}
    assert [record.skipped for record in again] == [True] * 3
    assert [record.notes for record in again] == [record.notes for record in first]


def test_a_change_redoes_its_stage_and_all_after_it(tmp_path):
    run(tmp_path, [Count("a"), Count("b"), Count("c")])
    run(tmp_path, [Count("a"), Count("b", value=1), Count("c")])
    assert Count.runs == {"a": 1, "b": 2, "c": 2}


def test_another_seed_redoes_everything(tmp_path):
    run(tmp_path, [Count("a")])
    run(tmp_path, [Count("a")], seed=1)
    assert Count.runs == {"a": 2}


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
        run(tmp_path, [Count("die", value=2)])
    run(tmp_path, [Count("die", value=3)])
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
