"""Datasets whose sequences several processes read at once."""

from __future__ import annotations

import pickle
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.combined.read_in_order import ReadInOrder
from returnn_lite.datasets.combined.sub import Wrapper
from returnn_lite.datasets.combined.workers import Item, LocalWorker, ProcessWorker, shares_of
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions, DataError
from returnn_lite.log import Log


class ReadByProcesses(ReadInOrder, Wrapper):
    """The sequences that workers give in turn, which can be read forwards only. A subclass says which workers."""

    forwards_only = True

    def __init__(self, base: BaseOptions | None = None, *, log: Log | None = None):
        super().__init__(base, log=log)
        self.forget()

    def forget(self) -> None:
        """No workers, and no sequences."""
        self.workers: list[LocalWorker | ProcessWorker] = []
        self._made: dict[int, Item] = {}
        self.count, self.turn = 0, 0

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "workers": [], "_made": {}}

    @abstractmethod
    def launch(self) -> list[LocalWorker | ProcessWorker]:
        """Starts the workers of the epoch, when the first sequence is asked for."""

    def _pull(self, seq_idx: int) -> bool:
        """Takes sequences from the workers up to this one; False if they end before."""
        if not self.workers and self.count == 0:
            self.workers = self.launch()
        while self.count <= seq_idx and self.workers:
            item = self.workers[self.turn].next()
            if item is None:
                self.workers.pop(self.turn).close()
                self.turn = self.turn % max(len(self.workers), 1)
                continue
            self._made[self.count] = item
            self.count += 1
            self.turn = (self.turn + 1) % len(self.workers)
        return seq_idx < self.count

    def _item(self, seq_idx: int) -> Item:
        if not self._pull(seq_idx):
            raise DataError(self.name, f"sequence {seq_idx} does not exist: the epoch has {self.count}")
        if seq_idx not in self._made:
            raise DataError(
                self.name, f"sequence {seq_idx} is no longer available: sequences can only be read in order"
            )
        return self._made[seq_idx]

    def _seq(self, seq_idx: int) -> Seq:
        return self._item(seq_idx)[1]

    def get_tag(self, seq_idx: int) -> str:
        """Tag in the inner dataset."""
        return self._item(seq_idx)[0]

    def get_complete_frac(self, seq_idx: int) -> float:
        """As in the process that read it."""
        return self._made[seq_idx][2] if seq_idx in self._made else super().get_complete_frac(seq_idx)

    def limit_keys(self, keys: Sequence[str] | None) -> None:
        """All keys are read: the processes may have begun already."""

    def close(self) -> None:
        """Ends the workers."""
        for worker in self.workers:
            worker.close()
        self.forget()


class ReadAhead(ReadByProcesses):
    """The epoch that a dataset has begun, read by `count` processes, each up to `buffer` sequences ahead.

    Worker w of n reads every n-th sequence. Random changes of audio differ between workers.
    """

    def __init__(self, inner: Dataset, count: int, buffer: int):
        super().__init__(inner.options, log=inner.log)
        self.describe_as(inner)
        self.name, self.epoch = inner.name, inner.epoch
        self.count_of_workers, self.buffer = count, buffer

    def launch(self) -> list[LocalWorker | ProcessWorker]:
        """Starts the processes."""
        jobs = shares_of(self.inner, self.count_of_workers)
        return [ProcessWorker(self.name, pickle.dumps(job), self.buffer) for job in jobs]
