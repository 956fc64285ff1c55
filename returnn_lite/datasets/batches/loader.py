"""Reads the batches of an epoch ahead of time, in one background thread.

A thread and not a process: batches then need no way back through a pipe, and a training step spends most of its time
outside the interpreter.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.batches.batching import BatchingOptions
from returnn_lite.datasets.batches.collate import Batch, collate
from returnn_lite.datasets.batches.epoch_batches import epoch_batches
from returnn_lite.datasets.batches.iterate import place_of
from returnn_lite.datasets.batches.slice_batch import SliceBatch
from returnn_lite.datasets.options import DataError, blamed
from returnn_lite.errors import ConfigError, did_you_mean

__all__ = ["Batch", "Loader"]

END = object()

T = TypeVar("T")
Item = tuple[Any, BaseException | None]  # a batch, or what `transform` makes of it, or END; an error in place of it


class Loader:
    """Iterates the batches of one epoch of `dataset`, whose `init_seq_order` was called before.

    `keys` are loaded as arrays of `dtypes` (by key; the dataset's own where not given; "string" for lists of str).
    `workers` is 1 (background thread, up to `prefetch` batches ahead) or 0 (all in the calling thread). `static_keys`
    have no time axis, `classes` says how many classes sparse keys have, `refuse_nan` makes NaN in frames an error,
    `check` may refuse a batch; `transform` is applied to each batch in the worker. An error there is raised in the
    consumer, naming the sequence.
    After the pass, `wait_time` are the seconds that the consumer waited for batches, without those in which its device
    still had work: `busy` says so.
    """

    def __init__(
        self,
        dataset: Dataset,
        options: BatchingOptions,
        *,
        keys: Sequence[str],
        dtypes: Mapping[str, str] | None = None,
        workers: int = 1,
        prefetch: int = 4,
        static_keys: Sequence[str] = (),
        classes: Mapping[str, int] | None = None,
        refuse_nan: bool = True,
        check: Callable[[Batch], None] | None = None,
        transform: Callable[[Batch], Any] | None = None,
        busy: Callable[[], bool] = lambda: False,
    ):
        known = dataset.get_data_keys()
        for key in keys:
            if key not in known:
                raise ConfigError(dataset.name, f'unknown data key "{key}"{did_you_mean(key, known)}; known: {known}')
        self.dataset, self.options = dataset, options
        wanted = {key: (dtypes or {}).get(key) or dataset.get_data_dtype(key) for key in keys}
        scattered = options.buckets is not None or options.shuffled is not None
        self.collating = Collating(wanted, frozenset(static_keys), dict(classes or {}), refuse_nan, scattered)
        self.workers, self.prefetch = workers, prefetch
        self.check, self.transform = check, transform
        self.busy, self.wait_time = busy, 0.0
        dataset.limit_keys(list(keys))

    def __iter__(self) -> Iterator[Any]:
        self.wait_time = 0.0
        batches = self._in_background() if self.workers else self._made()
        try:
            while True:
                asked = time.monotonic()
                batch = next(batches, END)
                waited = time.monotonic() - asked
                self.wait_time += 0.0 if self.busy() else waited
                if batch is END:
                    return
                yield batch
        finally:
            batches.close()

    def _made(self) -> Generator[Any, None, None]:
        """The batches of this share, made when asked for."""
        first, step = self.options.share
        plans = itertools.islice(epoch_batches(self.dataset, self.options), first, None, step)
        for batch in self.batches(plans):
            if self.check is not None:
                self.check(batch)
            yield self.transform(batch) if self.transform else batch

    def batches(self, plans: Iterable[SliceBatch]) -> Iterator[Batch]:
        """The batches of the plans, in order."""
        for plan in plans:
            yield self.collating(self.dataset, plan)

    def _in_background(self) -> Generator[Any, None, None]:
        channel: Channel[Item] = Channel(self.prefetch)
        interrupted = False
        thread = threading.Thread(target=self._work, args=(channel,), name=f"loader {self.dataset.name}", daemon=True)
        thread.start()
        try:
            while True:
                try:
                    batch, error = channel.get()
                except BaseException:  # a signal: the thread may never come back from its read
                    interrupted = True
                    raise
                if error is not None:
                    raise error
                if batch is END:
                    return
                yield batch
        finally:
            channel.close()
            if not interrupted:
                thread.join()

    def _work(self, channel: Channel[Item]) -> None:
        """Runs in the thread: puts (batch, None) for each batch, then (END, None), or (None, error)."""
        try:
            for batch in self._made():
                if not channel.put((batch, None)):
                    return
            channel.put((END, None))
        except BaseException as exc:  # whatever it is, the consumer must hear of it, not wait for ever
            channel.put((None, exc))


@dataclass(frozen=True)
class Collating:
    """Loads the sequences of a plan and makes its batch; see `Loader`. An error names the sequence.

    scattered: the sequences do not follow each other, so that they are loaded one by one.
    """

    dtypes: Mapping[str, str]
    static_keys: frozenset[str]
    classes: Mapping[str, int]
    refuse_nan: bool
    scattered: bool = False

    def __call__(self, dataset: Dataset, plan: SliceBatch) -> Batch:
        """The batch."""
        seq_idx = plan.slices.seq_idx
        try:
            first = plan.keep_from
            dataset.load_seqs(first, (first if self.scattered else int(seq_idx.max())) + 1)
            return collate(dataset, plan, self.dtypes, self.static_keys, self.classes, self.refuse_nan)
        except DataError:
            raise
        except Exception as exc:
            raise blamed_seq(dataset, plan, exc) from exc


def blamed_seq(dataset: Dataset, plan: SliceBatch, exc: Exception) -> DataError:
    """The error with the tag of the first sequence that cannot be loaded alone, else of the batch's first."""
    suspects = sorted(set(plan.slices.seq_idx.tolist()))
    guilty = suspects[0]
    for i in suspects:
        try:
            dataset.load_seqs(i, i + 1)
        except Exception as own:
            guilty, exc = i, own
            break
    return blamed(place_of(dataset, guilty), exc)


class Channel(Generic[T]):
    """A queue of limited size which can be closed by the reader: a waiting writer then goes on at once."""

    def __init__(self, size: int):
        self.size, self.closed = size, False
        self.items: deque[T] = deque()
        self.changed = threading.Condition()

    def put(self, item: T) -> bool:
        """Waits for room; False if the channel was closed."""
        with self.changed:
            self.changed.wait_for(lambda: self.closed or len(self.items) < self.size)
            if not self.closed:
                self.items.append(item)
                self.changed.notify_all()
            return not self.closed

    def get(self) -> T:
        """Waits for an item."""
        with self.changed:
            self.changed.wait_for(lambda: self.items)
            self.changed.notify_all()
            return self.items.popleft()

    def close(self) -> None:
        """No further items are taken."""
        with self.changed:
            self.closed = True
            self.items.clear()
            self.changed.notify_all()
