"""A process that works for this one: it gets jobs, one after the other, and answers requests in their order."""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, TypeAlias

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.combined.sending import Receiver, Sender, Sent
from returnn_lite.datasets.options import DataError, blamed
from returnn_lite.processes import PATIENCE, become_helper, end_helper, in_main_thread, start_helper

if sys.platform == "linux":
    import fcntl

ROOM = 1 << 20  # bytes on the way, where the system allows to choose

# What a process is asked for is its job's own,
Request: TypeAlias = Any
# and so is what it answers.
Answer: TypeAlias = Any


class Job(Protocol):
    """What a process does with a dataset that it gets."""

    def begin(self, dataset: Dataset) -> None:
        """The dataset is there."""

    def answer(self, request: Request) -> Answer:
        """Does what is asked for; errors are answers, too."""


@dataclass
class Begin:
    """The request to work at a job from here on."""

    job: Job
    sent: Sent


class Worker:
    """One process.

    Pipes, and not queues of `multiprocessing`: those need semaphores, which some containers lack, and do not tell when
    the process has died.
    """

    def __init__(self) -> None:
        self.name = ""
        self.asked = self.stale = 0  # answers that are to come, and those that nobody wants any more
        context = multiprocessing.get_context("spawn")
        theirs, self.requests = context.Pipe(duplex=False)
        self.answers, results = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(theirs, results, in_main_thread()), daemon=True)
        start_helper(self.process)
        theirs.close()
        results.close()

    def begin(self, job: Job, sent: Sent) -> None:
        """Asks for a job; nobody wants the answers to what was asked before."""
        self.name, self.stale = sent.name, self.asked
        self.ask(Begin(job, sent))

    def ask(self, request: Request) -> None:
        """Sends a request."""
        self.asked += 1
        with suppress(OSError):  # it has died, as the answer will tell
            self.requests.send_bytes(pickle.dumps(request, pickle.HIGHEST_PROTOCOL))

    def answer(self) -> Answer:
        """The answer to the next request. Raises what the process raised, and DataError if it has died."""
        found = self._receive()
        while self.stale:
            self.stale -= 1
            found = self._receive()
        if isinstance(found, Exception):
            raise found
        return found

    def _receive(self) -> Answer:
        self.asked -= 1
        with suppress(EOFError, OSError):
            wait([self.answers, self.process.sentinel])
            if self.answers.poll():
                return self.answers.recv()
        self.process.join(PATIENCE)
        raise DataError(self.name, f"a worker process died (exit code {self.process.exitcode})")


class Workers:
    """Processes that do one job after the other. They live until `close`, or until nobody has them any more.

    stay: whether they wait for more to do after `borrowed`. An error ends them in any case.
    """

    def __init__(self, *, stay: bool = False) -> None:
        self.stay, self.busy = stay, False
        self.list: list[Worker] = []
        self.sender = Sender()
        self.readable = weakref.WeakSet[Dataset]()  # what is known to be such that it can be sent
        weakref.finalize(self, end_all, self.list)

    @contextmanager
    def borrowed(self) -> Iterator[Workers]:
        """These, or others while somebody has them."""
        if self.busy:
            with Workers().borrowed() as others:
                yield others
            return
        self.busy = True
        try:
            yield self
        except GeneratorExit:  # not all was read
            raise
        except BaseException:
            self.close()
            raise
        finally:
            self.busy = False
            if not self.stay:
                self.close()

    def begin(self, jobs: Sequence[tuple[Job, Dataset]]) -> list[Worker]:
        """A process for each job. A dataset that several have is packed once."""
        if len(self.list) < len(jobs):
            self.sender = Sender()  # new processes know nothing yet
        packed = {id(dataset): self.sender.pack(dataset) for dataset in {id(d): d for _, d in jobs}.values()}
        self.list += [Worker() for _ in jobs[len(self.list) :]]
        found = self.list[: len(jobs)]
        for worker, (job, dataset) in zip(found, jobs, strict=True):
            worker.begin(job, packed[id(dataset)])
        for worker in found:
            worker.answer()
        return found

    def close(self) -> None:
        """Ends all."""
        self.sender = Sender()
        end_all(self.list)


def end_all(workers: list[Worker]) -> None:
    """Ends these processes; leaves the list empty. A thread may still wait for one: it is told that it has died."""
    for worker in workers:
        worker.process.terminate()
    while workers:
        end_helper(workers.pop().process)


# --- in the process ---


def _work(requests: Connection, answers: Connection, of_main_thread: bool) -> None:
    """Answers requests. A thread sends while more is done."""
    become_helper(of_main_thread=of_main_thread)
    _widen(answers)
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_send, args=(waiting, answers), daemon=True).start()
    server = _Server()
    with suppress(EOFError, OSError):  # nobody asks any more
        while True:
            waiting.put(server.answer(requests.recv_bytes()))


class _Server:
    """The job of this process."""

    def __init__(self) -> None:
        self.receiver = Receiver()
        self.job: Job | None = None

    def answer(self, content: bytes) -> bytes:
        """The answer to a request, or the error in its place, pickled."""
        try:
            return pickle.dumps(self._done(pickle.loads(content)), pickle.HIGHEST_PROTOCOL)
        except Exception as exc:
            return _pickled_error(blamed("a worker process", exc))

    def _done(self, request: Request) -> Answer:
        if self.job is None or isinstance(request, Begin):
            self.job = None  # its dataset goes before the next one comes
            request.job.begin(self.receiver.unpack(request.sent))
            self.job = request.job
            return None
        return self.job.answer(request)


def _pickled_error(error: DataError) -> bytes:
    try:
        return pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
    except Exception:  # one with a value that cannot be sent
        return pickle.dumps(DataError("a worker process", str(error)), pickle.HIGHEST_PROTOCOL)


def _send(waiting: queue.SimpleQueue[bytes], answers: Connection) -> None:
    """Ends when nobody listens any more: the process is then ended, too."""
    with suppress(OSError):
        while True:
            answers.send_bytes(waiting.get())


def _widen(connection: Connection) -> None:
    """More room in a pipe, so that large answers take fewer turns."""
    if sys.platform == "linux":
        with suppress(OSError):
            fcntl.fcntl(connection.fileno(), fcntl.F_SETPIPE_SZ, ROOM)
