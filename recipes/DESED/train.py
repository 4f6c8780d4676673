#!/usr/bin/env python3
"""Train and evaluate a sound event detector on DESED, or on data laid out like it.

    python recipes/DESED/train.py hparams/pmam.yaml --data_folder PATH [--any_key value]
    torchrun --nproc_per_node=N recipes/DESED/train.py hparams/pmam.yaml --data_folder PATH

The YAML file reads top to bottom as the experiment; this script only runs the stages it lists. A killed run continues
when the same command is given again; one with other settings is refused, unless --overwrite says that what they change
may be deleted and run again. Results: <output_folder>/{metrics.json, model/, scores/, report.html}. Runs that are given
one folder in the environment variable PMAM_SHARED_STAGES run the stages they have in common once.
"""

from __future__ import annotations

import pmam_plugin  # noqa: F401  # before torch: it says how OpenMP's threads wait

# isort: split
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from speechbrain.utils.distributed import ddp_barrier, ddp_init_group, if_main_process, run_on_main

from pmam_plugin.errors import InputError, told
from pmam_plugin.files import write_text
from pmam_plugin.stages import RunContext, refuse_changes, run_stages, summary_table, without
from pmam_plugin.stages.arguments import quote_paths
from pmam_plugin.stages.experiment import (
    build_experiment,
    described,
    lay_over,
    read_experiment,
)

logger = logging.getLogger("pmam_plugin.recipe")

# Run options that an experiment's YAML may set.
FROM_YAML = ("device", "precision", "eval_precision", "micro_batch")


def find_hparams(name: str) -> str:
    """The YAML file, looked for here, then from the repository's root, then beside this script."""
    places = [Path(name), Path(__file__).resolve().parents[2] / name, Path(__file__).resolve().parent / name]
    for place in places:
        if place.is_file():
            return str(place)
    raise InputError(f"{name}: no such file; the repository's experiments are in hparams/")


def load_experiment(arguments: list[str]) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Parse the command line and build what the YAML names; returns (hparams, run options, text of the experiment)."""
    # SpeechBrain reads the file while it parses; hand it one that exists wherever the command is run.
    arguments = [find_hparams(arguments[0]), *quote_paths(arguments[1:])]
    file, options, overrides = sb.parse_arguments(arguments)
    ddp_init_group(options)
    experiment = read_experiment(Path(file))
    text = lay_over(experiment, overrides, file, may_add=False)
    hparams = build_experiment(text, file)
    return hparams, run_options(options, hparams), described(Path(file), experiment) + text


def run_options(options: Any, hparams: Mapping[str, Any]) -> dict[str, Any]:
    """SpeechBrain's run options that the command line gives, and failing these the YAML; the rest are its defaults.

    Raises:
        InputError: a bound on gradients that is not positive (in SpeechBrain a negative one reverses every update), a
            limit of updates that is no number (which SpeechBrain leaves a string and stumbles over in training), a
            micro_batch that is no number of clips.
    """
    chosen = {name: hparams[name] for name in FROM_YAML if hparams.get(name) is not None}
    chosen |= {name: options[name] for name in options.overridden_args}
    if not chosen.get("max_grad_norm", 1.0) > 0:
        bound = chosen["max_grad_norm"]
        raise InputError(f"--max_grad_norm {bound:g}: must be positive; null in the YAML's plans switches clipping off")
    clips = chosen.get("micro_batch", 1)
    if not isinstance(clips, int) or clips < 1:
        raise InputError(f"--micro_batch {clips}: must be a number of clips that pass through the network at a time")
    limit = chosen.get("optimizer_step_limit")
    if limit is not None:
        if not str(limit).isdecimal():
            raise InputError(f"--optimizer_step_limit {limit}: must be a number of updates")
        chosen["optimizer_step_limit"] = int(limit)
    return chosen


def main(arguments: list[str]) -> int:
    """Run the experiment; returns the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(f"{__doc__}\n")
        return 0 if arguments else 2
    overwrite = "--overwrite" in arguments
    try:
        hparams, run_opts, text = load_experiment([argument for argument in arguments if argument != "--overwrite"])
        stages = without(hparams["stages"], hparams.get("skip_stages") or [])
        sb.create_experiment_directory(hparams["output_folder"])
        context = RunContext(
            Path(hparams["output_folder"]),
            int(hparams["seed"]),
            run_opts,
            cache_audio=hparams.get("cache_audio", True),
            cache_gigabytes=float(hparams.get("cache_gigabytes", 20)),
            workers=hparams.get("num_workers", "auto"),
            shared=Path(os.environ["PMAM_SHARED_STAGES"]) if os.environ.get("PMAM_SHARED_STAGES") else None,
        )
        if not overwrite:
            refuse_changes(stages, context)
        run_on_main(write_text, [Path(hparams["output_folder"]) / "hyperparams.yaml", text])
        run_stages(stages, context, overwrite)
    except Exception as error:
        reason = told(error)
        if reason is None:
            raise
        sys.stderr.write(f"error: {reason}\n")
        return 1
    if if_main_process():
        sys.stdout.write(summary_table(context) + "\n")
    ddp_barrier()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
