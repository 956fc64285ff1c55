"""Axes with a mark, for `verify_out_shape`."""

from __future__ import annotations

from returnn_lite.frontend.dim import Dim


class MarkedDim:
    """An axis `tag` with a mark. Equal if both are."""

    def __init__(self, tag: Dim) -> None:
        self.tag = tag

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tag!r})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, MarkedDim) and self.tag == other.tag

    def __hash__(self) -> int:
        return hash((type(self), self.tag))


class ImplicitDim(MarkedDim):
    """An axis that a tensor depends on but does not have."""


class ImplicitSparseDim(ImplicitDim):
    """The axis of classes."""


class ImplicitDynSizeDim(ImplicitDim):
    """An axis of the sizes of another axis."""


class OptionalDim(MarkedDim):
    """An optional axis."""
