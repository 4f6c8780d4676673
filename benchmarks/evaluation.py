"""Time of evaluation against sed_scores_eval's own statistics, same scores, one process.

    python benchmarks/evaluation.py [--clips 200] [--frame-rate 100]

Prints CPU seconds for PSDS1 and PSDS2 both ways (the figures must agree), for all figures with 200 bootstrap resamples,
and for tuning bounding boxes over the whole grid.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage
from sed_scores_eval.intersection_based import psds

from pmam_plugin.evaluation import evaluate_scores, psd_roc, tune_segments
from pmam_plugin.evaluation.psds import MAX_RATE, SCENARIOS
from pmam_plugin.postprocessing import PostProcessing

LABELS = tuple(f"class {number}" for number in range(10))
SECONDS = 10.0


def random_set(clips: int, frame_rate: float) -> tuple[dict[str, pd.DataFrame], pd.DataFrame, dict[str, float]]:
    rng = np.random.default_rng(0)
    frames = round(SECONDS * frame_rate)
    times = np.arange(frames + 1) / frame_rate
    scores, rows = {}, []
    for clip in range(clips):
        active = np.zeros((frames, len(LABELS)))
        for label in rng.choice(len(LABELS), size=rng.integers(0, 4), replace=False):
            onset = rng.uniform(0, 8)
            offset = min(onset + rng.gamma(2.0, 1.0) + 0.25, SECONDS)
            rows.append((f"{clip}.wav", onset, offset, LABELS[label]))
            active[int(onset * frame_rate) : int(offset * frame_rate), label] = 1
        noise = ndimage.gaussian_filter1d(rng.normal(size=active.shape), 0.03 * frame_rate, axis=0)
        noise *= 0.8 / noise.std()
        logits = 3 * ndimage.gaussian_filter1d(active, 0.1 * frame_rate, axis=0) - 3 + noise
        table = pd.DataFrame(1 / (1 + np.exp(-2 * logits)), columns=list(LABELS))
        table.insert(0, "offset", times[1:])
        table.insert(0, "onset", times[:-1])
        scores[str(clip)] = table
    events = pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])
    return scores, events, {f"{clip}.wav": SECONDS for clip in range(clips)}


def timed(task: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = task()
    return time.process_time() - start, result


def published(scores: dict[str, pd.DataFrame], events: pd.DataFrame, durations: dict[str, float], key: str) -> float:
    truth: dict[str, list[tuple[float, float, str]]] = {clip: [] for clip in scores}
    for filename, onset, offset, label in events.itertuples(index=False):
        truth[filename.removesuffix(".wav")].append((onset, offset, label))
    scenario = SCENARIOS[key]
    return psds(
        scores,
        truth,
        {name.removesuffix(".wav"): seconds for name, seconds in durations.items()},
        dtc_threshold=scenario.criteria.detection,
        gtc_threshold=scenario.criteria.ground_truth,
        cttc_threshold=scenario.criteria.cross_trigger,
        alpha_ct=scenario.cross_trigger_weight,
        alpha_st=scenario.instability_weight,
        max_efpr=MAX_RATE,
    )[0]


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--frame-rate", type=float, default=100.0)
    arguments = parser.parse_args()
    raw, events, durations = random_set(arguments.clips, arguments.frame_rate)
    spent, filtered = timed(lambda: {clip: PostProcessing(median_seconds=0.32)(table) for clip, table in raw.items()})
    print(f"{arguments.clips} clips of {SECONDS:.0f} s, {len(LABELS)} classes, {arguments.frame_rate:g} frames/s")
    print(f"{'median filter of 0.32 s':<38}{spent:8.2f} s")
    for name, scores in (("raw scores", raw), ("filtered scores", filtered)):
        for key in SCENARIOS:
            ours, roc = timed(partial(psd_roc, scores, events, durations, scenario=key))
            theirs, value = timed(partial(published, scores, events, durations, key))
            agree = f"both {value:.4f}" if abs(roc.value - value) < 1e-9 else f"DIFFERENT: {value}"
            ratio = theirs / ours
            print(f"{key + ', ' + name:<38}{ours:8.2f} s   sed_scores_eval {theirs:8.2f} s   {ratio:5.1f}x   {agree}")
        spent, _ = timed(partial(evaluate_scores, scores, events, durations, bootstrap=200))
        print(f"{'everything, 200 resamples, ' + name:<38}{spent:8.2f} s")
    spent, _ = timed(lambda: tune_segments(raw, events, durations))
    print(f"{'tuning bounding boxes, 19 settings':<38}{spent:8.2f} s")


if __name__ == "__main__":
    main()
