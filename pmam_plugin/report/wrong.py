"""The part of a training's report about what is wrong: mistakes to listen to, and thresholds to choose by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pmam_plugin.evaluation.mistakes import KINDS, Mistake, Mistakes, OperatingCurve
from pmam_plugin.postprocessing.per_class import PerClass, per_class
from pmam_plugin.report.page import section


def mistakes_section(mistakes: Mistakes | None) -> str:
    """Where the table of mistakes and the matrix of confusions are drawn."""
    if mistakes is None:
        return ""
    lead = (
        "Events of the test set by class. An edge is too early or too late beyond 200 ms (an end beyond a fifth of the "
        "event). Numbers with a sound can be pressed."
    )
    body = (
        '<div class="scroll"><div id="mistakes"></div></div><div id="mistake-players"></div>'
        '<h3>What is heard at what is there</h3><div class="scroll"><div id="confusions"></div></div>'
    )
    return section("mistakes-section", "What it gets wrong", body, lead)


def thresholds_section(curves: Mapping[str, OperatingCurve]) -> str:
    """Where recall is drawn over false alarms, with a slider."""
    if not curves:
        return ""
    lead = (
        "Recall against false alarms per hour. Move a class's threshold, and its events move in all pictures of this "
        "page. An event counts as found when half of it is covered, a detection as false when half of it is not."
    )
    return section("thresholds", "Thresholds", '<div id="threshold-desk"></div>', lead)


def mistakes_data(
    mistakes: Mistakes | None, hours: float, examples: Sequence[tuple[Mistake, Mapping[str, Any]]]
) -> dict[str, Any] | None:
    """What the script needs of a test set that lasts so long; every example has its ``recording_data``."""
    if mistakes is None:
        return None
    labels = list(mistakes.events)
    counts = {label: dict.fromkeys(KINDS, 0) for label in labels}
    for mistake in mistakes.found:
        counts[mistake.label][mistake.kind] += 1
    heard = [*labels, None]
    return {
        "kinds": list(KINDS.items()),
        "hours": hours,
        "classes": [
            {"label": label, "events": mistakes.events[label], "right": mistakes.right[label], "counts": counts[label]}
            for label in labels
        ],
        "confusions": [[mistakes.confusions[there][heard_as] for heard_as in heard] for there in heard],
        "examples": [
            {"label": mistake.label, "kind": mistake.kind, "text": _told(mistake), "recording": recording}
            for mistake, recording in examples
        ],
    }


def thresholds_data(curves: Mapping[str, OperatingCurve], events: Mapping[str, int], chosen: PerClass) -> list[Any]:
    """What the script needs to move thresholds."""
    limits = dict(zip(curves, per_class(chosen, list(curves), "threshold")))
    return [
        {
            "label": label,
            "events": events.get(label, 0),
            "chosen": float(limits[label]),
            "own": int((curve.below > limits[label]).sum()) - 1,
            "points": [list(map(float, point)) for point in zip(curve.threshold, curve.recall, curve.false_alarms)],
        }
        for label, curve in curves.items()
    ]


def _told(mistake: Mistake) -> str:
    span = f"{mistake.clip}, {mistake.onset:.2f} to {mistake.offset:.2f} s"
    if mistake.kind == "confused":
        return f"{span}: {mistake.label} heard as {mistake.other}"
    if mistake.kind == "false_alarm":
        return f"{span}: {mistake.label} heard, {mistake.other or 'nothing'} is there"
    by = f" by {mistake.seconds:.2f} s" if mistake.seconds else ""
    return f"{span}: {mistake.label} {KINDS[mistake.kind]}{by}"
