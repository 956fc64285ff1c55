"""The error of a wrong use of the frontend, with the line of the config that is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

import numpy as np
import torch
import tree

from returnn_lite.errors import ConfigError, UnknownName, did_you_mean, user_line

_NOT_THE_USERS = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
    os.path.dirname(tree.__file__),
    "<frozen",
)


class WrongUse(ConfigError, ValueError, TypeError, AssertionError):
    """Arguments that do not fit. `path` is the line outside of the library that gave them.

    It is all the kinds of errors that code written for other implementations expects in such cases.
    """

    def __init__(self, message: str, path: str | None = None) -> None:
        super().__init__(line_of_user() if path is None else path, message)


def kind(value: object) -> str:
    """What a value is that should be a Tensor, as errors name it."""
    if value is None:
        return "None"
    name = type(value).__name__
    if isinstance(value, torch.Tensor | np.ndarray):
        what = "torch tensor" if isinstance(value, torch.Tensor) else "numpy array"
        return f"a {what} of shape {tuple(value.shape)}, which has no axes; use rf.convert_to_tensor(…, dims=[…])"
    if isinstance(value, tuple) and value:
        return f"a tuple ({', '.join(type(entry).__name__ for entry in value)}); take what is needed of it"
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def line_of_user() -> str:
    """file:line of the nearest caller outside of the library, also where it was called for a nested structure."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        frame = frame.f_back
    if frame is None or os.path.basename(frame.f_code.co_filename) == "rnn.py":  # the program itself
        return ""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def missing_name(what: str, names: Mapping[str, object]) -> Callable[[str], object]:
    """`__getattr__` of a module that configs call `what`: an error with the closest of its public names."""

    def missing(name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(f"{what} has no attribute {name!r}")
        known = [key for key, value in names.items() if not key.startswith("_") and callable(value)]
        raise UnknownName(user_line(), f"{what}.{name} does not exist{did_you_mean(name, known)}")

    return missing


class NoSizes(WrongUse):
    """The size of an axis is asked for before it is known."""


class OutShapeMismatch(WrongUse):
    """A tensor does not have the axes that its code declares."""
