"""Data preparation for DESED, and for corpora laid out like it.

Download DESED (https://project.inria.fr/desed) so that the data folder holds

    audio/train/{strong_label_real,weak,unlabel_in_domain,synthetic21_train/soundscapes}
    audio/validation/{validation,synthetic21_validation/soundscapes}    audio/eval/public
    metadata/train/{audioset_strong.tsv,weak.tsv,synthetic21_train/soundscapes.tsv}
    metadata/validation/{validation.tsv,synthetic21_validation/soundscapes.tsv}    metadata/eval/public.tsv

at any sample rate (folders may be called ``weak_16k`` and so on). Every set may be absent; recordings that could not be
downloaded are counted and left out. The work is done by :func:`pmam_plugin.data.prepare`.
"""

from __future__ import annotations

import argparse
import json
import logging
from typing import Any

from pmam_plugin.data import Prepared, prepare


def prepare_desed(data_folder: str, save_folder: str, skip_prep: bool = False, **options: Any) -> Prepared:
    """Write the manifests ``strong.json``, ``weak.json``, ... with ``{data_root}`` placeholders into ``save_folder``.

    Args:
        data_folder: where DESED lies.
        save_folder: where the manifests go.
        skip_prep: use the manifests that are there.
        options: of :func:`pmam_plugin.data.prepare`: ``subsets``, ``selection``, ``test``, ``hold_out``, ``seed``, ...

    Returns:
        Manifests, class list, and a report of what was found and left out.

    Raises:
        InputError: the data cannot be used as they are; one sentence says why, and what to do.
    """
    return prepare(data_folder, save_folder, skip_prep=skip_prep, **options)


def main() -> None:
    """Prepare from the command line and print the report."""
    parser = argparse.ArgumentParser(description="Write manifests for DESED and report what was found.")
    parser.add_argument("data_folder")
    parser.add_argument("save_folder")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    data = prepare_desed(arguments.data_folder, arguments.save_folder)
    print(json.dumps(data.report, indent=2))


if __name__ == "__main__":
    main()
