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
from returnn_lite.processes import become_helper, in_main_thread

T = TypeVar("T")
AHEAD = 2  # batches that each process makes ahead of time


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
        for made in workers:
            if isinstance(made, Failed):
                raise made.error
            yield replace(made, data={key: as_array(value) for key, value in made.data.items()})


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
    if info is None:
        return
    for dataset in each_dataset(info.dataset.dataset):  # type: ignore[attr-defined]  # a `Loading`
        rng = getattr(dataset, "rng", None)
        if isinstance(rng, np.random.RandomState):
            rng.seed((dataset.epoch_seed() * 1_000_003 + number) % 2**32)


def each_dataset(dataset: Dataset) -> Iterator[Dataset]:
    """A dataset and all inside it."""
    found, waiting = set[int](), [dataset]
    while waiting:
        one = waiting.pop()
        if id(one) in found:
            continue
        found.add(id(one))
        yield one
        for value in vars(one).values():
            parts = value.values() if isinstance(value, dict) else value
            inside = list(parts) if isinstance(value, dict | list | tuple) else [value]
            waiting += [part for part in inside if isinstance(part, Dataset)]


def itself(made: T) -> T:
    """Leaves a batch as it is."""
    return made


def as_tensor(value: ConfigValue) -> ConfigValue:
    """An array as a tensor, which goes between processes through shared memory; texts stay."""
    return torch.from_numpy(value) if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" else value


def as_array(value: ConfigValue) -> ConfigValue:
    """The same memory as an array."""
    return value.numpy() if isinstance(value, torch.Tensor) else value


def why_not(dataset: Dataset) -> str:
    """Why several processes cannot make the batches of a dataset; "" if they can."""
    if dataset.forwards_only or dataset.epoch_lengths(0, 1) is None:
        return "its lengths are not known before it is read; see MultiProcDataset"
    try:
        pickle.dumps(dataset)
    except (pickle.PicklingError, AttributeError, TypeError) as exc:
        return f"it cannot be sent to other processes: {exc}"
    return ""
