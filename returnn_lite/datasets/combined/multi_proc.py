"""A dataset read by several processes at once."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

from returnn_lite.config_value import ConfigDict
from returnn_lite.datasets.combined.sub import Wrapper, sub_dataset
from returnn_lite.datasets.combined.workers import Item, LocalWorker, ProcessWorker
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.numbers_dict import NumbersDict
from returnn_lite.datasets.options import BaseOptions, DataError, OrderRequest
from returnn_lite.datasets.registry import dataset
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log

SHARDING = ("seq_order", "dedicated")


@dataset("MultiProcDataset")
class MultiProcDataset(Wrapper):
    """Reads the inner dataset with `num_workers` processes, each up to `buffer_size` sequences ahead.

    The sequences and their order are those of the inner dataset ("seq_order": worker w of n reads every n-th), or its
    shards in turn ("dedicated"). Sequences can be read forwards only. Options of all datasets are defaults of the inner
    one. A dataset that cannot be sent to processes (functions of a config) is read in this one.
    """

    forwards_only = True

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        dataset: ConfigDict,
        num_workers: int,
        buffer_size: int,
        sharding_method: str = "seq_order",
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        for option, value in (("num_workers", num_workers), ("buffer_size", buffer_size)):
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{self.name}: {option}", f"must be a whole number >= 1, but is {value!r} instead")
        if sharding_method not in SHARDING:
            raise ConfigError(
                f"{self.name}: sharding_method", f"must be one of {SHARDING}, but is {sharding_method!r} instead"
            )
        own = ("name", "_num_shards", "_shard_index")
        defaults = {name: value for name, value in self.options.changed().items() if name not in own}
        self.describe_as(sub_dataset(self, dataset, "inner", **defaults))
        self.dedicated, self.num_workers, self.buffer = sharding_method == "dedicated", num_workers, buffer_size
        self.shards = [self.inner]
        if self.dedicated:
            count, first = self.options._num_shards * num_workers, self.options._shard_index * num_workers
            shards = ({"_num_shards": count, "_shard_index": first + i} for i in range(num_workers))
            self.shards = [sub_dataset(self, dataset, f"inner{i}", **{**defaults, **s}) for i, s in enumerate(shards)]
        self.arguments: OrderRequest = {}
        self._start()

    def _start(self) -> None:
        self.workers: list[LocalWorker | ProcessWorker] = []
        self.made: dict[int, Item] = {}
        self.count, self.turn = 0, 0

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "workers": [], "made": {}}

    def init_seq_order(
        self, epoch: int | None = None, seq_list: Sequence[str] | None = None, seq_order: Sequence[int] | None = None
    ) -> bool:
        """Starts an epoch in all processes."""
        if self.dedicated:
            self.refuse_lists(seq_list, seq_order)
        self._close()
        self.epoch, self._loaded = epoch, {}
        self.arguments = {"epoch": epoch, "seq_list": seq_list, "seq_order": seq_order}
        if not self.dedicated:
            self.inner.init_seq_order(**self.arguments)
        return True

    def _launch(self) -> None:
        """Starts the processes of the epoch, at the first sequence that is asked for."""
        n = self.num_workers
        jobs = [(self.shards[i if self.dedicated else 0], 0 if self.dedicated else i) for i in range(n)]
        try:
            if multiprocessing.current_process().daemon:
                raise TypeError("this process is itself a worker")
            content = [
                pickle.dumps((inner, first, 1 if self.dedicated else n, self.arguments)) for inner, first in jobs
            ]
        except (pickle.PicklingError, AttributeError, TypeError) as exc:
            self.log.v2(f"{self.name}: cannot be sent to other processes, so it is read in this process: {exc}")
            local = [LocalWorker(inner, first, 1 if self.dedicated else n) for inner, first in jobs]
            for worker in local if self.dedicated else ():
                worker.inner.init_seq_order(**self.arguments)
            self.workers = [*local]
            return
        self.workers = [ProcessWorker(self.name, part, self.buffer) for part in content]

    # --- sequences ---

    def _pull(self, seq_idx: int) -> bool:
        """Takes sequences from the processes in turn; False if they end before."""
        if self.epoch is None and not any(self.arguments.values()):
            return False
        if not self.workers and self.count == 0:
            self._launch()
        while self.count <= seq_idx and self.workers:
            item = self.workers[self.turn].next()
            if item is None:
                self.workers.pop(self.turn).close()
                self.turn = self.turn % max(len(self.workers), 1)
                continue
            self.made[self.count] = item
            self.count += 1
            self.turn = (self.turn + 1) % len(self.workers)
        return seq_idx < self.count

    def _item(self, seq_idx: int) -> Item:
        if not self._pull(seq_idx):
            raise DataError(self.name, f"there is no sequence {seq_idx}, the epoch has {self.count}")
        if seq_idx not in self.made:
            raise DataError(
                self.name, f"sequence {seq_idx} is no longer available: sequences can only be read in order"
            )
        return self.made[seq_idx]

    def load_seqs(self, start: int, end: int) -> None:
        """Takes the sequences start ≤ i < end and forgets those before."""
        self.made = {i: item for i, item in self.made.items() if i >= start}
        self._pull(end - 1)

    def _seq(self, seq_idx: int) -> Seq:
        return self._item(seq_idx)[1]

    def load_epoch_seqs(self, seq_idx: Sequence[int]) -> list[Seq]:
        """The sequences."""
        return [self._item(i)[1] for i in seq_idx]

    def get_tag(self, seq_idx: int) -> str:
        """Tag in the inner dataset."""
        return self._item(seq_idx)[0]

    def get_seq_length(self, seq_idx: int) -> dict[str, int]:
        """Frames per key."""
        return NumbersDict({key: len(array) if array.ndim else 1 for key, array in self._seq(seq_idx).items()})

    def epoch_lengths(self, start: int, end: int) -> np.ndarray | None:
        """As the inner dataset, where it has the same order."""
        return None if self.dedicated else self.inner.epoch_lengths(start, end)

    def get_complete_frac(self, seq_idx: int) -> float:
        """As in the process that read it."""
        return self.made[seq_idx][2] if seq_idx in self.made else super().get_complete_frac(seq_idx)

    @property
    def num_seqs(self) -> int | float:
        """As the inner dataset; with shards not known before the end."""
        if not self.dedicated:
            return self.inner.num_seqs
        if self.workers or (self.count == 0 and self.epoch is not None):
            raise NotImplementedError(f"{self.name}: the number of sequences is not known before the end")
        return self.count

    def is_less_than_num_seqs(self, n: int) -> bool:
        """Whether there is a sequence with index n."""
        return self._pull(n) if self.dedicated else self.inner.is_less_than_num_seqs(n)

    def limit_keys(self, keys: Sequence[str] | None) -> None:
        """All keys are read: the processes may have begun already."""

    def get_current_seq_order(self) -> np.ndarray:
        """As the inner dataset."""
        return self.inner.get_current_seq_order()

    def _close(self) -> None:
        for worker in self.workers:
            worker.close()
        self._start()

    def finish_epoch(self, free_resources: bool = False) -> None:
        """Ends the epoch and the processes."""
        self._close()
        self.arguments = {}
        self.epoch = None
        super().finish_epoch(free_resources)
