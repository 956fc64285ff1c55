"""One sequence as functions of a config see it: named tensors with numpy data."""

from __future__ import annotations

from collections.abc import Iterator, KeysView, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

# Tensors of whatever kind a function of the config works with; `raw` makes arrays of them.
NamedTensors: TypeAlias = Mapping[str, Any]


@dataclass
class SeqTensor:
    """One data key of a sequence: `raw_tensor` is a numpy array (time, …), `dim` counts classes if sparse."""

    name: str
    raw_tensor: Any = None
    dtype: str = "float32"
    dim: int | None = None
    sparse: bool = False
    shape: tuple[int | None, ...] = ()

    def copy_template(self) -> SeqTensor:
        """The same without data."""
        return replace(self, raw_tensor=None)


class TensorDict:
    """Tensors by name."""

    def __init__(self, data: Mapping[str, Any] | None = None):
        self.data: dict[str, Any] = dict(data or {})

    def __getitem__(self, name: str) -> Any:
        return self.data[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.data[name] = value

    def __delitem__(self, name: str) -> None:
        del self.data[name]

    def __contains__(self, name: object) -> bool:
        return name in self.data

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def keys(self) -> KeysView[str]:
        """The names."""
        return self.data.keys()

    def copy_template(self) -> TensorDict:
        """The same names without data."""
        return TensorDict({name: value.copy_template() for name, value in self.data.items()})


def raw(value: object) -> np.ndarray:
    """The numpy array of a tensor, or of anything that numpy takes for an array."""
    return np.asarray(getattr(value, "raw_tensor", value))


def items_of(tensors: object) -> NamedTensors:
    """The tensors by name, from a TensorDict of any kind or from a dict."""
    found = tensors if isinstance(tensors, Mapping) else getattr(tensors, "data", None)
    if not isinstance(found, Mapping):
        raise TypeError(f"must be a dict of tensors, but is {type(tensors).__name__} instead")
    return found
