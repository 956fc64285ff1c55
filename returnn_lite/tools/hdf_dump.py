"""Writes a dataset as an HDF file: `hdf_dump.py CONFIG_OR_DATASET OUT.hdf [--epoch N] [--start_seq N] …`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from returnn_lite.datasets.hdf.dump import hdf_from_dataset
from returnn_lite.errors import ConfigError
from returnn_lite.tools.common import Progress, config_of_argument, dataset_of_config, stderr_log, tool


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(prog="hdf_dump.py", description="Writes a dataset as an HDF file.")
    parser.add_argument("config_file_or_dataset", help="a config (its train dataset), or a dataset dict as text")
    parser.add_argument("hdf_filename", help="the file to write; must not exist, or be empty")
    parser.add_argument("--start_seq", type=int, default=0, help="first sequence of the epoch (0)")
    parser.add_argument("--end_seq", type=float, default=math.inf, help="last sequence, -1 for all (inf)")
    parser.add_argument("--epoch", type=int, default=1, help="the epoch whose order is used (1)")
    parser.add_argument("--verbosity", type=int, default=2, help="of the messages about the dataset, 1 to 5 (2)")
    args = parser.parse_args(argv)
    if args.start_seq < 0 or math.isnan(args.end_seq) or 0 <= args.end_seq < args.start_seq:
        range_ = f"{args.start_seq} to {args.end_seq:g}"
        raise ConfigError("--end_seq", f"the sequences must go from 0 on to a later one, but are {range_}")
    dataset = dataset_of_config(config_of_argument(args.config_file_or_dataset), "train", stderr_log(args.verbosity))
    progress = Progress("sequences")
    count = hdf_from_dataset(
        dataset,
        args.hdf_filename,
        epoch=args.epoch,
        start_seq=args.start_seq,
        end_seq=args.end_seq + 1 if args.end_seq >= 0 else math.inf,
        after_seq=progress.step,
    )
    progress.end()
    print(f"{args.hdf_filename}: {count} sequences of {dataset.name}")
