"""One honest sentence or two: how good a detector is, and which class needs more examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pmam_plugin.report.page import duration_text

_NOTICEABLE = 0.02  # of F1: less is noise in any folder that a person labels


def verdict(
    figures: Mapping[str, Any], learned: Mapping[str, int], recordings: int, seconds: float, points: Sequence[Any] = ()
) -> str:
    """What is to be told of a detector.

    Args:
        figures: of the test set, as in ``metrics.json``: ``event_f1_macro`` with its interval, and ``per_class``.
        learned: events of every class it learned from.
        recordings: of the test set.
        seconds: of the test set.
        points: of the learning curve, as :class:`pmam_plugin.stages.LearningCurve` leaves them; its last is the whole.
    """
    per_class: Mapping[str, Mapping[str, Any]] = figures.get("per_class", {})
    known = {label: row["event_f1"] for label, row in per_class.items() if row.get("event_f1") is not None}
    where = f"{recordings} recording{'s' * (recordings != 1)} it has not heard before ({duration_text(seconds)})"
    if not known:
        return f"No class occurs in the {where}: how good it is cannot be told; label more recordings."
    low, high = figures.get("event_f1_macro_ci") or (None, None)
    span = f", 95 % interval {low:.2f} to {high:.2f}" if low is not None and high is not None else ""
    events = sum(int(per_class[label].get("events") or 0) for label in known)
    text = f"On {where}, with {events} events, its event F1 is {figures['event_f1_macro']:.2f}{span}"
    ranked = sorted(known, key=lambda label: known[label])
    best, worst = ranked[-1], ranked[0]
    if known[best] > known[worst]:
        text += f": best for {best} ({known[best]:.2f}), worst for {worst} ({known[worst]:.2f})"
    text += f". {_advice(ranked, known, learned, points)}"
    missing = [label for label in learned if label not in known]
    if missing:
        text += f" Not measured at all, since no held-out recording has it: {', '.join(missing)}."
    return text


def _advice(
    ranked: Sequence[str], known: Mapping[str, float], learned: Mapping[str, int], points: Sequence[Any]
) -> str:
    """Which class needs more examples, and whether labels have helped so far."""
    gains = _gains(points)
    weak = [label for label in ranked if known[label] < 0.9]
    if not weak:
        return "No class stands out as needing more examples."
    # Of the weaker half the one that labels still help most; without a curve the one with the fewest examples.
    half = [label for label in weak if known[label] <= known[weak[(len(weak) - 1) // 2]]]
    needy = max(half, key=lambda label: (gains.get(label, 0.0) > _NOTICEABLE, gains.get(label, 0.0), -learned[label]))
    text = f"More examples would help {needy} most: it has {learned[needy]}"
    if gains.get(needy, 0.0) > _NOTICEABLE:
        text += f", and its F1 rose by {gains[needy]:.2f} with the last of them"
    text += "."
    if len(points) > 1 and points[-2]["event_f1_macro"] is not None and points[-1]["event_f1_macro"] is not None:
        before, now = points[-2]["event_f1_macro"], points[-1]["event_f1_macro"]
        share = f"{100 * points[-2]['share']:.0f} % of the labelled recordings"
        helps = now - before > _NOTICEABLE
        text += f" With {share} it reached {before:.2f}" + (
            ": more labels will go on helping." if helps else ": more labels of the same kind would hardly help."
        )
    return text


def _gains(points: Sequence[Any]) -> dict[str, float]:
    """What the last labels have brought each class, in F1."""
    if len(points) < 2:
        return {}
    before, now = points[-2]["event_f1"], points[-1]["event_f1"]
    both = [label for label in now if now[label] is not None and before.get(label) is not None]
    return {label: now[label] - before[label] for label in both}
