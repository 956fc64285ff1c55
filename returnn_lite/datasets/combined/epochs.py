"""Datasets that change what an epoch is: several epochs in one, another dataset each epoch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from returnn_lite.config_value import ConfigValue
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.combined.sub import Wrapper, loaded, sub_dataset
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.numbers_dict import NumbersDict
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.datasets.registry import dataset
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log


@dataset("MultiEpochDataset")
class MultiEpochDataset(Wrapper):
    """Epoch e is the epochs (e - 1) * `multi_epoch` + 1 … e * `multi_epoch` of the inner dataset, one after another.

    The number of sequences is known once the last of them has begun; sequences can be read forwards only.
    """

    def __init__(
        self, base: BaseOptions | None = None, *, dataset: ConfigValue, multi_epoch: int, log: Log | None = None
    ):
        super().__init__(base, log=log)
        if not isinstance(multi_epoch, int) or multi_epoch < 1:
            raise ConfigError(f"{self.name}: multi_epoch", f"must be a whole number >= 1, but is {multi_epoch!r}")
        self.describe_as(sub_dataset(self, dataset, "inner"))
        self.multi_epoch, self.start, self.inner_index = multi_epoch, 0, 0
        self._known_tags: dict[int, str] = {}

    def init_seq_order(
        self, epoch: int | None = None, seq_list: Sequence[str] | None = None, seq_order: Sequence[int] | None = None
    ) -> bool:
        """Starts the first of the inner epochs."""
        self.refuse_written_orders()
        self.refuse_lists(seq_list, seq_order)
        self.epoch, self._loaded = epoch, {}
        self._start_inner(0, 0)
        return True

    def _start_inner(self, index: int, start: int) -> None:
        """Inner epoch number `index` of this epoch, whose first sequence is number `start` here."""
        self.inner_index, self.start = index, start
        self.inner.init_seq_order(None if self.epoch is None else (self.epoch - 1) * self.multi_epoch + index + 1)

    @property
    def _is_last(self) -> bool:
        return self.epoch is None or self.inner_index == self.multi_epoch - 1

    @property
    def num_seqs(self) -> int | float:
        """Sequences of this epoch; raises NotImplementedError before its last inner epoch."""
        if not self._is_last:
            raise NotImplementedError(f"{self.name}: the number of sequences is not known yet")
        return self.start + self.inner.num_seqs

    def is_less_than_num_seqs(self, n: int) -> bool:
        """Whether there is a sequence with index n; goes on to the next inner epoch if need be."""
        while not self.inner.is_less_than_num_seqs(n - self.start):
            if self._is_last:
                return False
            known = self.inner.known_num_seqs
            count = known if known is not None else self._count_inner(n)
            self._start_inner(self.inner_index + 1, self.start + count)
        return True

    def _count_inner(self, n: int) -> int:
        count = n - self.start
        while count > 0 and not self.inner.is_less_than_num_seqs(count - 1):
            count -= 1
        return count

    def load_seqs(self, start: int, end: int) -> None:
        """Loads sequences, of several inner epochs if need be."""
        self._loaded = {i: seq for i, seq in self._loaded.items() if i >= start}
        for i in range(start, end):
            if not self.is_less_than_num_seqs(i):
                break
            if i not in self._loaded:
                self._loaded[i] = self.load_epoch_seqs([i])[0]

    def load_epoch_seqs(self, seq_idx: Sequence[int]) -> list[Seq]:
        """Sequences in ascending order; raises ConfigError for those of an inner epoch that is over."""
        found = []
        for i in seq_idx:
            if i < self.start:
                raise ConfigError(self.name, f"sequence {i} belongs to an inner epoch that has ended")
            self.is_less_than_num_seqs(i)
            found += self._load([i])
        return found

    def _load(self, seq_idx: Sequence[int]) -> list[Seq]:
        seqs = loaded(self.inner, [i - self.start for i in seq_idx], self.keys_to_load(self.inner))
        for i in seq_idx:
            self._tags[i] = self.inner.get_tag(i - self.start)
        return seqs

    @property
    def _tags(self) -> dict[int, str]:
        """Tags of the loaded sequences: their inner epoch may be over."""
        tags = self._known_tags
        if len(tags) > 4 * len(self._loaded) + 1000:
            for i in [i for i in tags if i not in self._loaded]:
                del tags[i]
        return tags

    def get_tag(self, seq_idx: int) -> str:
        """Tag in the inner dataset."""
        if seq_idx < self.start:
            return self._tags[seq_idx]
        self.is_less_than_num_seqs(seq_idx)
        return self.inner.get_tag(seq_idx - self.start)

    def get_seq_length(self, seq_idx: int) -> dict[str, int]:
        """Frames per key; loads the sequence, as the inner epoch may be over when it is asked for."""
        seq = self._seq(seq_idx)
        keys = self.get_data_keys()
        return NumbersDict({key: len(seq[key]) if key in seq and seq[key].ndim else 1 for key in keys})

    def limit_keys(self, keys: Sequence[str] | None) -> None:
        """All keys are needed for the lengths."""

    def epoch_lengths(self, start: int, end: int) -> None:
        """Not known in advance."""
        return None

    def get_complete_frac(self, seq_idx: int) -> float:
        """How much of the epoch is done."""
        inner = self.inner.get_complete_frac(max(seq_idx - self.start, 0))
        return min((self.inner_index + inner) / self.multi_epoch, 1.0)

    def finish_epoch(self, free_resources: bool = False) -> None:
        """Ends the epoch of both."""
        super().finish_epoch(free_resources)
        self._known_tags = {}


@dataset("VariableDataset")
class VariableDataset(Wrapper):
    """A different dataset for each epoch: `get_dataset(epoch=…)` returns the dict. Keys and dims are those of epoch 1.

    The last `dataset_lru_cache_size` datasets are kept, for when their dict comes again. `always_same_tags` says that
    all of them have the same sequences.
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        get_dataset: Callable[..., dict[str, Any]],
        dataset_lru_cache_size: int = 1,
        always_same_tags: bool = False,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        if not callable(get_dataset):
            raise ConfigError(
                f"{self.name}: get_dataset",
                f"must be a function that returns a dataset dict, but is {get_dataset!r} instead",
            )
        self.get_dataset, self.cache_size = get_dataset, max(dataset_lru_cache_size, 1)
        self.cache: OrderedDict[str, Dataset] = OrderedDict()
        self.always_same_tags = always_same_tags
        self.describe_as(self._dataset_of(1))

    def _dataset_of(self, epoch: int) -> Dataset:
        options = self.get_dataset(self=self, epoch=epoch)
        text = repr(options)
        if text not in self.cache:
            self.cache[text] = sub_dataset(self, options, "inner")
        self.cache.move_to_end(text)
        while len(self.cache) > self.cache_size:
            self.cache.popitem(last=False)[1].finish_epoch(free_resources=True)
        return self.cache[text]

    def init_seq_order(
        self, epoch: int | None = None, seq_list: Sequence[str] | None = None, seq_order: Sequence[int] | None = None
    ) -> bool:
        """Starts an epoch of the dataset for it."""
        self.refuse_written_orders()
        self.epoch, self._loaded = epoch, {}
        inner = self._dataset_of(epoch or 1)
        self._check_same(inner)
        self.inner = inner
        inner.limit_keys(self.wanted_keys)
        inner.init_seq_order(epoch, seq_list=seq_list, seq_order=seq_order)
        return True

    def _check_same(self, inner: Dataset) -> None:
        for key, dims in self.num_outputs.items():
            if key not in inner.num_outputs or inner.num_outputs[key] != dims:
                raise ConfigError(
                    f"{self.name}: get_dataset",
                    f'must return datasets with the same keys and dims, but "{key}" is {dims} in epoch 1'
                    f" and {inner.num_outputs.get(key)} now",
                )

    def get_total_num_seqs(self, *, fast: bool = False) -> int | float:
        """Known only if all epochs have the same sequences."""
        if not self.always_same_tags:
            raise NotImplementedError(f"{self.name}: each epoch may have different sequences")
        return self.inner.get_total_num_seqs(fast=fast)

    def get_all_tags(self) -> Sequence[str]:
        """Known only if all epochs have the same sequences."""
        if not self.always_same_tags:
            raise NotImplementedError(f"{self.name}: each epoch may have different sequences")
        return self.inner.get_all_tags()

    @property
    def supports_seq_order_sorting(self) -> bool:
        """The inner dataset has the order."""
        return False

    def get_current_seq_order(self) -> np.ndarray:
        """As the inner dataset."""
        return self.inner.get_current_seq_order()
