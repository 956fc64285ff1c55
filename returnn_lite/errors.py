"""The one kind of error a user can cause: something in the config is not as it must be."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType

_PACKAGE = str(Path(__file__).parent)


class ConfigError(Exception):
    """A mistake in the config.

    `path` says where, in config syntax (`network["output"]["unit"]`, `batch_size`, `train.config:12`; may be empty),
    `message` says what is wrong and what was expected, in one line.
    """

    def __init__(self, path: str, message: str) -> None:
        super().__init__(path, message)
        self.path = path
        self.message = message

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigErrors(ConfigError):
    """All mistakes found at once (`errors`, at least one). `path` and `message` are those of the first."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        super().__init__(errors[0].path, errors[0].message)
        self.args = (errors,)  # what pickle hands to __init__
        self.errors = list(errors)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


def closest(name: str, candidates: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The candidate most similar to `name`, of equally similar ones the first; None if none is.

    `cutoff` in [0, 1]: 1 = only the very same name.
    """
    name = str(name)  # keys of dicts may be anything
    names = [candidate for candidate in candidates if isinstance(candidate, str)]
    same_but_case = [candidate for candidate in names if candidate.lower() == name.lower()]
    if same_but_case:
        return same_but_case[0]
    near = set(difflib.get_close_matches(name, names, n=len(names) or 1, cutoff=cutoff))
    found = [candidate for candidate in names if candidate in near]
    return max(found, key=lambda candidate: difflib.SequenceMatcher(None, candidate, name).ratio(), default=None)


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """The end of an error message about an unknown `name`: '; did you mean "x"?', or '' if nothing is similar."""
    found = closest(name, candidates)
    return f'; did you mean "{found}"?' if found is not None else ""


def package_folder() -> str:
    """Where the library's code is."""
    return _PACKAGE


def user_line() -> str:
    """file:line of the nearest caller outside the library; "" if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((_PACKAGE, "<frozen")):
        frame = frame.f_back
    if frame is None or Path(frame.f_code.co_filename).name == "rnn.py":  # the program itself
        return ""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class UnknownName(ConfigError, AttributeError):
    """A name that an object which configs use does not have; `path` is the line of the config that asks for it."""


class NamesKnown:
    """Base of the objects that functions of configs are handed: an unknown attribute is told with the nearest known.

    `what`: how errors call such an object.
    """

    what = "object"

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        known = [known for known in dir(self) if not known.startswith("_")]
        raise UnknownName(user_line(), f"the {self.what} has no attribute {name!r}{did_you_mean(name, known)}")
