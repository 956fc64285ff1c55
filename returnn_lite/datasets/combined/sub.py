"""Datasets made of other datasets: what they have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.factory import init_dataset
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log


def sub_dataset(parent: Dataset, value: ConfigValue, key: str, **defaults: ConfigValue) -> Dataset:
    """A dataset inside another one: named after it, with its seed offset and shard where it sets none itself."""
    options = parent.options
    inherited = {
        "random_seed_offset": options.random_seed_offset or 0,
        "_num_shards": options._num_shards,
        "_shard_index": options._shard_index,
    }
    return init_dataset(value, name=f"{parent.name}_{key}", defaults={**inherited, **defaults}, log=parent.log)


def loaded(dataset: Dataset, seq_idx: Sequence[int], keys: Sequence[str]) -> list[Seq]:
    """The data of some sequences of a dataset's epoch, in ascending order of `seq_idx`."""
    if len(seq_idx):
        dataset.load_seqs(int(min(seq_idx)), int(max(seq_idx)) + 1)
    return [{key: dataset.get_data(i, key) for key in keys} for i in seq_idx]


class EpochDataset(Dataset):
    """A dataset that knows its sequences by their index in the epoch alone, not by a corpus index."""

    have_corpus_seq_idx = False

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """Not possible."""
        raise NotImplementedError(f"{self.name}: {type(self).__name__} has no corpus indices")

    @abstractmethod
    def load_epoch_seqs(self, seq_idx: Sequence[int]) -> list[Seq]:
        """The data of some sequences of the epoch."""

    @abstractmethod
    def get_tag(self, seq_idx: int) -> str:
        """Name of a sequence of the epoch."""

    def get_all_tags(self) -> Sequence[str]:
        """Not possible."""
        raise NotImplementedError(f"{self.name}: {type(self).__name__} cannot list the tags of its corpus")

    def refuse_lists(self, seq_list: Sequence[str] | None, seq_order: Sequence[int] | None) -> None:
        """Raises ConfigError where a given order is not possible."""
        if seq_list is not None or seq_order is not None:
            raise ConfigError(self.name, f"seq_list and seq_order are not supported for {type(self).__name__}")

    def refuse_orders(self) -> None:
        """Raises ConfigError for an order of its own, where the inner dataset's counts."""
        ordering = self.options.seq_ordering or "default"
        if ordering != "default":
            raise ConfigError(
                f"{self.name}: seq_ordering",
                f'must be set in the inner dataset of {type(self).__name__}, but is "{ordering}" here',
            )

    def refuse_written_orders(self) -> None:
        """The same, but what is only the default of `dev` and `eval` is passed over; not before all options are set."""
        if "seq_ordering" not in self.defaulted:
            self.refuse_orders()


class Wrapper(EpochDataset):
    """A dataset that shows another one (`inner`), with what that one is: keys, dims, labels."""

    inner: Dataset

    def __init__(self, base: BaseOptions | None = None, *, log: Log | None = None):
        super().__init__(base, log=log)
        self._order = None  # the inner one has it

    def describe_as(self, inner: Dataset) -> None:
        """Takes over keys, dims and labels."""
        self.inner = inner
        self.num_inputs, self.num_outputs = inner.num_inputs, dict(inner.num_outputs)
        self.labels = dict(inner.labels)

    @property
    def num_seqs(self) -> int | float:
        """As the inner dataset."""
        return self.inner.num_seqs

    def is_less_than_num_seqs(self, n: int) -> bool:
        """As the inner dataset."""
        return self.inner.is_less_than_num_seqs(n)

    def get_total_num_seqs(self, *, fast: bool = False) -> int | float:
        """As the inner dataset."""
        return self.inner.get_total_num_seqs(fast=fast)

    def get_all_tags(self) -> Sequence[str]:
        """As the inner dataset."""
        return self.inner.get_all_tags()

    def get_tag(self, seq_idx: int) -> str:
        """As the inner dataset."""
        return self.inner.get_tag(seq_idx)

    def file_of(self, seq_idx: int, key: str) -> str | None:
        """As the inner dataset, where that has the sequence at the same place."""
        same = key in self.inner.get_data_keys() and self.inner.get_tag(seq_idx) == self.get_tag(seq_idx)
        return self.inner.file_of(seq_idx, key) if same else None

    def get_complete_frac(self, seq_idx: int) -> float:
        """As the inner dataset."""
        return self.inner.get_complete_frac(seq_idx)

    def load_epoch_seqs(self, seq_idx: Sequence[int]) -> list[Seq]:
        """As the inner dataset."""
        return loaded(self.inner, seq_idx, self.keys_to_load(self.inner))

    def keys_to_load(self, inner: Dataset) -> list[str]:
        """The keys that were asked for, or all."""
        keys = inner.get_data_keys()
        return keys if self.wanted_keys is None else [key for key in keys if key in self.wanted_keys]

    def limit_keys(self, keys: Sequence[str] | None) -> None:
        """The inner dataset need not load other keys either."""
        super().limit_keys(keys)
        self.inner.limit_keys(keys)

    def get_seq_length(self, seq_idx: int) -> dict[str, int]:
        """As the inner dataset."""
        return self.inner.get_seq_length(seq_idx)

    def epoch_lengths(self, start: int, end: int) -> np.ndarray | None:
        """As the inner dataset."""
        return self.inner.epoch_lengths(start, end)

    def finish_epoch(self, free_resources: bool = False) -> None:
        """Ends the epoch of both."""
        super().finish_epoch(free_resources)
        self.inner.finish_epoch(free_resources)

    def get_data_keys(self) -> list[str]:
        """As the inner dataset."""
        return self.inner.get_data_keys()

    def get_target_list(self) -> list[str]:
        """As the inner dataset."""
        return self.inner.get_target_list()

    def get_data_dim(self, key: str) -> int:
        """As the inner dataset."""
        return self.inner.get_data_dim(key)

    def get_data_dtype(self, key: str) -> str:
        """As the inner dataset."""
        return self.inner.get_data_dtype(key)

    def is_data_sparse(self, key: str) -> bool:
        """As the inner dataset."""
        return self.inner.is_data_sparse(key)

    def get_data_shape(self, key: str) -> list[int | None]:
        """As the inner dataset."""
        return self.inner.get_data_shape(key)

    def has_time(self, key: str) -> bool:
        """As the inner dataset."""
        return self.inner.has_time(key)


class Joined(EpochDataset):
    """The sequences of several datasets (`parts`), in any mixture.

    `part_of` and `index_in_part` int [N] say for each sequence of the epoch in which dataset it is, and its index in
    that one's epoch.
    """

    parts: list[Dataset]
    part_of: np.ndarray = np.empty(0, np.int32)
    index_in_part: np.ndarray = np.empty(0, np.int64)

    def set_parts_order(self, part_of: np.ndarray, index_in_part: np.ndarray) -> None:
        """Sets the epoch's order."""
        self.part_of, self.index_in_part = part_of.astype(np.int32), index_in_part.astype(np.int64)

    @property
    def num_seqs(self) -> int | float:
        """Sequences of this epoch."""
        return len(self.part_of)

    def get_tag(self, seq_idx: int) -> str:
        """Name in its own dataset."""
        part, index = self._place(seq_idx)
        return part.get_tag(index)

    def _place(self, seq_idx: int) -> tuple[Dataset, int]:
        """(a sequence's own dataset, its index in that one's epoch)."""
        return self.parts[int(self.part_of[seq_idx])], int(self.index_in_part[seq_idx])

    def file_of(self, seq_idx: int, key: str) -> str | None:
        """As its own dataset."""
        part = int(self.part_of[seq_idx])
        own = self.key_of_part(part, key)
        return None if own is None else self.parts[part].file_of(int(self.index_in_part[seq_idx]), own)

    def key_of_part(self, part: int, key: str) -> str | None:
        """What a dataset itself calls a key; None if it does not have it."""
        return key

    def get_total_num_seqs(self, *, fast: bool = False) -> int | float:
        """Sum over the datasets."""
        return sum(part.get_total_num_seqs(fast=fast) for part in self.parts)

    def load_epoch_seqs(self, seq_idx: Sequence[int]) -> list[Seq]:
        """Asks each dataset for its sequences."""
        found: list[Seq] = [{} for _ in seq_idx]
        which, where = self.part_of[list(seq_idx)], self.index_in_part[list(seq_idx)]
        for k in np.unique(which):
            mine = np.flatnonzero(which == k)
            for i, seq in zip(mine, self.parts[k].load_epoch_seqs(where[mine].tolist()), strict=True):
                found[i] = self.own_seq(int(k), seq)
        return found

    def own_seq(self, part: int, seq: Seq) -> Seq:
        """A part's sequence with this dataset's keys."""
        return seq

    def finish_epoch(self, free_resources: bool = False) -> None:
        """Ends the epoch of all."""
        super().finish_epoch(free_resources)
        for part in self.parts:
            part.finish_epoch(free_resources)


def dataset_dict(value: ConfigValue, path: str) -> ConfigDict:
    """A non-empty dict of datasets; raises ConfigError for anything else."""
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(path, f"must be a dict from name to dataset, but is {value!r} instead")
    return value
