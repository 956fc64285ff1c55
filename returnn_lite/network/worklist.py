"""Runs tasks that wait for one another, without recursion: their stack is a list."""

from __future__ import annotations

from typing import Any, TypeVar

from returnn_lite.layers.core.linking import Task

T = TypeVar("T")


def run(task: Task[T]) -> T:
    """The result of a task. A task that it yields runs first, whose result it is sent; errors are thrown into it."""
    stack: list[Task[Any]] = [task]
    result: Any = None
    error: BaseException | None = None
    while stack:
        try:
            waits_for = stack[-1].send(result) if error is None else stack[-1].throw(error)
        except StopIteration as done:
            stack.pop()
            result, error = done.value, None
        except BaseException as exc:  # handed on to the task that waits
            stack.pop()
            result, error = None, exc
        else:
            stack.append(waits_for)
            result = error = None
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]
