"""Signals that end a run: it ends within two seconds, whatever it waits for, and says how to go on."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import ClassVar

RESUME = "resume by running again"
ANEW = "running again starts from scratch"
OTHER_PROCESS = "a signal to another process"
SECONDS = 1.25  # for leaving in good order, before the process is ended


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop; nothing is lost but the running epoch. No Exception: what deals with faulty data or
    models lets it pass."""


@dataclass
class _State:
    received: str | None = None
    told: bool = False


class StopRequest:
    """Context in which SIGTERM, Ctrl-C and the like raise Interrupted in the main thread, wherever that is.

    With `ends_process`, a second signal, or `SECONDS` in which the context is not left (because of a read that never
    ends, say), end the process at once with exit code 1. With `gentle` the first one only sets `received`, which
    `check` turns into the exception: processes that train together stop together. Within another one, a context only
    changes `gentle` and `advice`, which is what the message says of going on. Signals that are ignored, or handled
    already, stay so.
    """

    # Those that the system has; SIGBREAK is Windows' Ctrl-Break.
    SIGNALS = tuple(
        getattr(signal, name)
        for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGQUIT", "SIGXCPU", "SIGBREAK")
        if hasattr(signal, name)
    )
    innermost: ClassVar[StopRequest | None] = None  # signals are the process's, and so is this

    def __init__(self, advice: str = ANEW, *, gentle: bool = False, ends_process: bool = False) -> None:
        self.advice, self.gentle, self.ends_process = advice, gentle, ends_process
        self.outer: StopRequest | None = None
        self.state = _State()
        self._guard: _Guard | None = None

    def __enter__(self) -> StopRequest:
        self.outer, StopRequest.innermost = StopRequest.innermost, self
        if self.outer is not None:
            self.state = self.outer.state
        elif threading.current_thread() is threading.main_thread():
            self._guard = _Guard(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        StopRequest.innermost = self.outer
        if self._guard is not None:
            self._guard.close()

    @property
    def received(self) -> str | None:
        """The name of the signal that came."""
        return self.state.received

    def message(self) -> str:
        """What to say of it."""
        return f"{self.received or 'a signal'} received, stopped: {self.advice}"

    def tell(self, message: str) -> None:
        """Says it on stderr, once."""
        if not self.state.told:
            self.state.told = True
            with suppress(OSError, ValueError):
                print(message, file=sys.stderr, flush=True)

    def stop(self, what: str) -> None:
        """Notes what asks for the end, such as the name of a signal."""
        self.state.received = self.state.received or what

    def check(self) -> None:
        """Raises Interrupted if one of the signals came."""
        if self.received:
            raise Interrupted(self.message())

    def end_process(self, code: int) -> None:
        """After a signal: ends the process without freeing all it has, which takes its time and waits for threads."""
        if self.received:
            atexit._run_exitfuncs()
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError, AttributeError):
                    stream.flush()
            os._exit(code)

    def leave(self) -> None:
        """In a forked process: its signals are no business of this context."""
        if self._guard is not None:
            self._guard.restore()
        if self.outer is not None:
            self.outer.leave()
        StopRequest.innermost = None


class _Guard:
    """The handlers of signals, and the thread that ends the process where they cannot.

    The thread learns of signals by a socket that the interpreter's own handler writes to, also while the main thread is
    in a library's function. (A pipe cannot be waited for on Windows.)
    """

    def __init__(self, request: StopRequest) -> None:
        self.request = request
        usual = (signal.SIG_DFL, signal.default_int_handler)
        before = {number: signal.getsignal(number) for number in StopRequest.SIGNALS}
        self.before = {number: handler for number, handler in before.items() if handler in usual}
        self.sockets: tuple[socket.socket, socket.socket] | None = None  # to read from, to write to
        for number in self.before:
            signal.signal(number, self._handle)
        if request.ends_process:
            self._start_watching()

    def _start_watching(self) -> None:
        reading, writing = self.sockets = socket.socketpair()
        writing.setblocking(False)
        self.wakeup_before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), name="watches signals", daemon=True).start()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        request = StopRequest.innermost or self.request
        request.stop(signal.Signals(number).name)
        if not request.gentle:
            request.check()

    def restore(self) -> None:
        """Everything as before."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if self.sockets is not None:
            signal.set_wakeup_fd(self.wakeup_before)

    def close(self) -> None:
        """Everything as before; the thread ends."""
        self.restore()
        if self.sockets is not None:
            self.sockets[1].close()

    def _watch(self, reading: socket.socket) -> None:
        """Waits for a signal; then for the end of the context, a second signal, or the end of patience."""
        with reading:
            if self._next(reading, None) and self._next(reading, time.monotonic() + SECONDS):
                request = StopRequest.innermost or self.request
                request.tell(request.message())
                os._exit(1)

    def _next(self, reading: socket.socket, deadline: float | None) -> bool:
        """Waits for one of the signals, until the deadline; False if the context has ended before."""
        while deadline is None or time.monotonic() < deadline:
            # Not 0, with which it would not wait at all.
            reading.settimeout(None if deadline is None else max(deadline - time.monotonic(), 1e-3))
            try:
                content = reading.recv(1)
            except TimeoutError:
                return True
            if not content:
                return False
            if content[0] in self.before:
                (StopRequest.innermost or self.request).stop(signal.Signals(content[0]).name)
                return True
        return True


def _leave_all() -> None:
    if StopRequest.innermost is not None:
        StopRequest.innermost.leave()


if hasattr(os, "register_at_fork"):  # where processes are forked at all
    os.register_at_fork(after_in_child=_leave_all)
