"""Do suggested passages teach more than random ones? From a tenth of the labels, at equal labelled seconds.

    python benchmarks/active_labelling.py --data_folder CORPUS [--seeds 1,2,3 --share 0.1 --minutes 4 --rounds 1]

CORPUS is laid out as DESED is, with strongly labelled training clips and a validation set. A part of its strong clips
is set aside to select on, alike in all arms; of the others a share keeps its labels and trains a first model, and the
rest plays recordings that nobody has labelled. Then both arms label ``minutes`` of passages of these: `pmam label
suggest`'s, or random ones; the corpus's own labels are what the annotator writes. Each arm trains again from nothing on
all it has labelled, and so on for every round. Prints psds1_mean and event F1 on the validation set after every round,
for every seed, and the differences paired by seed. Finished trainings are kept in --out and not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from pmam_plugin.audio import read_audio
from pmam_plugin.data import Clip, Event, prepare
from pmam_plugin.data.corpora.base import Corpus, Part, Recording, write_corpus
from pmam_plugin.data.holdout import split_clips

ROOT = Path(__file__).resolve().parents[1]
ARMS = ("suggested", "random")
FIGURES = ("psds1_mean", "event_f1_macro")
_RATE = 16_000

Passage = tuple[str, float, float]  # clip, onset, offset


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("results/active_labelling"))
    parser.add_argument("--hparams", default="hparams/yamnet.yaml")
    parser.add_argument("--encoder_checkpoint", default="builtin", help="empty for an experiment that takes none")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--share", type=float, default=0.1, help="of the strong clips that are labelled at first")
    parser.add_argument("--selection", type=float, default=0.15, help="share of the strong clips to select on")
    parser.add_argument("--minutes", type=float, default=4.0, help="labelled in every round")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a passage")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the experiment")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Run every seed and print the table."""
    options = arguments(given)
    rows: dict[tuple[int, str], list[float]] = {}
    print("seed  round  arm        labelled_s  " + "  ".join(FIGURES), flush=True)
    for seed in map(int, options.seeds.split(",")):
        for number, arm, seconds, figures in _seed(options, seed):
            values = "  ".join(f"{100 * figures[name]:{len(name)}.2f}" for name in FIGURES)
            print(f"{seed:<5} {number:<6} {arm:<10} {seconds:>10.1f}  {values}", flush=True)
            rows.setdefault((number, arm), []).append(figures[FIGURES[0]])
    for number in range(1, options.rounds + 1):
        pairs = list(zip(*(rows[number, arm] for arm in ARMS)))
        gains = [100 * (one - other) for one, other in pairs]
        spread = statistics.stdev(gains) if len(gains) > 1 else float("nan")
        print(
            f"round {number}: suggested - random, {FIGURES[0]}: {statistics.mean(gains):+.2f} (deviation {spread:.2f})"
        )


def _seed(options: argparse.Namespace, seed: int) -> list[tuple[int, str, float, dict[str, float]]]:
    """Round, arm, labelled seconds and figures of one seed."""
    folder = options.out / str(seed)
    data = prepare(options.data_folder, folder / "data", ["strong"], "none", seed=seed)
    rest, chosen_on = split_clips(data.manifests["strong"].clips, options.selection, seed)
    pool, first = split_clips(rest, options.share * len(data.manifests["strong"]) / len(rest), seed)
    whole = [(clip.id, 0.0, clip.seconds) for clip in first]
    clips = {clip.id: clip for clip in (*first, *pool)}
    test = list(data.manifests["test"].clips)
    start = _Arm(options, seed, folder / "first", clips, chosen_on, test, whole)
    results = [(0, "first", start.seconds, start.figures())]
    arms = dict.fromkeys(ARMS, start)
    for number in range(1, options.rounds + 1):
        for name in ARMS:
            before = arms[name]
            free = _free(pool, before.passages, options.seconds)
            choose = _suggested if name == "suggested" else _random
            more = choose(before, free, 60 * options.minutes, options.seconds, seed + number)
            arms[name] = _Arm(
                options, seed, folder / f"{name}_{number}", clips, chosen_on, test, [*before.passages, *more]
            )
            results.append((number, name, arms[name].seconds, arms[name].figures()))
    return results


class _Arm:
    """A corpus of what has been labelled, and the model trained on it."""

    def __init__(
        self,
        options: argparse.Namespace,
        seed: int,
        folder: Path,
        clips: dict[str, Clip],
        chosen_on: Sequence[Clip],
        test: Sequence[Clip],
        passages: Sequence[Passage],
    ) -> None:
        self.options, self.seed, self.folder, self.clips, self.passages = options, seed, folder, clips, list(passages)
        self.seconds = sum(offset - onset for _, onset, offset in passages)
        self.chosen_on, self.test = chosen_on, test

    @property
    def model(self) -> Path:
        """Its model folder."""
        return self.folder / "run" / "model"

    def figures(self) -> dict[str, float]:
        """Of the selected model on the validation set; trains it where that has not been done."""
        path = self.folder / "run" / "metrics.json"
        if not path.exists():
            self._write()
            self._train()
        metrics = json.loads(path.read_text(encoding="utf-8"))
        group = "segments" if metrics["selected_processing"] == "segments" else "test"
        found = metrics[group][metrics["selected"]]
        return {name: float(found[name]) for name in FIGURES}

    def _write(self) -> None:
        parts: dict[Part, list[Recording]] = {
            "strong": [_cut(self.folder / "cuts", self.clips[name], on, off) for name, on, off in self.passages],
            "selection": [_entry(clip) for clip in self.chosen_on],
            "test": [_entry(clip) for clip in self.test],
        }
        write_corpus(Corpus(parts), self.folder / "corpus")

    def _train(self) -> None:
        command = [sys.executable, str(ROOT / "recipes" / "DESED" / "train.py"), str(ROOT / self.options.hparams)]
        settings = {
            "data_folder": str((self.folder / "corpus").resolve()),
            "output_folder": str((self.folder / "run").resolve()),
            **({"encoder_checkpoint": encoder} if (encoder := self.options.encoder_checkpoint) else {}),
            "seed": str(self.seed),
            **dict(pair.split("=", 1) for pair in self.options.set),
        }
        flags = [part for key, value in settings.items() for part in (f"--{key}", value)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.options.threads), "OMP_WAIT_POLICY": "passive"}
        done = subprocess.run(
            [*command, *flags, "--noprogressbar"], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{self.folder}: the training ended with {done.returncode}:\n{done.stderr[-2000:]}")


def _suggested(arm: _Arm, free: Sequence[Passage], seconds: float, length: float, seed: int) -> list[Passage]:
    """The passages that the arm's model suggests, as an annotator with ``seconds`` would take them."""
    from pmam_plugin.inference import SoundEventDetector
    from pmam_plugin.inference.suggestion import suggest_passages

    detector = SoundEventDetector.from_pretrained(str(arm.model))
    names = sorted({name for name, _, _ in free})
    paths = {str(arm.clips[name].path): name for name in names}
    everything = seconds + sum(arm.clips[name].seconds for name in names)
    ranked = suggest_passages(detector, list(paths), everything / 60, length, seed=seed)
    open_spans = {name: [(on, off) for other, on, off in free if other == name] for name in names}
    chosen = [
        (paths[passage.filename], passage.onset, passage.offset)
        for passage in ranked
        if any(
            on - 0.1 <= passage.onset and passage.offset <= off + 0.1 for on, off in open_spans[paths[passage.filename]]
        )
    ]
    return _up_to(chosen, seconds)


def _random(arm: _Arm, free: Sequence[Passage], seconds: float, length: float, seed: int) -> list[Passage]:
    """Passages drawn at random."""
    order = np.random.default_rng(seed).permutation(len(free))
    return _up_to([free[place] for place in order], seconds)


def _up_to(passages: Sequence[Passage], seconds: float) -> list[Passage]:
    """The first passages, until they have as many seconds; the last is cut, so that arms are equal."""
    kept, left = [], seconds
    for name, onset, offset in passages:
        if left <= 1e-6:
            break
        kept.append((name, onset, min(offset, onset + left)))
        left -= kept[-1][2] - onset
    return kept


def _free(pool: Sequence[Clip], taken: Sequence[Passage], length: float = 5.0) -> list[Passage]:
    """Passages of the pool that nobody has labelled yet."""
    used = {(name, round(onset / length)) for name, onset, _ in taken}
    return [
        (clip.id, place * length, min((place + 1) * length, clip.seconds))
        for clip in pool
        for place in range(max(1, round(clip.seconds / length)))
        if (clip.id, place) not in used
    ]


def _cut(folder: Path, clip: Clip, onset: float, offset: float) -> Recording:
    """A passage as a recording of its own, with the labels that an annotator would give it."""
    name = f"{clip.id.replace('/', '_')}_{round(1000 * onset):06d}.flac"
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        wave = read_audio(clip.path, _RATE, clip.start + onset, offset - onset).numpy()
        soundfile.write(path, wave, _RATE)
    events = tuple(
        Event(max(0.0, event.onset - onset), min(event.offset, offset) - onset, event.label)
        for event in clip.events or ()
        if event.onset < offset and event.offset > onset
    )
    return Recording(name, path, events)


def _entry(clip: Clip) -> Recording:
    return Recording(f"{replace(clip).id.replace('/', '_')}{clip.path.suffix}", clip.path, clip.events)


if __name__ == "__main__":
    main()
