"""Valid frames: masks out of lengths, and what a mask chooses put together."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


def frame_mask(lengths: Tensor, frames: int) -> Tensor:
    """True in the first `lengths` of `frames` positions.  Shape: (…) -> (…, T) bool"""
    return torch.arange(frames, device=lengths.device) < lengths.unsqueeze(-1)


def range_mask(
    positions: Tensor,
    valid: Tensor | None = None,
    *,
    end: Tensor | int | None = None,
    start: Tensor | int | None = None,
    first: Tensor | int | None = None,
    size: Tensor | int | None = None,
) -> Tensor | None:
    """True at the positions below `end`, from `start` on, and in [first, first + size), as far as they are given, and
    `valid`; None if nothing is.

    Shape: positions (T, …), the others broadcastable
    """
    checks = [] if valid is None else [valid]
    if end is not None:
        checks.append(positions < end)
    if start is not None:
        checks.append(positions >= start)
    if first is not None and size is not None:
        checks += [positions >= first, positions < first + size]
    return functools.reduce(torch.logical_and, checks) if checks else None


def pack(x: Tensor, keep: Tensor, *, trim: bool = True) -> tuple[Tensor, Tensor]:
    """Moves the entries to keep to the front, 0 behind.  Shape: (B, T), (B, T) bool -> (B, T'), (B,) int32

    T' is the largest number of entries kept; a device is waited for to learn it. T' is T without `trim`.
    """
    lengths = keep.sum(1)
    # Each kept entry goes to its rank; all others to one column more, which is cut off.
    place = torch.where(keep, keep.cumsum(1) - 1, x.shape[1])
    packed = x.new_zeros(x.shape[0], x.shape[1] + 1).scatter_(1, place, x)
    longest = (int(lengths.max()) if lengths.numel() else 0) if trim else x.shape[1]
    return packed[:, :longest], lengths.to(torch.int32)
