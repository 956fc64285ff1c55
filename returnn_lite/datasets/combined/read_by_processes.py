"""Datasets whose sequences several processes read at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.combined.read_in_order import Item, ReadInOrder
from returnn_lite.datasets.combined.sub import Wrapper
from returnn_lite.datasets.combined.worker_process import Workers
from returnn_lite.datasets.combined.workers import LocalReader, ProcessReader, shares_of
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.log import Log


class ReadByProcesses(ReadInOrder, Wrapper):
    """The sequences that readers give in turn, which can be read forwards only. A subclass says which readers.

    `workers`: the processes, which stay from epoch to epoch.
    """

    def __init__(self, base: BaseOptions | None = None, *, log: Log | None = None):
        super().__init__(base, log=log)
        self.workers = Workers(stay=True)
        self.forget()

    def forget(self) -> None:
        """No readers, and no sequences."""
        self.readers: list[LocalReader] | list[ProcessReader] = []
        self.turn, self.launched = 0, False
        self._begin()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "workers": None, "readers": [], "launched": False, "_made": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, workers=Workers(stay=True))

    @abstractmethod
    def launch(self) -> list[LocalReader] | list[ProcessReader]:
        """The readers of the epoch, when the first sequence is asked for."""

    def _next(self) -> Item | None:
        if not self.launched:
            self.readers, self.launched = self.launch(), True
        while self.readers:
            try:
                item = self.readers[self.turn].next()
            except BaseException:
                self.workers.close()
                raise
            if item is not None:
                self.turn = (self.turn + 1) % len(self.readers)
                return item
            self.readers.pop(self.turn)
            self.turn = self.turn % max(len(self.readers), 1)
        return None

    def get_complete_frac(self, seq_idx: int) -> float:
        """As in the process that read it."""
        found = self._made[seq_idx].complete if seq_idx in self._made else None
        return super().get_complete_frac(seq_idx) if found is None else found

    def limit_keys(self, keys: Sequence[str] | None) -> None:
        """All keys are read: the processes may have begun already."""


class ReadAhead(ReadByProcesses):
    """The epoch that a dataset has begun, read by `count` workers, each up to `buffer` sequences ahead.

    Worker w of n reads every n-th sequence. Random changes of audio differ between workers.
    """

    def __init__(self, inner: Dataset, count: int, buffer: int):
        super().__init__(inner.options, log=inner.log)
        self.describe_as(inner)
        self.name, self.epoch = inner.name, inner.epoch
        self.count, self.buffer = count, buffer

    def launch(self) -> list[ProcessReader]:
        """Lets the processes begin."""
        started = self.workers.begin([(share, self.inner) for share in shares_of(self.count)])
        return [ProcessReader(worker, self.buffer) for worker in started]
