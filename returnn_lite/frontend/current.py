"""Which run context is the current one."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from returnn_lite.frontend.run_ctx import RunContext

RUNNING: ContextVar[RunContext | None] = ContextVar("run context", default=None)
initial: list[Callable[[], RunContext]] = []  # what makes a context where none was set


def get_run_ctx() -> RunContext:
    """The context of the step that runs; outside of steps one of the stage "init"."""
    found = RUNNING.get()
    if found is None:
        found = initial[0]()
        RUNNING.set(found)
    return found
