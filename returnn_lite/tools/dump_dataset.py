"""Goes through a dataset and shows it, writes it, or counts: `dump-dataset.py CONFIG_OR_DATASET [--type …]`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from returnn_lite.config import Config
from returnn_lite.config.values import parse_literal
from returnn_lite.datasets import DataError, Dataset
from returnn_lite.datasets.batches.iterate import each_seq, place_of
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.tools.common import config_of_argument, dataset_of_config, follow, stderr_log, tool
from returnn_lite.tools.data_statistics import LengthStatistics, Statistics
from returnn_lite.tools.dump_outputs import NO_LIMIT, OUTPUTS, Output


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    args = _parser().parse_args(argv)
    config = config_of_argument(args.source)
    dataset = dataset_of_config(config, args.dataset, stderr_log(args.verbosity))
    tags = args.seqtags.split(",") if args.seqtags else None
    dataset.init_seq_order(args.epoch, seq_list=tags)
    if args.get_num_seqs:
        print(_num_seqs(dataset))
        return
    _check_key(dataset, args)
    end = math.inf if args.endseq < 0 or tags else args.endseq + 1
    lengths = LengthStatistics(
        _limit(args.min_seq_length, "min_seq_length", config), _limit(args.max_seq_length, "max_seq_length", config)
    )
    stats = Statistics() if args.stats or args.dump_stats else None
    limit = NO_LIMIT if args.stdout_limit is None else args.stdout_limit
    output = OUTPUTS[args.type](
        dataset, args.key, args.dump_prefix, args.dump_postfix, limit=limit, as_bytes=args.stdout_as_bytes
    )
    _go_through(dataset, output, args.startseq, end, lengths, stats)
    print("\n".join(lengths.lines(dataset)) or f"{dataset.name}: no sequences", file=sys.stderr)
    if stats is not None:
        _report(stats, lengths.num_seqs, args.key, args.dump_stats)


def _go_through(
    dataset: Dataset, output: Output, start: int, end: float, lengths: LengthStatistics, stats: Statistics | None
) -> None:
    with ExitStack() as files:
        output.begin(files)
        for i in follow(dataset, each_seq(dataset, start, end)):
            output.seq(i)
            if lengths.add(dataset.get_seq_length(i)) and stats is not None:
                try:
                    stats.add(dataset.get_data(i, output.key))
                except ConfigError as exc:
                    raise DataError(place_of(dataset, i, output.key), f'"{output.key}" {exc.message}') from None


def _check_key(dataset: Dataset, args: argparse.Namespace) -> None:
    """Raises ConfigError for a key that is missing, or that nothing can be computed of."""
    keys = dataset.get_data_keys()
    uses_key = args.stats or args.dump_stats or args.type in ("stdout", "numpy", "dump_seq_len", "print_shape", "plot")
    if uses_key and args.key not in keys:
        raise ConfigError("--key", f'unknown key "{args.key}"{did_you_mean(args.key, keys)}; known: {keys}')
    if (args.stats or args.dump_stats) and dataset.is_text(args.key):
        raise ConfigError("--key", f'"{args.key}" are texts, which have no statistics')


def _report(stats: Statistics, num_seqs: int, key: str, prefix: str | None) -> None:
    print(f"statistics of {key!r}: {num_seqs} seqs, {stats.count} frames")
    for name in ("mean", "std_dev", "min", "max"):
        print(f"  {name}: {getattr(stats, name)}")
    if prefix:
        stats.write(prefix, num_seqs)
        print(f"written to {prefix}.mean.txt, .std_dev.txt, .min.txt, .max.txt, .info.txt")


def _num_seqs(dataset: Dataset) -> str:
    try:
        return str(dataset.num_seqs)
    except NotImplementedError:
        return str(sum(1 for _ in each_seq(dataset)))


def _limit(value: str | None, option: str, config: Config) -> Any:
    """A limit of lengths: "config" (the option of the same name), a number, or a dict by key; None: no limit."""
    if value is None:
        return None
    if value == "config":
        return config.number_or_dict(option, None) or None
    limit = parse_literal(f"--{option}", value)
    if not isinstance(limit, int | float | dict):
        raise ConfigError(f"--{option}", f'must be "config", a number or a dict, but is {value!r} instead')
    return limit


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dump-dataset.py",
        description="Shows the sequences of a dataset's epoch and prints statistics of their lengths.",
    )
    add = parser.add_argument
    add("source", metavar="CONFIG_OR_DATASET", help="a config file, a dataset dict as text, or a *.hdf file")
    add("--dataset", default="train", help="of a config: train, dev, eval, … or a Python expression (train)")
    add("--epoch", type=int, default=1, help="the epoch whose order is used (1)")
    add("--startseq", type=int, default=0, help="first sequence of the epoch (0)")
    add("--endseq", type=int, default=10, help="last sequence, -1 for all (10)")
    add("--seqtags", help="only these sequences: comma-separated tags")
    add("--get_num_seqs", action="store_true", help="only prints the number of sequences of the epoch")
    add("--type", choices=sorted(OUTPUTS), default="stdout", help="what to do with each sequence (stdout)")
    add("--stdout_limit", type=int, help="most numbers of an array to print")
    add("--stdout_as_bytes", action="store_true", help="prints integers as UTF-8 text, of which they are the bytes")
    add("--verbosity", type=int, default=4, help="of messages about the dataset on stderr, 1 to 5 (4)")
    add("--dump_prefix", default="dump.", help='prefix of the names of written files ("dump.")')
    add("--dump_postfix", default=".txt.gz", help='suffix of the names (".txt.gz")')
    add("--key", default="data", help="the data key (data)")
    add("--stats", action="store_true", help="prints mean, standard deviation, minimum, maximum of the key's frames")
    add("--dump_stats", metavar="PREFIX", help="as --stats, and writes them to files for norm_mean and norm_std_dev")
    add("--max_seq_length", help='leaves longer sequences out of the statistics: "config", a number, or a dict by key')
    add("--min_seq_length", help="leaves shorter sequences out of the statistics")
    return parser
