"""What reads the sequences of a MultiProcDataset: processes, or this one where the dataset cannot be sent to others."""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.batches.iterate import place_of
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import DataError, blamed
from returnn_lite.processes import PATIENCE, become_helper, end_helper, in_main_thread, start_helper

Item = tuple[str, Seq, float]  # tag, data by key, and how much of the epoch is over with it


class LocalWorker:
    """Reads sequences number first, first + step, … when asked."""

    def __init__(self, inner: Dataset, first: int, step: int):
        self.inner, self.position, self.step = inner, first, step

    def next(self) -> Item | None:
        """The next sequence; None at the end."""
        item = _item_of(self.inner, self.position)
        self.position += self.step
        return item

    def close(self) -> None:
        """Nothing is open."""


class ProcessWorker:
    """Reads sequences in a process, up to `buffer` ahead. `content`: (dataset, first, step, epoch), pickled.

    A pipe, and not a queue of `multiprocessing`: that needs semaphores, which some containers lack, and does not tell
    when the process has died.
    """

    def __init__(self, name: str, content: bytes, buffer: int):
        self.name = name
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(content, theirs, buffer, in_main_thread()), daemon=True)
        start_helper(self.process)
        theirs.close()

    def next(self) -> Item | None:
        """The next sequence; None at the end. Raises what the process raised, and DataError if it has died."""
        wait([self.pipe, self.process.sentinel])
        try:
            found = self.pipe.recv() if self.pipe.poll() else self._died()
        except (EOFError, OSError):
            found = self._died()
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[no-any-return]

    def _died(self) -> DataError:
        self.process.join(PATIENCE)
        return DataError(self.name, f"a worker process died (exit code {self.process.exitcode})")

    def close(self) -> None:
        """Ends the process."""
        end_helper(self.process)
        self.pipe.close()


def _item_of(inner: Dataset, i: int) -> Item | None:
    if not inner.is_less_than_num_seqs(i):
        return None
    inner.load_seqs(i, i + 1)
    return inner.get_tag(i), {key: inner.get_data(i, key) for key in inner.get_data_keys()}, inner.get_complete_frac(i)


# --- in the process ---


def _work(content: bytes, results: Connection, buffer: int, of_main_thread: bool) -> None:
    """Sends all sequences, then None; or the error that ends it. A thread sends while the next ones are read."""
    become_helper(of_main_thread=of_main_thread)
    waiting: queue.Queue[bytes | None] = queue.Queue(buffer)
    sender = threading.Thread(target=_send, args=(waiting, results), daemon=True)
    sender.start()
    for message in _messages(content):
        waiting.put(message)
    waiting.put(None)
    sender.join()


def _messages(content: bytes) -> Iterator[bytes]:
    i, inner = 0, None
    try:
        inner, i, step, arguments = pickle.loads(content)
        inner.init_seq_order(**arguments)
        while True:
            item = _item_of(inner, i)
            yield pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
            if item is None:
                return
            i += step
    except Exception as exc:
        yield pickle.dumps(blamed("a worker process" if inner is None else place_of(inner, i), exc))


def _send(waiting: queue.Queue[bytes | None], results: Connection) -> None:
    """Ends when nobody listens any more: the process is then ended, too."""
    try:
        while (message := waiting.get()) is not None:
            results.send_bytes(message)
    except OSError:
        while waiting.get() is not None:
            pass
