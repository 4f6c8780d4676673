"""The page of ``pmam prototypes``: what every prototype of a run stands for, to see and to hear."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmam_plugin.explorer.statistics import NO_EVENT, MeansMap, purity, telling_labels
from pmam_plugin.prototypes.agreement import normalised_mutual_information
from pmam_plugin.report.media import SAMPLE_RATE, bytes_of, encode_audio, png
from pmam_plugin.report.page import asset, details, escape, facts_table, section, write_page
from pmam_plugin.report.spectrogram import log_mel, picture

EXCERPT_SECONDS = 1.0
"""Length of an excerpt; its frame is in the middle."""

_TILE_BANDS = 48
_TILE_COLUMNS = round(EXCERPT_SECONDS * 100)
_GAP_SECONDS = 0.1  # silence between excerpts in the one sound file that holds all
_SCRIPTS = ("charts.js", "explorer/prototypes.js")


@dataclass
class Excerpt:
    """A moment that shows a prototype.

    Attributes:
        clip: its id.
        seconds: where in the clip the frame lies.
        wave: 16 kHz mono float32 around the frame, :data:`EXCERPT_SECONDS` long.
        labels: events there (or of the whole clip, where only that is known).
        posterior: of the prototype over the excerpt, ``(frames,)``.
    """

    clip: str
    seconds: float
    wave: np.ndarray
    labels: Sequence[str]
    posterior: np.ndarray


@dataclass
class PrototypeIteration:
    """The prototypes of one E-step.

    Attributes:
        name: as shown, e.g. ``iteration 2``.
        weights: of the mixture, ``(K,)``.
        labels: event labels, C of them.
        joint: posterior mass per prototype and label, ``(K, C + 1)``; the last column is frames without event.
        entropies: frames per bin of posterior entropy, evenly over [0, ln K] nats.
        mean_entropy: in nats.
        maps: name -> prototypes in a plane; the first is shown first.
        excerpts: per prototype, most typical first.
        durations: seconds a prototype lasts on average, ``(K,)``.
        clip_shares: share of the clips in which it occurs, ``(K,)``.
        spectra: mean log-mel spectrum in dB, ``(K, bands)``, lowest band first.
        facts: anything else worth a line (layer, dimensions, ...).
    """

    name: str
    weights: np.ndarray
    labels: Sequence[str]
    joint: np.ndarray
    entropies: np.ndarray
    mean_entropy: float
    maps: Mapping[str, MeansMap]
    excerpts: Sequence[Sequence[Excerpt]]
    durations: np.ndarray
    clip_shares: np.ndarray
    spectra: np.ndarray
    facts: Mapping[str, Any]

    def scores(self) -> dict[str, float]:
        """How prototypes and labels agree: ``nmi``, ``nmi_events`` (frames with events only), ``purity``,
        ``largest_label`` (the purity of a single prototype)."""
        total = self.joint.sum()
        return {
            "nmi": normalised_mutual_information(self.joint),
            "nmi_events": normalised_mutual_information(self.joint[:, :-1]),
            "purity": purity(self.joint),
            "largest_label": float(self.joint.sum(axis=0).max() / total) if total > 0 else 0.0,
        }


@dataclass
class PrototypeReport:
    """Everything the page shows.

    Attributes:
        iterations: in order; the last is shown first.
        provenance: run, package, ...: shown as a table.
    """

    iterations: Sequence[PrototypeIteration]
    provenance: Mapping[str, Any]


def write_prototype_report(path: str | os.PathLike[str], report: PrototypeReport) -> None:
    """Write the page, atomically; about 2.5 MB per iteration at 30 prototypes with eight excerpts each.

    Raises:
        InputError: the page cannot be written.
        ValueError: no iterations.
    """
    if not report.iterations:
        raise ValueError("a prototype report needs at least one iteration")
    last = report.iterations[-1]
    subtitle = f"run {report.provenance['run']}: {len(last.weights)} prototypes, {int(last.entropies.sum()):,} frames"
    data = {"iterations": [_iteration_data(item) for item in report.iterations]}
    write_page(path, "What the prototypes stand for", subtitle, _body(report), data, _SCRIPTS)


def _iteration_data(item: PrototypeIteration) -> dict[str, Any]:
    sprite, atlas = _sprite(item.excerpts)
    number = itertools.count()
    excerpts = [
        [
            {
                "index": next(number),
                "clip": excerpt.clip,
                "seconds": excerpt.seconds,
                "labels": list(excerpt.labels),
                "posterior": bytes_of(excerpt.posterior),
            }
            for excerpt in group
        ]
        for group in item.excerpts
    ]
    return {
        "name": item.name,
        "weights": item.weights,
        "labels": [*item.labels, NO_EVENT],
        "joint": item.joint,
        "labelled": bool(item.joint.sum() > 0),
        "telling": telling_labels(item.joint),
        "scores": item.scores(),
        "active": int((item.weights > 1e-4).sum()),
        "entropies": item.entropies,
        "mean_entropy": item.mean_entropy,
        "most_entropy": float(np.log(len(item.weights))),
        "durations": item.durations,
        "clip_shares": item.clip_shares,
        "spectra": _relative(item.spectra),
        "maps": {name: vars(plane) for name, plane in item.maps.items()},
        "excerpts": excerpts,
        "sprite": sprite,
        "atlas": atlas,
        "excerpt_seconds": EXCERPT_SECONDS,
        "excerpt_stride": EXCERPT_SECONDS + _GAP_SECONDS,
    }


def _relative(spectra: np.ndarray) -> list[list[float]]:
    """Spectra between 0 (50 dB below the loudest value of all) and 1."""
    top = float(np.nanmax(spectra))
    return np.round(np.clip((np.nan_to_num(spectra, nan=top - 50.0) - top + 50.0) / 50.0, 0.0, 1.0), 3).tolist()


def _sprite(excerpts: Sequence[Sequence[Excerpt]]) -> tuple[dict[str, str] | None, dict[str, Any] | None]:
    """All excerpts in one sound file and one picture, which has a row of tiles per prototype."""
    waves = [excerpt.wave for group in excerpts for excerpt in group]
    if not waves:
        return None, None
    gap = np.zeros(round(_GAP_SECONDS * SAMPLE_RATE), dtype=np.float32)
    # One loudness for all: the quiet ones are to be heard, the loud ones must not hurt.
    sound = np.concatenate([part for wave in waves for part in (_levelled(wave), gap)])
    most = max(len(group) for group in excerpts)
    image = np.zeros((len(excerpts) * _TILE_BANDS, most * _TILE_COLUMNS), dtype=np.uint8)
    for row, group in enumerate(excerpts):
        for column, excerpt in enumerate(group):
            tile = picture(log_mel(excerpt.wave, _TILE_BANDS), dynamic_range=50.0, lift=False)[:, :_TILE_COLUMNS]
            top, left = row * _TILE_BANDS, column * _TILE_COLUMNS
            image[top : top + _TILE_BANDS, left : left + tile.shape[1]] = tile
    return encode_audio(sound), {"png": png(image), "tile": [_TILE_COLUMNS, _TILE_BANDS]}


def _levelled(wave: np.ndarray) -> np.ndarray:
    level = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
    gain = min(0.08 / max(level, 1e-4), 30.0)
    fade = min(160, len(wave) // 2)
    shaped = np.clip(wave * gain, -1.0, 1.0)
    shaped[:fade] *= np.linspace(0, 1, fade)
    shaped[len(shaped) - fade :] *= np.linspace(1, 0, fade)
    return shaped.astype(np.float32)


def _body(report: PrototypeReport) -> str:
    choice = ""
    if len(report.iterations) > 1:
        buttons = "".join(
            f'<button type="button" data-iteration="{index}">{escape(item.name)}</button>'
            for index, item in enumerate(report.iterations)
        )
        choice = f'<div class="segmented" role="group" aria-label="E-step">{buttons}</div>'
    hero = (
        f'{choice}<div class="explorer"><figure class="card map-card"><div class="map-tools">'
        '<span class="segmented" id="map-choice" role="group" aria-label="Projection"></span>'
        '<span class="segmented" role="group" aria-label="What stands for a prototype">'
        '<button type="button" data-look="sounds" aria-pressed="true">Sounds</button>'
        '<button type="button" data-look="discs" aria-pressed="false">Discs</button></span>'
        '<span class="save">Save <button type="button" id="save-map">SVG</button>'
        '<button type="button" id="save-pixels">PNG</button></span></div><div id="map"></div>'
        '<figcaption id="map-caption"></figcaption><div id="map-legend"></div></figure>'
        '<aside class="card" id="chosen" aria-live="polite"></aside></div>'
    )
    tiles = '<div class="tiles" id="agreement"></div>'
    wall = section(
        "wall",
        "All prototypes",
        '<div class="wall" id="wall-cards"></div>',
        "The four most typical moments of each; press one to hear it.",
    )
    heat = section(
        "labels",
        "Prototypes and labels",
        '<p class="controls-line"><label for="heat-mode">Show</label> <select id="heat-mode">'
        '<option value="share">share of the prototype\'s frames</option>'
        '<option value="lift">how many times more often than by chance</option></select></p>'
        '<div class="scroll"><div id="heat"></div></div>',
    )
    shapes = section(
        "shapes",
        "Weights and certainty",
        '<div class="two"><div class="card"><h3>Weight of every prototype</h3><div id="weights"></div></div>'
        '<div class="card"><h3>Entropy of the posterior, all frames</h3><div id="entropy"></div></div></div>',
    )
    facts = dict(report.provenance)
    for item in report.iterations:
        facts |= {f"{item.name}, {key}": value for key, value in item.facts.items()}
    about = details("How to read this page", asset("explorer/about_prototypes.html"))
    return hero + tiles + wall + heat + shapes + about + details("Run", facts_table(facts))
