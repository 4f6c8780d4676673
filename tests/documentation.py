"""The pages README.md and docs/*.md: their code blocks and their prose."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

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
    """The fenced blocks of a page, in order."""
    for token in MarkdownIt().parse(text):
        if token.type == "fence" and token.map is not None:
            yield Block(token.info.partition(" ")[0], token.map[0] + 2, token.content)


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
