"""Sliding windows: the lengths they leave, the margins that paddings stand for, windows as an axis, and back.

Notation: n positions, windows of k, strides s, dilations d.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from returnn_lite.errors import ConfigError

Length = TypeVar("Length", int, Tensor)
PADDINGS = ("same", "valid", "same_static")


def _at_least_0(n: Length) -> Length:
    return n.clamp(min=0) if isinstance(n, Tensor) else max(n, 0)


@dataclass(frozen=True)
class Window:
    """A sliding window along one axis of a convolution or a pooling.

    `padding` "same": so many zeros that ceil(n / s) windows fit the padded batch; "same_static": so many that the same
    number results however long the batch is; "valid": none; a number: so many on both sides; a pair: left and right.
    """

    size: int
    stride: int = 1
    dilation: int = 1
    padding: str | int | tuple[int, int] = "valid"

    @property
    def span(self) -> int:
        """Positions from the first to the last one of a window."""
        return (self.size - 1) * self.dilation + 1

    @property
    def same(self) -> bool:
        """Whether the length does not depend on the size of the window."""
        return self.padding in ("same", "same_static")

    @property
    def keeps_axis(self) -> bool:
        """Whether the output has the same positions as the input."""
        return self.stride == 1 and (self.same or (self.size == 1 and self._given == (0, 0)))

    def length(self, n: Length) -> Length:
        """Same: ceil(n / s); valid: max(0, ceil((n - (k - 1) d) / s)); numbers are added to n before.  Shape: any"""
        if not self.same:
            n = _at_least_0(n + sum(self._given) - self.span + 1)
        return -(-n // self.stride)

    @property
    def _given(self) -> tuple[int, int]:
        if isinstance(self.padding, str):
            return 0, 0
        return (self.padding, self.padding) if isinstance(self.padding, int) else self.padding

    def margins(self, size: int, ragged: bool) -> tuple[int, int]:
        """Positions to add on the left and right of an axis of `size`; `ragged`: with a length per sequence."""
        if not self.same:
            return self._given
        if self.padding == "same_static":
            return self._static_margins(size, ragged)
        total = max((-(-size // self.stride) - 1) * self.stride + self.span - size, 0)
        return total // 2, total - total // 2

    def _static_margins(self, size: int, ragged: bool) -> tuple[int, int]:
        """Margins that do not depend on the longest sequence of the batch."""
        if ragged:
            left = (self.size - self.stride) // 2
            if left < 0:
                text = f"must be at most the window size {self.size}, but is {self.stride} instead"
                raise ConfigError("strides", text)
            return left, self.size - 1 - left
        total = self.size - 1 - ((size + self.stride - 1) % self.stride)
        return total // 2, total - total // 2


@dataclass(frozen=True)
class Spread:
    """One axis of a transposed convolution: every position is spread over `size` positions, `stride` apart.

    `same`: s n positions; else max(k - s, 0) more; with `output_padding` p: s n + k - s - 2 pad + p, pad = k // 2 if
    `same`. `remove`: positions cut off at both ends.
    """

    size: int
    stride: int
    same: bool = False
    output_padding: int | None = None
    remove: int = 0

    @property
    def added(self) -> int:
        """Output length = s n + this, before `remove`."""
        if self.output_padding is None:
            return 0 if self.same else max(self.size - self.stride, 0)
        pad = self.size // 2 if self.same else 0
        return self.size - self.stride - 2 * pad + self.output_padding

    def length(self, n: Length) -> Length:
        """The output length, at least 0.  Shape: any"""
        return _at_least_0(n * self.stride + (self.added - 2 * self.remove))

    def cut(self, n: int) -> tuple[int, int]:
        """For n input positions: first position and number of positions of the full result to keep."""
        size = max(self.stride * n + self.added, 0)
        full = (n - 1) * self.stride + self.size if n else 0
        left = max(full - size, 0) // 2 if self.same else 0
        return left + self.remove, max(size - 2 * self.remove, 0)


def centred(size: int) -> tuple[int, int]:
    """(left, right) neighbours of a position in a window of `size`; an even one has one more on the right."""
    return (size - 1) // 2, size // 2


def pad_axes(x: Tensor, margins: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """`value` added on both sides of each of the last axes.  Shape: (…, n_1, n_2, …) -> the same, longer"""
    flat = [n for pair in reversed(margins) for n in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


def sliding(x: Tensor, axis: int, size: int, stride: int = 1, margins: tuple[int, int] = (0, 0)) -> Tensor:
    """All windows along an axis, with zeros in the margins, as a new last axis.

    Shape: (…, n, …) -> (…, n', …, k), n' = max(0, ceil((n + margins - k + 1) / s))
    """
    axis %= x.dim()
    short = max(size - x.shape[axis] - sum(margins), 0)
    windows = pad_axes(x, [(margins[0], margins[1] + short)] + [(0, 0)] * (x.dim() - 1 - axis)).unfold(
        axis, size, stride
    )
    return windows.narrow(axis, 0, 0) if short else windows


def overlap_add(windows: Tensor, axis: int, stride: int = 1) -> Tensor:
    """Sum of overlapping windows, each put back to its place; the inverse of `sliding`, but for the sum.

    Shape: (…, n, k, …), n at `axis` -> (…, (n - 1) s + k, …), 0 positions for n = 0
    """
    axis %= windows.dim()
    count, size = windows.shape[axis], windows.shape[axis + 1]
    starts = torch.arange(count, device=windows.device) * stride
    index = starts.unsqueeze(1) + torch.arange(size, device=windows.device)
    flat = windows.flatten(axis, axis + 1)
    total = (count - 1) * stride + size if count else 0
    out = flat.new_zeros((*flat.shape[:axis], total, *flat.shape[axis + 1 :]))
    return out.index_add(axis, index.reshape(-1), flat)
