"""`GlobalOption`: what the library knows of one option of configs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, get_args, get_origin

from returnn_lite.config.option_types import Range

NONE = "none"  # as a default: the option is not set


@dataclass(frozen=True)
class GlobalOption:
    """One option.

    `kind`: the annotation of its values, which are checked before anything runs (bool, or int or float with a `Range`);
    or words, where whoever reads the option checks it. `default`: as text, `NONE` if it is not set by default.
    `meaning`: what it does, and where it counts if that is not everywhere.
    """

    name: str
    kind: object
    default: str
    meaning: str

    @property
    def type(self) -> str:
        """The kind as the reference writes it."""
        if isinstance(self.kind, str):
            return self.kind
        if get_origin(self.kind) is Annotated:
            kind, limit = get_args(self.kind)
            return _ranged(kind.__name__, limit)
        return getattr(self.kind, "__name__", str(self.kind))


def _ranged(kind: str, limit: Range) -> str:
    """ "int, 0 or more" and the like."""
    if limit.low is not None and limit.high is not None:
        return kind if abs(limit.high) >= 2**62 else f"{kind}, {limit.low} to {limit.high}"
    return kind if limit.low is None else f"{kind}, {limit.low} or more"


@dataclass(frozen=True)
class Group:
    """Options that belong together: a section of the reference."""

    title: str
    text: str
    options: tuple[GlobalOption, ...]


Count = Annotated[int, Range(0)]
Seed = Annotated[int, Range(-(2**63), 2**63 - 1)]
Number = Annotated[float, Range()]
Part = Annotated[float, Range(0, 1)]
option = GlobalOption
