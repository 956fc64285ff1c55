"""The error of a wrong use of the frontend, with the line of the config that is wrong."""

from __future__ import annotations

from returnn_lite.errors import ConfigError, user_line


class WrongUse(ConfigError, ValueError, TypeError, AssertionError):
    """Arguments that do not fit. `path` is the line outside of the library that gave them.

    It is all the kinds of errors that code written for other implementations expects in such cases.
    """

    def __init__(self, message: str, path: str | None = None) -> None:
        super().__init__(user_line() if path is None else path, message)


class NoSizes(WrongUse):
    """The size of an axis is asked for before it is known."""


class OutShapeMismatch(WrongUse):
    """A tensor does not have the axes that its code declares."""
