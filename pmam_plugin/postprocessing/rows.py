"""Scores and events of one recording as arrays; tables are made of them where somebody wants tables.

pandas takes longer to import than a short recording to be heard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class ScoreRows:
    """What a scores table ``onset, offset, <class>...`` holds.

    Attributes:
        scores: float64, ``(rows, classes)``.
        onset: when each row begins, s, ``(rows,)``.
        offset: when it ends, likewise.
        labels: the classes.
    """

    scores: np.ndarray
    onset: np.ndarray
    offset: np.ndarray
    labels: Sequence[str]

    @classmethod
    def of(cls, table: pd.DataFrame) -> ScoreRows:
        """The rows of a table."""
        labels = [str(label) for label in table.columns[2:]]
        onset, offset = (table[name].to_numpy(np.float64) for name in ("onset", "offset"))
        return cls(table[labels].to_numpy(np.float64), onset, offset, labels)

    def __getitem__(self, rows: slice) -> ScoreRows:
        """Some of them."""
        return ScoreRows(self.scores[rows], self.onset[rows], self.offset[rows], self.labels)

    def table(self) -> pd.DataFrame:
        """Them as a table."""
        from pmam_plugin.tables.scores import scores_table

        return scores_table(self.scores, self.onset, self.offset, self.labels)


@dataclass(frozen=True, eq=False)
class EventRows:
    """What an events table holds of one recording.

    Attributes:
        onset: s, ``(events,)``.
        offset: likewise.
        label: the class of each.
        score: likewise.
    """

    onset: np.ndarray
    offset: np.ndarray
    label: Sequence[str]
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.onset)

    def table(self, filename: str) -> pd.DataFrame:
        """Them as a table ``filename, onset, offset, event_label, score``."""
        import pandas as pd

        columns = {"onset": self.onset, "offset": self.offset, "event_label": np.array(self.label, dtype=object)}
        return pd.DataFrame({"filename": filename, **columns, "score": self.score})
