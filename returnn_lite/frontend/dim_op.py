"""`Op`: what an axis is computed by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch

from returnn_lite.frontend.types import Axis, RawTensor

D = TypeVar("D", bound=Axis)


@dataclass(eq=False)
class Op(Generic[D]):
    """What an axis is computed by: `kind`, `inputs` (two axes; none for a constant), `attribs` (its "value")."""

    kind: str
    inputs: list[D]
    attribs: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Op {self.kind} {self.inputs}>"

    def on_numbers(self, sizes: list[int], clip: bool) -> int:
        """The result for numbers; with `clip` a sum is at least 0."""
        found: int = _FUNCTIONS[self.kind](*sizes)
        return max(found, 0) if clip and self.kind == "add" else found

    def on_tensors(self, sizes: list[RawTensor]) -> torch.Tensor:
        """The result for tensors of sizes and numbers; a sum is at least 0."""
        found: torch.Tensor = _FUNCTIONS[self.kind](*sizes)
        return found.clamp(min=0) if self.kind == "add" else found


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "truediv": lambda a, b: a // b,
    "truediv_left": lambda divisor, a: a // divisor,
    "ceildiv": lambda a, b: -(-a // b),
    "ceildiv_left": lambda divisor, a: -(-a // divisor),
}
