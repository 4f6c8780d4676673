"""The code blocks of README.md and docs/*.md, and what runs them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.support import ROOT

LANGUAGES = ("python", "bash", "yaml", "text")
"""Every fence names one; ``text`` (output, layouts, diagrams) is the only one that is not run."""


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: first word after the fence.
        line: of its first line of code, counted from 1.
        code: its text.
    """

    language: str
    line: int
    code: str


def pages() -> list[Path]:
    """README.md and all pages of docs/, relative to the repository's root."""
    return [Path("README.md"), *sorted(path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md"))]


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order.

    Raises:
        ValueError: a fence that is never closed.
    """
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        fence = re.match(r"\s*(```+|~~~+)\s*(\w*)", line)
        if not fence:
            continue
        code: list[str] = []
        for _, inner in lines:
            if inner.strip().startswith(fence[1]):
                break
            code.append(inner)
        else:
            raise ValueError(f"the fence in line {number} is never closed")
        yield Block(fence[2], number + 1, "\n".join(code) + "\n")


def prose(text: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^\s*(```+|~~~+).*?^\s*\1\s*$", "", text, flags=re.M | re.S)


def commands(code: str) -> list[str]:
    """The commands of a shell block: continued lines joined, comments and empty lines left out."""
    joined = code.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.strip().startswith("#")]


def words(command: str) -> list[str]:
    """A command's words as a shell would split them, without its comment."""
    return shlex.split(command, comments=True)


class Runner:
    """A process with all imports done, which runs each page in a fork of its own: a fresh interpreter in no time.

    Args:
        environment: of that process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.documentation_runner"],
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, blocks: list[Block], name: str, folder: Path, whole: bool = False) -> list[dict[str, Any]]:
        """Run blocks one after the other in one namespace; ends at the first that fails.

        Args:
            blocks: of one page.
            name: of the page, for tracebacks.
            folder: working directory.
            whole: run recipes to their end.

        Returns:
            For every block that was started ``line, error, output``; ``error`` is None or a traceback.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {"name": name, "folder": str(folder), "whole": whole, "blocks": [asdict(block) for block in blocks]}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the documentation's runner died with status {self._process.wait()}")
        results: list[dict[str, Any]] = json.loads(answer)
        return results

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
