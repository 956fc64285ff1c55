"""Datasets whose sequences several processes read at once."""

from __future__ import annotations

import pickle
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.combined.read_in_order import Item, ReadInOrder
from returnn_lite.datasets.combined.sub import Wrapper
from returnn_lite.datasets.combined.workers import LocalWorker, ProcessWorker, shares_of
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.log import Log


class ReadByProcesses(ReadInOrder, Wrapper):
    """The sequences that workers give in turn, which can be read forwards only. A subclass says which workers."""

    def __init__(self, base: BaseOptions | None = None, *, log: Log | None = None):
        super().__init__(base, log=log)
        self.forget()

    def forget(self) -> None:
        """No workers, and no sequences."""
        self.workers: list[LocalWorker | ProcessWorker] = []
        self.turn = 0
        self._begin()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "workers": [], "_made": {}}

    @abstractmethod
    def launch(self) -> list[LocalWorker | ProcessWorker]:
        """Starts the workers of the epoch, when the first sequence is asked for."""

    def _next(self) -> Item | None:
        if not self.workers:
            self.workers = self.launch()
        while self.workers:
            item = self.workers[self.turn].next()
            if item is not None:
                self.turn = (self.turn + 1) % len(self.workers)
                return item
            self.workers.pop(self.turn).close()
            self.turn = self.turn % max(len(self.workers), 1)
        return None

    def get_complete_frac(self, seq_idx: int) -> float:
        """As in the process that read it."""
        found = self._made[seq_idx].complete if seq_idx in self._made else None
        return super().get_complete_frac(seq_idx) if found is None else found

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
