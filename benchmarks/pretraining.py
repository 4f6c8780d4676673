"""Does pre-training help? The same detector and fine-tuning with and without it, over several seeds.

    python benchmarks/pretraining.py --data_folder PATH [--seeds 1 2 3] [--output results/pretraining]

Runs ``hparams/pmam_small.yaml`` twice per seed (finished runs are only read), in both cases with the same fine-tuning
steps, and prints the test figures of the model each run selected: mean over seeds, the seeds' values, and the gain.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

METRICS = ("psds1_mean", "psds1", "psds2", "event_f1_macro", "segment_f1_macro")
WITHOUT = "[estep_1, pretrain_1, estep_2, pretrain_2]"
# Student's t, 97.5 %, by degrees of freedom.
T_QUANTILE = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78}


def run(data: str, folder: Path, seed: int, pretrained: bool) -> dict[str, dict[str, float]]:
    """Figures of one run, median-filtered and with bounding boxes; trains if it has not been trained yet."""
    if not (folder / "metrics.json").exists():
        command = [sys.executable, "recipes/DESED/train.py", "hparams/pmam_small.yaml", "--data_folder", data]
        command += ["--output_folder", str(folder), "--seed", str(seed), "--noprogressbar"]
        subprocess.run([*command, *([] if pretrained else ["--skip_stages", WITHOUT])], check=True)
    metrics = json.loads((folder / "metrics.json").read_text())
    selected = metrics["selected"]
    seconds = sum(stage.get("seconds", 0.0) for stage in metrics["stages"].values())
    return {
        "filtered": metrics["validation"][selected] | {"seconds": seconds},
        "boxes": metrics["segments"][selected],
    }


def spread(values: list[float]) -> str:
    """Mean and the half width of its 95 % interval over seeds."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{100 * mean:6.2f}"
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = T_QUANTILE.get(len(values) - 1, 1.96) * deviation / math.sqrt(len(values))
    return f"{100 * mean:6.2f} ± {100 * half:5.2f}"


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output", type=Path, default=Path("results/pretraining"))
    options = parser.parse_args()
    runs = {
        name: [
            run(options.data_folder, options.output / f"{name[0]}{seed}", seed, name[0] == "a")
            for seed in options.seeds
        ]
        for name in ("b without pre-training", "a with pre-training")
    }
    for processing in ("filtered", "boxes"):
        print(f"\n{processing}; percent, mean ± 95 % interval over seeds {options.seeds} [each seed]")
        for metric in METRICS:
            columns = {}
            for name, results in runs.items():
                values = [result[processing][metric] for result in results]
                columns[name] = values
                each = ", ".join(f"{100 * value:.2f}" for value in values)
                print(f"  {metric:<18}{name:<26}{spread(values)}   [{each}]")
            before, after = (sum(values) / len(values) for values in columns.values())
            print(f"  {'':<18}{'gain':<26}{100 * (after / before - 1):+6.1f} % relative" if before else "")
    for name, results in runs.items():
        print(f"{name}: {sum(result['filtered']['seconds'] for result in results) / len(results):.0f} s per run")


if __name__ == "__main__":
    main()
