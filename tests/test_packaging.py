"""What an installed package holds."""

import re

from tests.support import ROOT


def test_every_file_of_the_package_is_installed_with_it():
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (patterns,) = re.findall(r"^pmam_plugin = \[(.*?)\]", settings, re.M | re.S)
    endings = {pattern.removeprefix("**/*") for pattern in re.findall(r'"(.*?)"', patterns)}
    files = [path for path in (ROOT / "pmam_plugin").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    left_out = [path for path in files if path.suffix not in {*endings, ".py"} and path.name not in endings]
    assert left_out == []
