"""Files dealt out to the epochs of one pass over all of them."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from returnn_lite.config_value import ConfigDict, ConfigOptions, ConfigValue
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.combined.sub import Wrapper, sub_dataset
from returnn_lite.datasets.factory import rank, world_size
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.datasets.order.ordering import ordering_name
from returnn_lite.datasets.registry import dataset
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.reading import read_text

ORDER_KEYS = ("seq_ordering", "seq_order_control_dataset", "map_seq_stream")


@dataset("DistributeFilesDataset")
class DistributeFilesDataset(Wrapper):
    """Each epoch reads some of the files: `get_sub_epoch_dataset(files)` returns the dataset dict for them.

    `files` is a list (of file names, or nested lists, tuples, dicts of them), a function giving it, or a .txt, .json
    or .py file. One pass over all files takes `partition_epoch` epochs, whose files have about the same size together.
    `seq_ordering` "default" or "random" is the order of the files. With `distrib_shard_files` each process of a
    distributed training reads files of its own, else its part of the sequences of all. The options of preloading have
    no effect.
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        files: ConfigValue,
        get_sub_epoch_dataset: Callable[[list[ConfigValue]], ConfigOptions],
        preload_next_n_sub_epochs: int = 1,
        buffer_size: int = 1,
        distrib_shard_files: bool = False,
        sharding_fix: ConfigValue = None,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        if not callable(get_sub_epoch_dataset):
            raise ConfigError(f"{self.name}: get_sub_epoch_dataset", "must be a function that returns a dataset dict")
        self.files = read_files(files, f"{self.name}: files")
        self.partitions = self.options.partition_epoch or 1
        # (number of this process, of all processes) that share the files
        self.share = (rank(os.environ), world_size(os.environ)) if distrib_shard_files else None
        self._check_number()
        ordering = self.options.seq_ordering or "default"
        if not callable(ordering) and ordering not in ("default", "random"):
            raise ConfigError(
                f"{self.name}: seq_ordering", f'must be "default" or "random", but is "{ordering}" instead'
            )
        self.get_dataset = get_sub_epoch_dataset
        self.sizes: dict[int, int] = {}
        self.describe_as(self._dataset_of(self.files[:1]))

    def _check_number(self) -> None:
        processes = 1 if self.share is None else self.share[1]
        if len(self.files) < self.partitions * processes:
            needed = f"partition_epoch = {self.partitions}" + f" times {processes} processes" * (processes > 1)
            raise ConfigError(f"{self.name}: files", f"must be at least {needed}, but are {len(self.files)}")

    def _dataset_of(self, files: list[ConfigValue]) -> Dataset:
        options = self.get_dataset(files)
        path = f"{self.name}: get_sub_epoch_dataset"
        if not isinstance(options, Mapping):
            raise ConfigError(path, f"must return a dataset dict, but returned {options!r}")
        if (options.get("partition_epoch") or 1) != 1:
            raise ConfigError(path, "must return a dataset without partition_epoch")
        if not any(key in one for one in _dicts(options) for key in ORDER_KEYS):
            raise ConfigError(
                path, f"must return a dataset with one of {', '.join(ORDER_KEYS)}, so that its order is clear"
            )
        whole = {} if self.share is None else {"_num_shards": 1, "_shard_index": 0}
        return sub_dataset(self, dict(options), "sub", **whole)

    def init_seq_order(
        self, epoch: int | None = None, seq_list: Sequence[str] | None = None, seq_order: Sequence[int] | None = None
    ) -> bool:
        """Makes the dataset of this epoch's files and starts its epoch."""
        self.refuse_lists(seq_list, seq_order)
        self.epoch, self._loaded = epoch, {}
        if epoch is None:
            self.inner.init_seq_order(None)
            return True
        self.inner.finish_epoch(free_resources=True)
        self.inner = self._dataset_of(self.files_of(epoch))
        self.inner.limit_keys(self.wanted_keys)
        self.inner.init_seq_order(epoch)
        return True

    def files_of(self, epoch: int) -> list[ConfigValue]:
        """The files of an epoch (and shard)."""
        order = list(range(len(self.files)))
        if ordering_name(self.options.seq_ordering or "default", epoch) == "random":
            np.random.RandomState(self.order_options.seed(epoch)).shuffle(order)
        if not self.sizes:
            self.sizes = {i: size_of_files(file, self.name) for i, file in enumerate(self.files)}
        # Without a share of the files, the sub-dataset takes its shard itself.
        number, processes = self.share or (0, 1)
        bins = distribute([self.sizes[i] for i in order], self.partitions * processes)
        return [self.files[order[i]] for i in bins[number * self.partitions + (epoch - 1) % self.partitions]]

    def get_total_num_seqs(self, *, fast: bool = False) -> int | float:
        """Not known."""
        raise NotImplementedError(f"{self.name}: the sequences of all files are not counted")

    def get_all_tags(self) -> Sequence[str]:
        """Known with one partition only."""
        if self.partitions > 1:
            raise NotImplementedError(f"{self.name}: the tags of all files are not known")
        return self._dataset_of(self.files).get_all_tags()

    @property
    def supports_seq_order_sorting(self) -> bool:
        """The files' datasets have the orders."""
        return False


def distribute(sizes: Sequence[int], num_bins: int) -> list[list[int]]:
    """Consecutive parts of about the same size, none empty: indices per part."""
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    total = rest = sum(sizes)
    target, current, taken = total / num_bins, 0, 0
    for i, size in enumerate(sizes):
        remaining, left = len(sizes) - i, num_bins - current - 1
        if left == 0:
            bins[current].append(i)
        elif remaining <= left:
            current += bool(bins[current])
            bins[current].append(i)
            taken, target = size, (rest - size) / max(num_bins - current, 1)
        elif taken + size <= target:
            bins[current].append(i)
            taken += size
        else:
            here = not bins[current] or abs(taken + size - target) <= abs(taken - target)
            if here:
                bins[current].append(i)
            current += 1
            if not here:
                bins[current].append(i)
            taken = 0 if here else size
            target = (rest - size) / (num_bins - current)
        rest -= size
    return bins


def read_files(value: ConfigValue, path: str) -> list[ConfigValue]:
    """The list of files; raises ConfigError for anything but a list that is not empty."""
    if callable(value):
        value = value()
    if isinstance(value, str):
        value = _from_file(value, path)
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(path, f"must be a non-empty list of files, but is {value!r} instead")
    return list(value)


def _from_file(filename: str, path: str) -> ConfigValue:
    text, ending = read_text(filename, path), os.path.splitext(filename)[1]
    try:
        if ending == ".json":
            return json.loads(text)
        if ending == ".py":
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError) as exc:
        raise ConfigError(path, f"{filename} must hold a list: {exc}") from None
    if ending == ".txt":
        return [line for line in text.splitlines() if line.strip()]
    raise ConfigError(path, f"must be a list, or a file .txt, .json or .py, but is {filename!r}")


def size_of_files(tree: ConfigValue, name: str) -> int:
    """Bytes of all files in nested lists and dicts."""
    total = 0
    for leaf in _leaves(tree):
        try:
            total += os.path.getsize(leaf)
        except OSError as exc:
            raise ConfigError(f"{name}: files", f"{leaf}: {exc.strerror}") from None
    return total


def _leaves(tree: ConfigValue) -> Iterator[str]:
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        for part in tree:
            yield from _leaves(part)
    elif tree is not None:
        yield tree


def _dicts(options: ConfigValue) -> Iterator[ConfigDict]:
    """A dict and all dicts in it."""
    if isinstance(options, Mapping):
        yield options
        options = list(options.values())
    if isinstance(options, list | tuple):
        for part in options:
            yield from _dicts(part)
