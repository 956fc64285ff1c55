"""Batches made in several processes by torch's DataLoader; arrays come back through shared memory."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, get_worker_info

from returnn_lite.config_value import ConfigValue
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.batches.batching import BatchingOptions
from returnn_lite.datasets.batches.collate import Batch
from returnn_lite.datasets.batches.loader import Collating, Loader
from returnn_lite.datasets.batches.slice_batch import SliceBatch
from returnn_lite.datasets.combined.read_by_processes import ReadAhead
from returnn_lite.datasets.combined.workers import draw_as
from returnn_lite.processes import become_helper, in_main_thread, one_thread_each

T = TypeVar("T")
AHEAD = 2  # batches that each process makes ahead of time
SEQS_A_BATCH = 16  # where it is sequences that they read


class WorkerLoader(Loader):
    """A `Loader` whose batches are made in `count` processes, which get a copy of the dataset when an epoch begins.

    The batches and their order are those of one process, but for random changes of audio: each process draws its own.
    """

    def __init__(
        self,
        dataset: Dataset,
        options: BatchingOptions,
        *,
        count: int,
        ahead: int = AHEAD,
        **more: Any,  # Any: the options of `Loader`
    ) -> None:
        super().__init__(dataset, options, **more)
        self.count, self.ahead = count, ahead

    def batches(self, plans: Iterable[SliceBatch]) -> Iterator[Batch]:
        """Deals the plans out, and collects what is made of them in their order."""
        loading = Loading(self.dataset, self.collating)
        workers = DataLoader(
            loading,
            batch_size=None,
            sampler=Plans(plans),
            num_workers=self.count,
            prefetch_factor=self.ahead,
            collate_fn=itself,
            multiprocessing_context="spawn",
            worker_init_fn=partial(begin, of_main_thread=in_main_thread()),
        )
        with one_thread_each():
            made_by_workers = iter(workers)
        for made in made_by_workers:
            if isinstance(made, Failed):
                raise made.error
            yield replace(made, data={key: as_array(value) for key, value in made.data.items()})


class SeqWorkerLoader(Loader):
    """A `Loader` whose sequences are read in `count` processes, for datasets that know a length when it is read.

    Each process reads `ahead` times SEQS_A_BATCH sequences ahead of time.
    """

    def __init__(
        self,
        dataset: Dataset,
        options: BatchingOptions,
        *,
        count: int,
        ahead: int = AHEAD,
        **more: Any,  # Any: the options of `Loader`
    ) -> None:
        self.read = ReadAhead(dataset, count, ahead * SEQS_A_BATCH)
        super().__init__(self.read, options, **more)

    def batches(self, plans: Iterable[SliceBatch]) -> Iterator[Batch]:
        """The batches of the plans, in order."""
        try:
            yield from super().batches(plans)
        finally:
            self.read.close()


class Plans(Sampler[SliceBatch]):
    """The plans as what torch calls indices."""

    def __init__(self, plans: Iterable[SliceBatch]) -> None:
        self.plans = plans

    def __iter__(self) -> Iterator[SliceBatch]:
        return iter(self.plans)


@dataclass
class Failed:
    """An error in place of a batch."""

    error: Exception


class Loading(torch.utils.data.Dataset[Batch | Failed]):
    """In each process: the dataset, from which a plan's batch is made."""

    def __init__(self, dataset: Dataset, collating: Collating) -> None:
        self.dataset, self.collating = dataset, collating

    def __getitem__(self, plan: SliceBatch) -> Batch | Failed:
        try:
            batch = self.collating(self.dataset, plan)
        except Exception as exc:  # torch would put a traceback into its message
            return Failed(exc)
        return replace(batch, data={key: as_tensor(value) for key, value in batch.data.items()})


def begin(number: int, *, of_main_thread: bool) -> None:
    """In a process that has just begun: it ends with the run, and draws random numbers of its own."""
    become_helper(of_main_thread=of_main_thread)
    info = get_worker_info()
    if info is not None:
        draw_as(info.dataset.dataset, number)  # type: ignore[attr-defined]  # a `Loading`


def itself(made: T) -> T:
    """Leaves a batch as it is."""
    return made


def as_tensor(value: ConfigValue) -> ConfigValue:
    """An array as a tensor, which goes between processes through shared memory; texts stay."""
    return torch.from_numpy(value) if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" else value


def as_array(value: ConfigValue) -> ConfigValue:
    """The same memory as an array."""
    return value.numpy() if isinstance(value, torch.Tensor) else value


def loader_of_processes(dataset: Dataset) -> type[WorkerLoader] | type[SeqWorkerLoader]:
    """Batches are made in the processes where the lengths are known before, so that they can be planned."""
    return WorkerLoader if dataset.epoch_lengths(0, 1) is not None else SeqWorkerLoader


def why_not(dataset: Dataset) -> str:
    """Why several processes cannot read a dataset; "" if they can."""
    if dataset.forwards_only:
        return "it can be read in order only; see MultiProcDataset"
    try:
        pickle.dumps(dataset)
    except (pickle.PicklingError, AttributeError, TypeError) as exc:
        return f"it cannot be sent to other processes: {exc}"
    return ""
