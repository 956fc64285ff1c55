"""Several jobs that take turns: one runs at a time, until it asks for something that all of them wait for together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

T = TypeVar("T")
Answer = Callable[[Sequence[Any]], list[Any]]  # whatever the jobs ask for, and get


class Turn:
    """A job with a stack of its own, which runs only while the others wait: what they do is in a fixed order."""

    def __init__(self, job: Callable[[Turn], Any]) -> None:
        from greenlet import greenlet

        self.request: Any = None
        self.result: Any = None
        self.error: BaseException | None = None
        self._job = job
        self._stack = greenlet(self._run)

    @property
    def done(self) -> bool:
        """Whether the job has ended."""
        return bool(self._stack.dead)

    def _run(self, _: Any) -> None:
        try:
            self.result = self._job(self)
        except Exception as error:  # raised again where the jobs were started
            self.error = error

    def ask(self, request: Any) -> Any:
        """Called by the job: waits until all jobs have asked or ended, then returns the answer."""
        self.request = request
        mode = torch.is_grad_enabled()  # belongs to the thread, and so to all jobs
        reply = self._stack.parent.switch()
        torch.set_grad_enabled(mode)
        return reply

    def resume(self, reply: Any = None) -> None:
        """Runs the job until it asks or ends."""
        mode = torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        self._stack.switch(reply)
        torch.set_grad_enabled(mode)


def run_in_turns(jobs: Sequence[Callable[[Turn], T]], answer: Answer) -> list[T]:
    """The results of all jobs. `answer` gets the requests that are waiting and returns a reply to each.

    The first error of a job is raised once all of them have ended.
    """
    turns = [Turn(job) for job in jobs]
    for turn in turns:
        turn.resume()
    while waiting := [turn for turn in turns if not turn.done]:
        replies = answer([turn.request for turn in waiting])
        for turn, reply in zip(waiting, replies, strict=True):
            turn.resume(reply)
    for turn in turns:
        if turn.error is not None:
            raise turn.error
    return [turn.result for turn in turns]
