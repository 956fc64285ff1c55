"""What reads a part of a dataset's sequences: a process, or this one where the dataset cannot be sent to others."""

from __future__ import annotations

import random
import sys
from collections import deque
from dataclasses import dataclass

import numpy as np

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.batches.iterate import place_of
from returnn_lite.datasets.combined.read_in_order import Item
from returnn_lite.datasets.combined.sending import each_dataset
from returnn_lite.datasets.combined.worker_process import Worker
from returnn_lite.datasets.options import OrderRequest, blamed

LARGEST = 16  # sequences in an answer of a process


@dataclass
class Share:
    """The job of worker `number`: sequences first, first + step, … of a dataset, so many at each request.

    `order`: the arguments that begin the epoch; None where it has begun.
    """

    number: int
    first: int = 0
    step: int = 1
    order: OrderRequest | None = None

    def begin(self, dataset: Dataset) -> None:
        """Begins the epoch; random numbers are those of this worker alone."""
        self.inner, self.position = dataset, self.first
        if self.order is not None:
            dataset.init_seq_order(**self.order)
        draw_as(dataset, self.number)

    def answer(self, request: int) -> list[Item | None]:
        """So many sequences; None in place of the one behind the last."""
        found: list[Item | None] = []
        while len(found) < request and (not found or found[-1] is not None):
            try:
                found.append(item_of(self.inner, self.position))
            except Exception as exc:
                raise blamed(place_of(self.inner, self.position), exc) from exc
            self.position += self.step
        return found


def shares_of(count: int, *, order: OrderRequest | None = None) -> list[Share]:
    """So many jobs, which share the sequences in turn."""
    return [Share(number, number, count, order) for number in range(count)]


class LocalReader:
    """Reads the sequences of a share when asked. The epoch has begun."""

    def __init__(self, share: Share, dataset: Dataset):
        self.inner, self.position, self.step = dataset, share.first, share.step

    def next(self) -> Item | None:
        """The next sequence; None at the end."""
        item = item_of(self.inner, self.position)
        self.position += self.step
        return item


class ProcessReader:
    """The sequences that a worker reads, up to `buffer` ahead. It has begun its share."""

    def __init__(self, worker: Worker, buffer: int):
        self.worker, self.size = worker, min(max(buffer // 4, 1), LARGEST)
        self.come: deque[Item | None] = deque()
        for _ in range(max(buffer // self.size, 1)):
            worker.ask(self.size)

    def next(self) -> Item | None:
        """The next sequence; None at the end."""
        if not self.come:
            self.come.extend(self.worker.answer())
            if self.come[-1] is not None:
                self.worker.ask(self.size)
        return self.come.popleft()


def draw_as(dataset: Dataset, number: int) -> None:
    """In worker `number`: random changes that no other worker makes, and that do not depend on earlier epochs."""
    for each in each_dataset(dataset):
        rng = getattr(each, "rng", None)
        if isinstance(rng, np.random.RandomState):
            rng.seed(_seed(each, number))
    seed = (_seed(dataset, number) + 7919 * (dataset.epoch or 0)) % 2**32
    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:  # functions of the config may draw from it
        sys.modules["torch"].manual_seed(seed)


def _seed(dataset: Dataset, number: int) -> int:
    return int((dataset.epoch_seed() * 1_000_003 + number) % 2**32)


def item_of(inner: Dataset, i: int) -> Item | None:
    """A sequence; None behind the last."""
    if not inner.is_less_than_num_seqs(i):
        return None
    inner.load_seqs(i, i + 1)
    seq = {key: inner.get_data(i, key) for key in inner.get_data_keys()}
    return Item(inner.get_tag(i), seq, inner.get_complete_frac(i))
