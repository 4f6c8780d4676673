"""The palette of the reports, as people with each kind of colour vision see it."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from pmam_plugin.report.page import asset

# Machado, Oliveira, Fernandes 2009: linear RGB as seen without one kind of cone.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]])
THEMES = {"light": r":root \{(.*?)\}", "dark": r':root\[data-theme="dark"\] \{(.*?)\}'}
DIFFERENT = 14.0  # CIELAB distance; about 2 can just be told apart side by side, 10 at a glance


def colours(theme: str) -> dict[str, np.ndarray]:
    """Name -> linear RGB of a theme's variables."""
    found = re.search(THEMES[theme], asset("report.css"), re.S)
    assert found is not None
    named = re.findall(r"--([a-z]\w*): #([0-9a-f]{6});", found[1])
    srgb = {name: np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)]) / 255 for name, text in named}
    return {name: np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for name, c in srgb.items()}


def lab(rgb: np.ndarray) -> np.ndarray:
    ratio = XYZ @ np.clip(rgb, 0, 1) / XYZ.sum(axis=1)
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(a: np.ndarray, b: np.ndarray) -> float:
    low, high = sorted(float(XYZ[1] @ colour) for colour in (a, b))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("vision", VISION)
def test_no_two_colours_look_alike(theme: str, vision: str) -> None:
    named = colours(theme)
    shown = {
        name: lab(np.array(VISION[vision]) @ named[name]) for name in (*(f"c{i}" for i in range(10)), "ink", "faint")
    }
    pairs = {(a, b): np.linalg.norm(shown[a] - shown[b]) for a, b in itertools.combinations(shown, 2)}
    closest = min(pairs, key=pairs.__getitem__)
    assert pairs[closest] > DIFFERENT, (closest, pairs[closest])


@pytest.mark.parametrize("theme", THEMES)
def test_text_and_lines_stand_out_from_the_paper(theme: str) -> None:
    named = colours(theme)
    for name in ("ink", "soft", "accent"):
        assert contrast(named[name], named["paper"]) > 4.5
        assert contrast(named[name], named["panel"]) > 4.5
    assert min(contrast(named[f"c{i}"], named["paper"]) for i in range(10)) > 2.5


def test_both_ways_to_the_dark_theme_have_the_same_colours() -> None:
    style = asset("report.css")
    chosen = re.search(THEMES["dark"], style, re.S)
    preferred = re.search(r':root:not\(\[data-theme="light"\]\) \{(.*?)\}', style, re.S)
    assert chosen is not None
    assert preferred is not None
    assert chosen[1].split() == preferred[1].split()
