"""What processes of a training say through the store that they have met at: which one failed, and who is done."""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import torch.distributed
from torch._C._distributed_c10d import Store

from returnn_lite.errors import ConfigError

FIRST = "returnn_lite/failed"
ALIVE = "returnn_lite/alive/"
DONE = "returnn_lite/done"
SECONDS = 2.0  # for the others to say that they are there
LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe")


class PeerFailed(ConfigError):
    """Another process of the training failed first."""


class SameFailure(SystemExit):
    """Another process failed for the same reason, and has said so."""


class Failures:
    """What the process `rank` of `size` says and learns of failures."""

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self.store, self.rank, self.size = store, rank, size
        self.failed = False
        atexit.register(self._end_at_once)

    def explained(self, exc: Exception) -> BaseException:
        """The error to end this process with: `exc` itself, unless another process failed first.

        Tells the others, if this is the first. An error of the connection is not this process's: then it waits until
        one is known.
        """
        self.failed = True
        text = f"{exc}" if isinstance(exc, ConfigError) else f"{type(exc).__name__}: {exc}"
        with suppress(RuntimeError):  # the store may be gone, too
            if is_lost_connection(exc):
                return self._of_peer(str(exc).splitlines()[0])
            rank, first = json.loads(self.store.compare_set(FIRST, "", json.dumps([self.rank, text])))
            if rank != self.rank and first == text:
                return SameFailure(1)
        return exc

    def part(self) -> None:
        """Waits until all have come to their end: who closes a connection first may lose what is on its way."""
        with suppress(RuntimeError):  # the first process may have gone with the store
            count = self.store.add(DONE, 1)
            while count < self.size:
                time.sleep(0.02)
                count = self.store.add(DONE, 0)

    def _end_at_once(self) -> None:
        """At the end of a process that failed: what has to wait for the others would do so for ever."""
        if self.failed:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)

    def _of_peer(self, reason: str) -> PeerFailed:
        self.store.set(f"{ALIVE}{self.rank}", "1")
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if self.store.check([FIRST]):
                rank, text = json.loads(self.store.get(FIRST))
                return PeerFailed("", f"rank {self.rank} ends because rank {rank} failed: {text}")
            time.sleep(0.05)
        gone = [rank for rank in range(self.size) if not self.store.check([f"{ALIVE}{rank}"])]
        if not gone:
            return PeerFailed("", f"rank {self.rank} ends because the connection between processes was lost: {reason}")
        ranks = f"rank{'s' * (len(gone) > 1)} {', '.join(map(str, gone))}"
        text = "ended without an error (killed?), or does not respond"
        return PeerFailed("", f"rank {self.rank} ends because {ranks} {text}")


def is_lost_connection(exc: BaseException) -> bool:
    """Whether an error says that another process is not there any more, or does not answer."""
    return any(
        isinstance(one, torch.distributed.DistError)
        or type(one) is RuntimeError
        and any(word in str(one) for word in LOST)
        for one in _chain(exc)
    )


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__
