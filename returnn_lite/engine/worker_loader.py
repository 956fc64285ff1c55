"""Batches made, or sequences read, in several processes, which stay from epoch to epoch."""

from __future__ import annotations

import itertools
import pickle
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.batches.batching import BatchingOptions
from returnn_lite.datasets.batches.collate import Batch
from returnn_lite.datasets.batches.loader import Collating, Loader
from returnn_lite.datasets.batches.slice_batch import SliceBatch
from returnn_lite.datasets.combined.read_by_processes import ReadAhead
from returnn_lite.datasets.combined.worker_process import Worker, Workers
from returnn_lite.datasets.combined.workers import draw_as

AHEAD = 2  # batches that each process makes ahead of time
SEQS_A_BATCH = 16  # where it is sequences that they read


class WorkerLoader(Loader):
    """A `Loader` whose batches are made in `count` processes, which get a copy of the dataset when an epoch begins.

    The batches and their order are those of one process, but for random changes of audio: each process draws its own.
    `workers`: the processes, if they are to stay; else there are new ones.
    """

    def __init__(
        self,
        dataset: Dataset,
        options: BatchingOptions,
        *,
        count: int,
        ahead: int = AHEAD,
        workers: Workers | None = None,
        **more: Any,  # Any: the options of `Loader`
    ) -> None:
        super().__init__(dataset, options, **more)
        self.count, self.ahead, self.processes = count, ahead, workers or Workers()

    def batches(self, plans: Iterable[SliceBatch]) -> Iterator[Batch]:
        """The batches of the plans, in order."""
        with self.processes.borrowed() as workers:
            yield from self.made_by(workers, plans)

    def made_by(self, workers: Workers, plans: Iterable[SliceBatch]) -> Iterator[Batch]:
        """Deals the plans out in turn; each process has up to `ahead` of them."""
        jobs = [(MakeBatches(number, self.collating), self.dataset) for number in range(self.count)]
        turn, asked, waiting = itertools.cycle(workers.begin(jobs)), deque[Worker](), iter(plans)

        def ask(count: int) -> None:
            for plan, worker in zip(itertools.islice(waiting, count), turn, strict=False):
                worker.ask(plan)
                asked.append(worker)

        ask(self.count * self.ahead)
        while asked:
            batch: Batch = asked.popleft().answer()
            ask(1)
            yield batch


class SeqWorkerLoader(WorkerLoader):
    """A `WorkerLoader` whose processes read sequences, for datasets that know a length when it is read.

    Each process reads `ahead` times SEQS_A_BATCH sequences ahead of time.
    """

    dataset: ReadAhead

    def __init__(
        self,
        dataset: Dataset,
        options: BatchingOptions,
        *,
        count: int,
        ahead: int = AHEAD,
        **more: Any,  # Any: the options of `WorkerLoader`
    ) -> None:
        super().__init__(ReadAhead(dataset, count, ahead * SEQS_A_BATCH), options, count=count, ahead=ahead, **more)

    def made_by(self, workers: Workers, plans: Iterable[SliceBatch]) -> Iterator[Batch]:
        """Collects what they read."""
        self.dataset.workers = workers
        for plan in plans:
            yield self.collating(self.dataset, plan)


@dataclass
class MakeBatches:
    """The job of worker `number`: the batch of each plan."""

    number: int
    collating: Collating

    def begin(self, dataset: Dataset) -> None:
        """Its random numbers are those of this worker alone."""
        self.dataset = dataset
        draw_as(dataset, self.number)

    def answer(self, request: SliceBatch) -> Batch:
        """The batch."""
        return self.collating(self.dataset, request)


def loader_of_processes(dataset: Dataset) -> type[WorkerLoader]:
    """Batches are made in the processes where the lengths are known before, so that they can be planned."""
    return WorkerLoader if dataset.epoch_lengths(0, 1) is not None else SeqWorkerLoader


def why_not(dataset: Dataset, workers: Workers | None = None) -> str:
    """Why several processes cannot read a dataset; "" if they can. `workers` remember those that they can."""
    if dataset.forwards_only:
        return "it can be read in order only; see MultiProcDataset"
    if workers is not None and dataset in workers.readable:
        return ""
    try:
        pickle.dumps(dataset)
    except (pickle.PicklingError, AttributeError, TypeError) as exc:
        return f"it cannot be sent to other processes: {exc}"
    if workers is not None:
        workers.readable.add(dataset)
    return ""
