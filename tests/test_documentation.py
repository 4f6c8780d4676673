"""README.md and docs/ tell the truth: every code block runs, every link and name leads somewhere.

How blocks are run, and what runs small or only in part, is said in tests/documentation_runner.py. Pages share a
workspace that is made once: a tiny corpus, what ``make demo`` leaves (the recipe at tiny size), recordings, checkpoints
in published layouts, and a small Hub on the loopback device. Every page gets a fresh copy of it.
"""

from __future__ import annotations

import ast
import itertools
import os
import re
import shutil
import sys
from importlib.metadata import metadata

import datasets
import numpy as np
import pytest
import soundfile
import torch
import typer.main

from pmam_plugin.cli import app
from tests.checkpoints.beats_files import SMALL, prefixed, published_tensors
from tests.checkpoints.test_atst import sed_tensors
from tests.checkpoints.test_yamnet import write_keras
from tests.data.shards import pack
from tests.documentation import LANGUAGES, Block, blocks, commands, pages, prose, words
from tests.documentation_runner import Runner
from tests.hub_server import WRITE, FakeHub
from tests.official_passt import OfficialPaSST
from tests.support import ROOT
from tests.upstream.corpora import event_corpus

# All that is not run. Their arguments are looked at instead, where there is anything to look at.
NOT_RUN = {"pip install": "would change this environment; its extras are looked up instead"}
LINKS = ("recipes", "hparams", "benchmarks", "hub", "hubconf.py", "Makefile")
TEXTS = {page.as_posix(): (ROOT / page).read_text() for page in pages()}
# Pages for those who look into these folders: their blocks are not run, but what they name has to be there.
OTHERS = {name: (ROOT / name).read_text() for name in ("recipes/DESED/README.md", "hub/README.md")}


def is_run(command: str) -> bool:
    return not any(command.startswith(start) for start in NOT_RUN)


@pytest.fixture(scope="module")
def hub():
    with FakeHub() as server:
        yield server


@pytest.fixture(scope="module")
def runner(hub, tmp_path_factory):
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path_factory.mktemp("home")),
        "HF_TOKEN": WRITE,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "0",
        "OMP_WAIT_POLICY": "passive",
        "CUDA_VISIBLE_DEVICES": "",
        "MPLBACKEND": "agg",
    }
    runner = Runner(environment)
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def workspace(runner, hub, tmp_path_factory):
    """What the pages find in the current folder."""
    folder = tmp_path_factory.mktemp("documentation") / "workspace"
    folder.mkdir()
    for name in LINKS:
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    shutil.copytree(ROOT / "docs", folder / "docs")
    random = np.random.default_rng(0)
    for name, seconds, rate in (
        ("kitchen.wav", 3.2, 44_100),
        ("recordings/meeting.flac", 12.0, 16_000),
        ("recordings/door.wav", 0.3, 8_000),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, 0.1 * random.standard_normal(round(seconds * rate)), rate)
    for number in range(3):
        (folder / "labelled").mkdir(exist_ok=True)
        soundfile.write(folder / "labelled" / f"{number}.wav", 0.1 * random.standard_normal(3 * 16_000), 16_000)
        (folder / "labelled" / f"{number}.txt").write_text("0.5\t1.5\tDog\n")
    sound = (folder / "recordings/door.wav").read_bytes()
    for number in range(2):
        pack(folder / f"shards/x-{number:06d}.tar", {"a": {"wav": sound, "json": {"tags": ["Dog"]}}})
    (folder / "parquet").mkdir()
    rows = {"audio": [{"bytes": sound, "path": "a.wav"}], "classes": [["Dog"]]}
    datasets.Dataset.from_dict(rows).to_parquet(folder / "parquet/train.parquet")
    for corpus in ("DESED", "my_corpus"):
        (folder / corpus).symlink_to("data/builtin")
    passt = OfficialPaSST(depth=1, dim=64, heads=1).state_dict()
    torch.save(dict(passt), folder / "passt-s-f128-p16-s10-ap.476-swa.pt")
    torch.save({"sed_teacher": sed_tensors(), "sed_student": sed_tensors()}, folder / "stage2.ckpt")
    write_keras(folder)
    strong = {"strong_head.weight": torch.zeros(447, 32), "strong_head.bias": torch.zeros(447)}
    torch.save({**prefixed("model.model.", published_tensors(**SMALL)), **strong}, folder / "BEATs_strong_1.pt")
    event_corpus(folder / "hear", {"train": 4, "valid": 2, "test": 2})
    # Last: the runner has had the time to do its imports.
    results = runner([Block("bash", 1, "make demo\n")], "make demo", folder, whole=True)
    assert results[-1]["error"] is None, results[-1]
    return folder


@pytest.mark.parametrize("page", TEXTS)
def test_every_block_runs(page, runner, workspace, tmp_path):
    folder = tmp_path / "here"
    shutil.copytree(workspace, folder, symlinks=True)
    found = list(blocks(TEXTS[page]))
    runnable = [
        Block(block.language, block.line, "\n".join(filter(is_run, commands(block.code))))
        if block.language == "bash"
        else block
        for block in found
    ]
    results = runner(runnable, page, folder)
    failed = [result for result in results if result["error"]]
    assert not failed, f"{page}:{failed[0]['line']}\n{failed[0]['output']}\n{failed[0]['error']}"
    assert [result["line"] for result in results] == [block.line for block in found]


@pytest.mark.parametrize(
    ("language", "code", "reason"),
    [
        ("python", "x = 1\nx / 0", "line 7"),
        ("yaml", "a: !new:pmam_plugin.no_such.Class", "no_such"),
        ("bash", "pmam no-such-verb", "exit status 2"),
        ("bash", "pmam detect no_such_file.wav", "exit status 1"),
        ("bash", "make no-such-target", "no-such-target"),
        ("bash", "test -e no_such_file", "exit status 1"),
        ("bash", "python benchmarks/no_such.py", "no_such.py"),
        (
            "bash",
            "python recipes/DESED/train.py hparams/pmam_small.yaml --data_folder DESED --no_such_key 1",
            "no_such_key",
        ),
        ("bash", "torchrun --no_such_option 2 recipes/DESED/train.py hparams/pmam_small.yaml", "exit status 2"),
        ("bash", "python -m pmam_plugin.upstream NoSuchProblem", "NoSuchProblem"),
    ],
)
def test_a_block_that_is_wrong_fails(language, code, reason, runner, workspace):
    [result] = runner([Block(language, 6, code)], "page", workspace)
    assert result["error"] is not None
    assert reason in result["error"] + result["output"]


@pytest.mark.parametrize("page", TEXTS)
def test_every_fence_says_what_it_holds(page):
    assert {block.language for block in blocks(TEXTS[page])} <= set(LANGUAGES)


def test_what_is_not_run_is_little_and_still_there():
    lines = [
        line
        for text in TEXTS.values()
        for block in blocks(text)
        if block.language == "bash"
        for line in commands(block.code)
    ]
    for start, reason in NOT_RUN.items():
        assert any(line.startswith(start) for line in lines), f"{start} ({reason}) occurs no more"
    extras = metadata("pmam-plugin").get_all("Provides-Extra") or []
    for line in lines:
        if line.startswith("pip install"):
            [target] = words(line)[2:]
            assert re.fullmatch(r"\.(\[(.*)\])?", target)
            named = re.findall(r"\[(.*)\]", target)
            assert set(named) <= set(extras)


@pytest.mark.parametrize("page", TEXTS | OTHERS)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose((TEXTS | OTHERS)[page])):
        if not target.startswith(("http:", "https:", "#")):
            assert (ROOT / page).parent.joinpath(target.partition("#")[0]).exists(), f"{page}: {target}"


def expanded(pattern: str) -> list[str]:
    """``a/{b,c}.py`` as a shell expands it."""
    parts = [
        part.strip("{}").split(",") if part.startswith("{") else [part] for part in re.split(r"(\{[^}]*\})", pattern)
    ]
    return ["".join(choice) for choice in itertools.product(*parts)]


@pytest.mark.parametrize("page", TEXTS | OTHERS)
def test_files_that_are_named_exist(page):
    for code in re.findall(r"`([^`\n]+)`", prose((TEXTS | OTHERS)[page])):
        for path in re.findall(r"(?:pmam_plugin|recipes|hparams|tests|benchmarks|docs|hub)/[\w./{},*-]*", code):
            for name in expanded(path):
                assert list(ROOT.glob(name)) if "*" in name else (ROOT / name).exists(), f"{page}: {name}"


def test_every_name_is_defined_where_the_page_of_methods_says():
    checked = 0
    for line in TEXTS["docs/methods.md"].splitlines():
        cells = line.split("|")
        if len(cells) < 4:
            continue
        # Names stand before the file they are in, where the paper says something, or before what they default to.
        place = cells[2] if "`pmam_plugin/" in cells[2] else cells[1]
        *parts, rest = re.split(r"`(pmam_plugin/[\w/]+\.py)`", place)
        assert "`" not in rest, line
        for names, path in zip(parts[::2], parts[1::2], strict=True):
            source = (ROOT / path).read_text()
            for name in re.findall(r"`(\w+)`", names):
                assert re.search(rf"^(class|def) {name}\b", source, re.M), f"{name} is not in {path}"
                checked += 1
    assert checked > 40


def test_the_table_of_rooms_has_the_order_of_the_contract():
    [layers] = re.findall(r"^layers = (\[.*?^\])", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    contract = [layer.split(" | ") for layer in reversed(ast.literal_eval(layers))]
    rows = re.findall(r"^\| (`[^|]*`) \|", TEXTS["docs/architecture.md"], re.M)
    assert [re.findall(r"`(\w+)`", row) for row in rows] == contract


def test_every_hop_of_the_walks_is_where_they_say_and_counted():
    walks = re.findall(r"^## [^\n]*: (\d+) hops\n(.*?)(?=^## |\Z)", TEXTS["docs/architecture.md"], re.M | re.S)
    assert len(walks) == 2
    for count, walk in walks:
        hops = re.findall(r"^\d+\. `(\w+)` in `(pmam_plugin/[\w/]+\.py)`", walk, re.M)
        assert len(hops) == int(count)
        for name, path in hops:
            assert re.search(rf"^(class|def) {name}\b", (ROOT / path).read_text(), re.M), f"{name} is not in {path}"


@pytest.mark.parametrize("page", TEXTS | OTHERS)
def test_commands_that_are_named_exist(page):
    verbs = set(typer.main.get_command(app).commands)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    text = prose((TEXTS | OTHERS)[page])
    assert set(re.findall(r"`pmam ([a-z][\w-]*)", text)) <= verbs
    assert set(re.findall(r"`make ([\w-]+)`", text)) <= targets


def test_the_diagrams_and_tables_of_the_readme_fit_a_screen():
    for block in blocks(TEXTS["README.md"]):
        assert max(map(len, block.code.splitlines())) <= 120


def test_the_picture_is_small(workspace):
    assert (ROOT / "docs/assets/pmam.png").stat().st_size < 300_000
