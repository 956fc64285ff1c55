"""More or other positions along an axis: at the ends, by repetition, by interpolation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PAD_MODES = ("constant", "reflect", "symmetric", "replication")


def pad(x: Tensor, axis: int, left: int, right: int, mode: str = "constant", value: Tensor | float = 0.0) -> Tensor:
    """More positions at the ends of an axis, by one of PAD_MODES.  Shape: (…, n, …) -> (…, left + n + right, …)

    `value`: a number or a tensor that broadcasts against x without this axis or with size 1.
    """
    if mode == "constant":
        fill = torch.as_tensor(value, dtype=x.dtype, device=x.device)
        sides = [fill.expand([n if i == axis else s for i, s in enumerate(x.shape)]) for n in (left, right)]
        parts = ([sides[0]] if left else []) + [x] + ([sides[1]] if right else [])
        return torch.cat(parts, axis)
    size = x.shape[axis]
    position = torch.arange(-left, size + right, device=x.device)
    if mode == "replication":
        index = position.clamp(0, size - 1)
    elif mode == "reflect":  # without the edge itself: period 2 (n - 1)
        period = max(2 * (size - 1), 1)
        index = (position % period - (size - 1)).abs().neg() + (size - 1)
    else:  # with the edge: period 2 n
        index = position % (2 * size)
        index = torch.where(index < size, index, 2 * size - 1 - index)
    return x.index_select(axis, index)


def repeated(counts: Tensor, frames: int | None = None) -> tuple[Tensor, Tensor]:
    """The frame that each position shows when frame t stands counts[t] times in a row.

    Shape: (B, T) int64 -> (B, T') int64, new lengths (B,). T' is the longest, or `frames` if it is known (else a
    device is waited for); behind the end any valid index.
    """
    ends = counts.cumsum(-1)
    total = ends[:, -1] if ends.shape[-1] else ends.new_zeros(ends.shape[0])
    if frames is None:
        frames = int(total.max()) if total.numel() else 0
    position = torch.arange(frames, device=counts.device).expand(ends.shape[0], frames).contiguous()
    return torch.searchsorted(ends, position, right=True).clamp(max=max(counts.shape[-1] - 1, 0)), total


def resample(x: Tensor, axis: int, size: int, kind: str = "nn") -> Tensor:
    """The values at the positions i n / n', by "nn" (the frame floor(i n / n')), "linear" or "cubic" interpolation.

    Shape: (…, n, …) -> (…, n', …), n' = `size`
    """
    old = x.shape[axis]
    if old == 0 or size == 0:
        return x.new_zeros((*x.shape[:axis], size, *x.shape[axis + 1 :]))
    numbers = torch.arange(size, device=x.device)
    whole = numbers * old // size
    if kind == "nn":
        return x.index_select(axis, whole)
    shape = (-1, *(1,) * (x.dim() - 1 - axis))
    part = (numbers * old % size).to(torch.float32) / size
    taps = _INTERPOLATIONS[kind](part)
    frames = (x.index_select(axis, (whole + shift).clamp(0, old - 1)) * w.reshape(shape) for shift, w in taps.items())
    return torch.stack(list(frames)).sum(0)


def stretch(x: Tensor, axis: int, factor: int, value: float) -> Tensor:
    """Each frame, then factor - 1 frames of `value`.  Shape: (…, n, …) -> (…, n factor, …)"""
    index = torch.arange(x.shape[axis] * factor, device=x.device)
    new = (index % factor != 0).reshape((-1, *(1,) * (x.dim() - 1 - axis)))
    return x.index_select(axis, index // factor).masked_fill(new, value)


def _linear(part: Tensor) -> dict[int, Tensor]:
    return {0: 1 - part, 1: part}


def _cubic(part: Tensor) -> dict[int, Tensor]:
    """Keys' cubic convolution with a = -0.75 (IEEE ASSP 1981)."""
    a = -0.75

    def near(t: Tensor) -> Tensor:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1

    def far(t: Tensor) -> Tensor:
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a

    return {-1: far(part + 1), 0: near(part), 1: near(1 - part), 2: far(2 - part)}


_INTERPOLATIONS: dict[str, Callable[[Tensor], dict[int, Tensor]]] = {"linear": _linear, "cubic": _cubic}
