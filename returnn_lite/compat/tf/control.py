"""TensorFlow's control flow, which here simply runs, and its name scopes and prints, which do nothing or print."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from returnn_lite.compat.tf.values import as_tensor


def cond(
    pred: Any, true_fn: Any = None, false_fn: Any = None, strict: bool = False, fn1: Any = None, fn2: Any = None
) -> Any:
    """Calls the one function or the other."""
    chosen = (true_fn or fn1) if bool(pred) else (false_fn or fn2)
    return _as_results(chosen())


def case(pred_fn_pairs: Any, default: Callable[[], Any] | None = None, exclusive: bool = False) -> Any:
    """Calls the function of the first condition that holds."""
    pairs = pred_fn_pairs.items() if isinstance(pred_fn_pairs, dict) else pred_fn_pairs
    for pred, function in pairs:
        if bool(pred):
            return _as_results(function())
    if default is None:
        raise ValueError("tf.case: no condition holds, and `default` is not given")
    return _as_results(default())


def while_loop(
    cond: Callable[..., Any],
    body: Callable[..., Any],
    loop_vars: Any,
    shape_invariants: Any = None,
    parallel_iterations: int = 10,
    back_prop: bool = True,
    swap_memory: bool = False,
    maximum_iterations: Any = None,
    return_same_structure: bool = False,
) -> Any:
    """Repeats loop_vars = body(*loop_vars) as long as cond(*loop_vars). One variable comes back bare."""
    state = [_as_results(value) for value in loop_vars]
    left = None if maximum_iterations is None else int(maximum_iterations)
    while left != 0 and bool(cond(*state)):
        new = body(*state)
        state = [_as_results(value) for value in (new if isinstance(new, (list, tuple)) else [new])]
        left = None if left is None else left - 1
    if len(state) == 1 and not return_same_structure:
        return state[0]
    return tuple(state) if isinstance(loop_vars, tuple) else state


def _as_results(value: Any) -> Any:
    """Numbers as tensors, within tuples and lists too."""
    if isinstance(value, (list, tuple)):
        parts = [_as_results(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return as_tensor(value) if isinstance(value, (bool, int, float)) else value


def no_op(*args: Any, **kwargs: Any) -> None:
    """Does nothing."""


@contextlib.contextmanager
def no_scope(*args: Any, **kwargs: Any) -> Iterator[None]:
    """A context that changes nothing (name scopes, devices, control dependencies)."""
    yield None


def check(condition: Any, data: Any = None, summarize: Any = None) -> None:
    """`tf.Assert`: raises ValueError with the data if the condition does not hold."""
    if not torch.as_tensor(condition).all():
        raise ValueError(f"assertion failed: {_text(data)}")


def print_through(
    input_: Any, data: Any = None, message: str | None = None, first_n: Any = None, summarize: Any = None
) -> Tensor:
    """`tf.Print`: prints the data and gives back the first argument."""
    _write(f"{message or ''}{_text(data)}")
    made: Tensor = input_
    return made


def print_values(*inputs: Any, **options: Any) -> None:
    """`tf.print`: to stderr."""
    _write(" ".join(_text(value) for value in inputs))


def _text(data: Any) -> str:
    parts = data if isinstance(data, (list, tuple)) else [data]
    return "".join(f"[{part.detach().cpu().numpy()}]" if isinstance(part, Tensor) else str(part) for part in parts)


def _write(line: str) -> None:
    sys.stderr.write(line + "\n")


def all_functions() -> dict[str, Any]:
    """The functions by TensorFlow's names."""
    scopes = ("control_dependencies", "name_scope", "variable_scope", "device", "colocate_with")
    return {
        "cond": cond,
        "case": case,
        "while_loop": while_loop,
        "Print": print_through,
        "print": print_values,
        "Assert": check,
        "group": no_op,
        "no_op": no_op,
        **dict.fromkeys(scopes, no_scope),
    }
