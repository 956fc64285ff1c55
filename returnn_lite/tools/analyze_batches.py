"""The batches that a config makes, without a network: how many, how large, how much padding."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import numpy as np

from returnn_lite.config import Config
from returnn_lite.datasets import BatchingOptions, Dataset
from returnn_lite.datasets.batches.epoch_batches import epoch_batches
from returnn_lite.datasets.batches.slice_batch import SliceBatch
from returnn_lite.engine.data import train_batching
from returnn_lite.engine.models.network_source import NetworkSource
from returnn_lite.engine.models.overrides import EpochOverrides
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log
from returnn_lite.tools.common import Progress, config_of_argument, dataset_of_config, stderr_log, tool
from returnn_lite.tools.data_statistics import Statistics


class BatchStatistics:
    """Sums over batches: sequences, frames with padding (`frames`) and without (`used`) by key."""

    def __init__(self) -> None:
        self.rows = Statistics()
        self.frames: dict[str, int] = {}
        self.used: dict[str, int] = {}

    def add(self, batch: SliceBatch) -> None:
        """Takes one batch."""
        lengths = batch.slices.lengths
        self.rows.add(np.array([batch.num_rows]))
        for key, longest, used in zip(batch.slices.keys, lengths.max(0), lengths.sum(0), strict=True):
            self.frames[key] = self.frames.get(key, 0) + int(longest) * batch.num_rows
            self.used[key] = self.used.get(key, 0) + int(used)

    def lines(self, keys: Sequence[str]) -> list[str]:
        """The report."""
        total = round(float(self.rows.mean) * self.rows.count)
        found = [f"{self.rows.count} batches of {total} sequences or chunks", f"per batch: {self.rows.line()}"]
        for key in keys:
            frames, used = self.frames.get(key, 0), self.used.get(key, 0)
            found.append(f"{key!r}: {frames} frames, {used} used, {used / max(frames, 1):.1%} of them")
        return found


def options_of(config: Config, dataset: Dataset, epoch: int) -> BatchingOptions:
    """Those of training; the keys in `extern_data` count as used."""
    keys = dataset.get_data_keys()
    described = config.typed_value("extern_data") or keys
    used = [key for key in keys if key in described]
    options = train_batching(config, SimpleNamespace(used_data_keys=used, recurrent=True), epoch)
    options.check_keys({*keys, *described}, dataset.log.v1)
    return options


def batches(dataset: Dataset, options: BatchingOptions, last: int) -> Iterator[SliceBatch]:
    """The epoch's batches, up to the first that has a sequence behind `last` (-1: all)."""
    progress = Progress("batches")
    for batch in epoch_batches(dataset, options):
        if 0 <= last < batch.slices.seq_idx.max():
            break
        yield batch
        progress.step(batch.complete)
    progress.end()


def apply_pretraining(config: Config, epoch: int, log: Log) -> None:
    """Sets the options that the network of the epoch has in its "#config"."""
    EpochOverrides(config, log).apply(epoch, NetworkSource(config).describe(epoch).get("#config", {}))


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(
        prog="analyze-dataset-batches.py",
        description="Makes the batches of an epoch as training would, without a network, and reports how large they"
        " are and how much of them is padding.",
    )
    add = parser.add_argument
    add("config", help="a config file")
    add("--dataset", default="train", help="train, dev, eval, … or a Python expression (train)")
    add("--epoch", type=int, default=1, help="the epoch (1)")
    add("--endseq", type=int, default=-1, help="last sequence, -1 for all (-1)")
    add("--key", help="reports on this data key only")
    add("--use_pretrain", action="store_true", help='with the options in "#config" of the epoch\'s network')
    add("--verbosity", type=int, default=4, help="of messages on stderr, 1 to 5 (4)")
    args = parser.parse_args(argv)
    config, log = config_of_argument(args.config), stderr_log(args.verbosity)
    if args.use_pretrain:
        apply_pretraining(config, args.epoch, log)
    dataset = dataset_of_config(config, args.dataset, log)
    known = dataset.get_data_keys()
    if args.key and args.key not in known:
        raise ConfigError("--key", f'unknown key "{args.key}"{did_you_mean(args.key, known)}; known: {known}')
    dataset.init_seq_order(args.epoch)
    stats = BatchStatistics()
    for batch in batches(dataset, options_of(config, dataset, args.epoch), args.endseq):
        stats.add(batch)
    print(
        "\n".join([f"{dataset.name}, epoch {args.epoch}", *stats.lines([args.key] if args.key else list(stats.frames))])
    )
