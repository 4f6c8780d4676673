"""Small random evaluation sets for the tests of this room."""

from __future__ import annotations

import numpy as np
import pandas as pd

LABELS = ("Cat", "Dog", "Speech")


def events_table(rows: list[tuple[str, float, float, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])


def scores_table(scores: np.ndarray, frame: float = 0.1, labels: tuple[str, ...] = LABELS) -> pd.DataFrame:
    times = np.arange(len(scores) + 1) * frame
    table = pd.DataFrame(scores, columns=list(labels[: scores.shape[1]]))
    table.insert(0, "offset", times[1:])
    table.insert(0, "onset", times[:-1])
    return table


def runs(active: np.ndarray, frame: float, filename: str) -> list[tuple[str, float, float, str]]:
    """Events of a (frames, classes) activity, times as in :func:`scores_table`."""
    rows = []
    times = np.arange(len(active) + 1) * frame
    for label, column in zip(LABELS, active.T):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], column.astype(int), [0]))))
        rows += [(filename, times[a], times[b], label) for a, b in zip(edges[::2], edges[1::2])]
    return rows


def random_set(
    seed: int, clips: int = 5, frames: int = 30, decimals: int = 2
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame, dict[str, float]]:
    """Scores that follow a random ground truth more or less, every class occurring; one clip has no event.

    The durations are long, so that the 100 false positives per hour leave room for many operating points.
    """
    rng = np.random.default_rng(seed)
    scores, rows = {}, []
    for clip in range(clips):
        active = np.repeat(rng.random((frames // 5, len(LABELS))) < 0.3, 5, axis=0)
        if clip == 0:
            active[:10] = True
        if clip == 1:
            active[:] = False
        rows += runs(active, 0.1, f"clip{clip}.wav") or [(f"clip{clip}.wav", np.nan, np.nan, None)]
        slow = np.repeat(rng.normal(size=(frames // 5, len(LABELS))), 5, axis=0)
        noisy = np.clip(0.3 + 0.4 * active + 0.3 * slow + 0.1 * rng.normal(size=active.shape), 0, 1)
        scores[f"clip{clip}"] = scores_table(np.round(noisy, decimals))
    return scores, events_table(rows), {f"clip{clip}.wav": 400.0 for clip in range(clips)}


def ground_truth_lists(events: pd.DataFrame) -> dict[str, list[tuple[float, float, str]]]:
    """sed_scores_eval's form."""
    truth: dict[str, list[tuple[float, float, str]]] = {}
    for filename, onset, offset, label in events.itertuples(index=False):
        clip = truth.setdefault(filename.removesuffix(".wav"), [])
        if isinstance(label, str):
            clip.append((float(onset), float(offset), label))
    return truth
