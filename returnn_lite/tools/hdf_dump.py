"""Writes a dataset as an HDF file: `hdf_dump.py CONFIG_OR_DATASET OUT.hdf [--epoch N] [--start_seq N] …`."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence

from returnn_lite.config import Config, load_config
from returnn_lite.datasets import Dataset, dataset_defaults, init_dataset
from returnn_lite.datasets.hdf_dump import hdf_from_dataset
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log


def dataset_of_argument(text: str, log: Log, role: str = "train") -> Dataset:
    """The dataset that a config file gives for `role`, or that the text itself describes (a dict, or HDF files)."""
    if not os.path.isfile(text) or text.endswith(".hdf"):
        return init_dataset(text, name="dataset", config=Config(), log=log)
    config = load_config([text])
    if not config.has(role):
        raise ConfigError(text, f"the config has no dataset `{role}`")
    return init_dataset(
        config.opt_typed_value(role), name=role, config=config, defaults=dataset_defaults(config, role), log=log
    )


def main(argv: Sequence[str]) -> int:
    """Runs the tool; returns the exit code."""
    parser = argparse.ArgumentParser(prog="hdf_dump.py", description="Writes a dataset as an HDF file.")
    parser.add_argument("config_file_or_dataset", help="a config (its train dataset), or a dataset dict as text")
    parser.add_argument("hdf_filename", help="the file to write; must not exist, or be empty")
    parser.add_argument("--start_seq", type=int, default=0, help="first sequence of the epoch (0)")
    parser.add_argument("--end_seq", type=float, default=math.inf, help="behind the last sequence (no limit)")
    parser.add_argument("--epoch", type=int, default=1, help="the epoch whose order is taken (1)")
    args = parser.parse_args(argv)
    try:
        dataset = dataset_of_argument(args.config_file_or_dataset, Log.silent())
        count = hdf_from_dataset(
            dataset, args.hdf_filename, epoch=args.epoch, start_seq=args.start_seq, end_seq=args.end_seq
        )
    except ConfigError as exc:
        print(exc, file=sys.stderr)
        return 1
    print(f"{args.hdf_filename}: {count} sequences of {dataset.name}")
    return 0
