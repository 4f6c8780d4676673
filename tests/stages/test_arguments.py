import pytest
import speechbrain as sb
from hyperpyyaml import load_hyperpyyaml

from pmam_plugin.stages.arguments import quote_paths

PATHS = [
    "7",
    "1e3",
    "2024-06-01",
    "on",
    "a: b",
    "take #2",
    "@home",
    "!important",
    "it's",
    "[x]",
    "{y}",
    "*z",
    "&z",
    "%",
    "a\\b",
    "café",
    "a=b",
    "\U0001f415",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("joined", [True, False])
def test_a_path_is_what_was_typed(tmp_path, path, joined):
    (tmp_path / "x.yaml").write_text("data_folder: !PLACEHOLDER\nseed: 1\nout_folder: !ref <data_folder>/x\n")
    given = [f"--data_folder={path}"] if joined else ["--data_folder", path]
    arguments = [str(tmp_path / "x.yaml"), *quote_paths([*given, "--seed", "2"])]
    file, _, overrides = sb.parse_arguments(arguments)
    with open(file, encoding="utf-8") as stream:
        hparams = load_hyperpyyaml(stream, overrides)
    assert hparams == {"data_folder": path, "seed": 2, "out_folder": f"{path}/x"}


def test_references_and_nothing_stay_what_they_are():
    arguments = ["--a_folder", "!ref <b>/c", "--b_checkpoint", "null", "--c_file", "'x'", "--rate", "0.1"]
    assert quote_paths(arguments) == arguments
