"""Runs tasks that wait for one another, without recursion: their stack is a list."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from returnn_lite.layers.core.linking import Task

T = TypeVar("T")


def run(task: Task[T]) -> T:
    """The result of a task. A task that it awaits runs first, whose result it is sent; errors are thrown into it."""
    stack: list[Coroutine[Any, Any, Any]] = [task.work]
    result: Any = None
    error: BaseException | None = None
    while stack:
        try:
            awaited = stack[-1].send(result) if error is None else stack[-1].throw(error)
        except StopIteration as done:
            del stack[-1]
            result, error = done.value, None
        except BaseException as exc:  # handed on to the task that waits
            del stack[-1]
            result, error = None, exc
        else:
            stack.append(awaited.work)
            result = error = None
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]
