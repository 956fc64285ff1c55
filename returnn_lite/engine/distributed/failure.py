"""What processes of a training say through the store that they have met at: which one failed, and who is done."""

from __future__ import annotations

import atexit
import json
import math
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
KNOWN = "returnn_lite/known"
SECONDS = 2.0  # for the others to say that they are there, or that they know why this training ends
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
        with suppress(RuntimeError):  # the store may be gone, too
            explained = self._explained(exc)
            self.store.add(KNOWN, 1)
            return explained
        return exc

    def part(self) -> None:
        """Waits until all have come to their end: who closes a connection first may lose what is on its way."""
        with suppress(RuntimeError):  # the first process may have gone with the store
            self.store.add(DONE, 1)
            self._wait_for(DONE)

    def _end_at_once(self) -> None:
        """At the end of a process that failed: what has to wait for the others would do so for ever.

        The first process has the store, which it keeps until the others know why they end; that they do,
        they learn when its connections to them are closed.
        """
        if not self.failed:
            return
        sys.stdout.flush()
        sys.stderr.flush()
        if self.rank == 0:
            with suppress(Exception):
                if torch.distributed.get_backend() == "gloo":  # another may wait for the others here
                    torch.distributed.destroy_process_group()
                self._wait_for(KNOWN, SECONDS)
        os._exit(1)

    def _wait_for(self, key: str, seconds: float = math.inf) -> None:
        """Until all processes have added 1 to the key, at most for this time."""
        end = time.monotonic() + seconds
        while self.store.add(key, 0) < self.size and time.monotonic() < end:
            time.sleep(0.02)

    def _explained(self, exc: Exception) -> BaseException:
        if is_lost_connection(exc):
            return self._of_peer(str(exc).splitlines()[0])
        text = f"{exc}" if isinstance(exc, ConfigError) else f"{type(exc).__name__}: {exc}"
        rank, first = json.loads(self.store.compare_set(FIRST, "", json.dumps([self.rank, text])))
        return SameFailure(1) if rank != self.rank and first == text else exc

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
