"""What goes into an exported program and comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from returnn_lite.tensor import Dim, Spec


@dataclass(frozen=True)
class Port:
    """An input or output: `axes` are numbers or, where a size differs from batch to batch, names.

    `role`: "data" or "lengths" of a key, "output", "state" … `classes`: of labels; `feeds`: the input of a step that an
    output becomes.
    """

    name: str
    dtype: str
    axes: tuple[int | str, ...]
    role: str
    classes: int | None = None
    feeds: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the JSON file."""
        found = {"name": self.name, "dtype": self.dtype, "axes": list(self.axes), "role": self.role}
        more = {"classes": self.classes, "feeds": self.feeds or None}
        return found | {name: value for name, value in more.items() if value is not None}


class AxisNames:
    """The names of the axes whose sizes differ: "batch", "data_time" …"""

    def __init__(self) -> None:
        self.names: dict[Dim, str] = {}

    def known(self, dim: Dim, name: str) -> str:
        """The name of an axis, `name` where it has none yet."""
        return self.names.setdefault(dim, name)

    def port(self, name: str, spec: Spec, role: str) -> Port:
        """The port of a tensor with these axes, the batch axis in front."""
        dims = sorted(spec.dims, key=lambda d: not d.is_batch)
        names = [f"{name}_time" if d == spec.time_dim else f"{name}_axis{i}" for i, d in enumerate(dims)]
        axes = tuple(map(self._axis, dims, names))
        return Port(name, spec.dtype, axes, role, spec.sparse_dim.size if spec.sparse_dim is not None else None)

    def _axis(self, dim: Dim, name: str) -> int | str:
        if dim.is_batch:
            return "batch"
        return dim.size if dim.size is not None else self.known(dim, name)


def lengths_port(name: str, role: str, values: torch.Tensor) -> Port:
    """The port of the lengths of sequences."""
    return Port(name, str(values.dtype).removeprefix("torch."), ("batch",), role)
