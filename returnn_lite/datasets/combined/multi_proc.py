"""A dataset read by several processes at once."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Sequence

import numpy as np

from returnn_lite.config_value import ConfigDict
from returnn_lite.datasets.combined.read_by_processes import ReadByProcesses
from returnn_lite.datasets.combined.sub import sub_dataset
from returnn_lite.datasets.combined.workers import LocalReader, ProcessReader, Share, shares_of
from returnn_lite.datasets.options import BaseOptions, OrderRequest
from returnn_lite.datasets.registry import dataset
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log

SHARDING = ("seq_order", "dedicated")


@dataset("MultiProcDataset")
class MultiProcDataset(ReadByProcesses):
    """Reads the inner dataset with `num_workers` processes, each up to `buffer_size` sequences ahead.

    The sequences and their order are those of the inner dataset ("seq_order": worker w of n reads every n-th), or its
    shards in turn ("dedicated"). Sequences can be read forwards only. Options of all datasets are defaults of the inner
    one. A dataset that cannot be sent to processes (functions of a config) is read in this one.
    """

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

    def init_seq_order(
        self, epoch: int | None = None, seq_list: Sequence[str] | None = None, seq_order: Sequence[int] | None = None
    ) -> bool:
        """Starts an epoch in all processes."""
        if self.dedicated:
            self.refuse_lists(seq_list, seq_order)
        self.forget()
        self.epoch, self._loaded = epoch, {}
        self.arguments = {"epoch": epoch, "seq_list": seq_list, "seq_order": seq_order}
        if not self.dedicated:
            self.inner.init_seq_order(**self.arguments)
        return True

    def launch(self) -> list[LocalReader] | list[ProcessReader]:
        """Lets the processes begin the epoch."""
        if self.dedicated:
            shares = [Share(number, order=self.arguments) for number in range(self.num_workers)]
        else:
            shares = shares_of(self.num_workers, order=self.arguments)
        jobs = list(zip(shares, self.shards * (1 if self.dedicated else self.num_workers), strict=True))
        try:
            if multiprocessing.current_process().daemon:
                raise TypeError("this process is itself a worker")
            workers = self.workers.begin(jobs)
        except (pickle.PicklingError, AttributeError, TypeError) as exc:
            self.log.v2(f"{self.name}: cannot be sent to other processes, so it is read in this process: {exc}")
            for dataset in self.shards if self.dedicated else ():
                dataset.init_seq_order(**self.arguments)
            return [LocalReader(share, dataset) for share, dataset in jobs]
        return [ProcessReader(worker, self.buffer) for worker in workers]

    def _pull(self, seq_idx: int) -> bool:
        """As far as an epoch has begun."""
        return self._in_epoch and super()._pull(seq_idx)

    @property
    def _in_epoch(self) -> bool:
        return any(value is not None for value in self.arguments.values())

    def epoch_lengths(self, start: int, end: int) -> np.ndarray | None:
        """As the inner dataset, where it has the same order."""
        return None if self.dedicated else self.inner.epoch_lengths(start, end)

    @property
    def num_seqs(self) -> int | float:
        """As the inner dataset; with shards not known before the end."""
        if not self.dedicated:
            return self.inner.num_seqs
        if self._in_epoch and not self._ended:
            raise NotImplementedError(f"{self.name}: the number of sequences is not known before the end")
        return self._count

    def is_less_than_num_seqs(self, n: int) -> bool:
        """Whether there is a sequence with index n."""
        return self._pull(n) if self.dedicated else self.inner.is_less_than_num_seqs(n)

    def get_current_seq_order(self) -> np.ndarray:
        """As the inner dataset."""
        return self.inner.get_current_seq_order()

    def finish_epoch(self, free_resources: bool = False) -> None:
        """Ends the epoch, and the processes if nothing is to be kept."""
        self.forget()
        if free_resources:
            self.workers.close()
        self.arguments = {}
        self.epoch = None
        super().finish_epoch(free_resources)
