"""What reads a part of a dataset's sequences: a process, or this one where the dataset cannot be sent to others."""

from __future__ import annotations

import itertools
import multiprocessing
import pickle
import queue
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

import numpy as np

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.batches.iterate import place_of
from returnn_lite.datasets.combined.read_in_order import Item
from returnn_lite.datasets.options import DataError, OrderRequest, blamed
from returnn_lite.processes import PATIENCE, become_helper, end_helper, in_main_thread, start_helper

LARGEST = 16  # sequences in a message of a process


@dataclass(frozen=True)
class Job:
    """Sequences first, first + step, … of a dataset, for worker `number`.

    `order`: the arguments that begin the epoch; None where it has begun.
    """

    inner: Dataset
    number: int
    first: int = 0
    step: int = 1
    order: OrderRequest | None = None

    def begin(self) -> None:
        """Begins the epoch; random numbers are those of this worker alone."""
        if self.order is not None:
            self.inner.init_seq_order(**self.order)
        draw_as(self.inner, self.number)


def shares_of(inner: Dataset, count: int, *, order: OrderRequest | None = None) -> list[Job]:
    """So many jobs, which share the sequences in turn."""
    return [Job(inner, number, number, count, order) for number in range(count)]


class LocalWorker:
    """Reads the sequences of a job when asked. The epoch has begun."""

    def __init__(self, job: Job):
        self.inner, self.position, self.step = job.inner, job.first, job.step

    def next(self) -> Item | None:
        """The next sequence; None at the end."""
        item = _item_of(self.inner, self.position)
        self.position += self.step
        return item

    def close(self) -> None:
        """Nothing is open."""


class ProcessWorker:
    """Reads sequences in a process, up to `buffer` ahead. `content`: a `Job`, pickled.

    A pipe, and not a queue of `multiprocessing`: that needs semaphores, which some containers lack, and does not tell
    when the process has died.
    """

    def __init__(self, name: str, content: bytes, buffer: int):
        self.name = name
        self.come: deque[Item | Exception | None] = deque()
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(content, theirs, buffer, in_main_thread()), daemon=True)
        start_helper(self.process)
        theirs.close()

    def next(self) -> Item | None:
        """The next sequence; None at the end. Raises what the process raised, and DataError if it has died."""
        if not self.come:
            wait([self.pipe, self.process.sentinel])
            try:
                self.come.extend(self.pipe.recv() if self.pipe.poll() else [self._died()])
            except (EOFError, OSError):
                self.come.append(self._died())
        found = self.come.popleft()
        if isinstance(found, Exception):
            raise found
        return found

    def _died(self) -> DataError:
        self.process.join(PATIENCE)
        return DataError(self.name, f"a worker process died (exit code {self.process.exitcode})")

    def close(self) -> None:
        """Ends the process."""
        end_helper(self.process)
        self.pipe.close()


def draw_as(dataset: Dataset, number: int) -> None:
    """In worker `number`: random changes that no other worker makes."""
    for each in each_dataset(dataset):
        rng = getattr(each, "rng", None)
        if isinstance(rng, np.random.RandomState):
            rng.seed((each.epoch_seed() * 1_000_003 + number) % 2**32)


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


def _item_of(inner: Dataset, i: int) -> Item | None:
    if not inner.is_less_than_num_seqs(i):
        return None
    inner.load_seqs(i, i + 1)
    seq = {key: inner.get_data(i, key) for key in inner.get_data_keys()}
    return Item(inner.get_tag(i), seq, inner.get_complete_frac(i))


# --- in the process ---


def _work(content: bytes, results: Connection, buffer: int, of_main_thread: bool) -> None:
    """Sends all sequences, some at a time, then None; or the error that ends it. A thread sends while more are read."""
    become_helper(of_main_thread=of_main_thread)
    size = min(max(buffer // 4, 1), LARGEST)
    waiting: queue.Queue[bytes | None] = queue.Queue(buffer // size)
    sender = threading.Thread(target=_send, args=(waiting, results), daemon=True)
    sender.start()
    items = _items(content)
    while some := list(itertools.islice(items, size)):
        waiting.put(pickle.dumps(some, pickle.HIGHEST_PROTOCOL))
    waiting.put(None)
    sender.join()


def _items(content: bytes) -> Iterator[Item | Exception | None]:
    i, inner = 0, None
    try:
        job: Job = pickle.loads(content)
        inner, i = job.inner, job.first
        job.begin()
        while True:
            item = _item_of(inner, i)
            yield item
            if item is None:
                return
            i += job.step
    except Exception as exc:
        yield blamed("a worker process" if inner is None else place_of(inner, i), exc)


def _send(waiting: queue.Queue[bytes | None], results: Connection) -> None:
    """Ends when nobody listens any more: the process is then ended, too."""
    try:
        while (message := waiting.get()) is not None:
            results.send_bytes(message)
    except OSError:
        while waiting.get() is not None:
            pass
