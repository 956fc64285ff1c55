"""Processes that help a run: they leave Ctrl-C to it, and end with it, however it ends."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
SECONDS_A_LOOK = 0.25  # between looks whether the parent lives, where nothing tells
PATIENCE = 1.0  # seconds for a process to end when asked to
PR_SET_PDEATHSIG = 1  # of Linux


def in_main_thread() -> bool:
    """Whether the caller runs in the main thread."""
    return threading.current_thread() is threading.main_thread()


def start_helper(process: BaseProcess) -> None:
    """Starts a process that will call `become_helper`; a Ctrl-C which comes before that does not end it either."""
    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # its start would undo the next line
    before = _mask("SIG_BLOCK", [signal.SIGINT])
    try:
        with one_thread_each():
            process.start()
    finally:
        _mask("SIG_SETMASK", before)


def _mask(how: str, signals: Iterable[int]) -> Iterable[int]:
    """Changes which signals wait, where the system can (Windows cannot); those that waited before."""
    return signal.pthread_sigmask(getattr(signal, how), signals) if hasattr(signal, "pthread_sigmask") else ()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes started in this context compute with one thread: they are as many as should compute at a time."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def become_helper(*, of_main_thread: bool) -> None:
    """To be called first in a process that `multiprocessing` started, by "spawn" or "fork".

    of_main_thread: whether the main thread started it. Otherwise the system cannot be asked to end this process with
    its parent: it would do so at the end of the thread.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _mask("SIG_UNBLOCK", [signal.SIGINT])
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if of_main_thread and sys.platform == "linux":
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent.pid:
        os._exit(1)
    threading.Thread(target=_watch, args=(parent.sentinel, parent.pid), name="watches the parent", daemon=True).start()


def _watch(sentinel: int, parent: int | None) -> None:
    """Ends this process with its parent. The sentinel tells at once, unless a process in between has inherited it."""
    while not wait([sentinel], SECONDS_A_LOOK) and os.getppid() == parent:
        pass
    os._exit(1)


def end_helper(process: BaseProcess) -> None:
    """Ends it, and waits until it has."""
    process.terminate()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
