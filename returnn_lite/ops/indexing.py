"""Picking and adding up rows by their positions."""

from __future__ import annotations

import torch
from torch import Tensor


def gather_rows(x: Tensor, index: Tensor) -> Tensor:
    """The rows at the positions.  Shape: (B, T, F), (B, N) int -> (B, N, F)"""
    index = inside(index, x.shape[1])
    return x[torch.arange(x.shape[0], device=x.device).unsqueeze(1), index]


def scatter_rows(x: Tensor, index: Tensor, frames: int, *, drop: bool = False) -> Tensor:
    """The sums of the rows with the same position.  Shape: (B, N, F), (B, N) int -> (B, frames, F)

    Positions outside of [0, frames): an error, or left out with `drop`.
    """
    batch, _, size = x.shape
    index, x = index.to(torch.int64), x.reshape((-1, size))
    if drop:
        valid = (index >= 0) & (index < frames)
        x = x * valid.reshape(-1, 1).to(x.dtype)
        index = index.clamp(0, max(frames - 1, 0))
    flat = inside(index, frames) + torch.arange(batch, device=index.device).unsqueeze(1) * frames
    zeros = torch.zeros((batch * frames, size), dtype=x.dtype, device=x.device)
    return zeros.index_add(0, flat.reshape(-1), x).reshape(batch, frames, size)


def labels(x: Tensor) -> Tensor:
    """Labels of any int type as torch looks them up: int32 or int64."""
    return x if x.dtype in (torch.int32, torch.int64) else x.to(torch.int32)


def inside(index: Tensor, frames: int) -> Tensor:
    """The positions as int64: an IndexError where they are outside of [0, frames) on the CPU; clipped on a GPU, which
    would stop the process.
    """
    index = index.to(torch.int64)
    if index.device.type != "cpu":
        return index.clamp(0, max(frames - 1, 0))
    if index.numel() and not (0 <= int(index.min()) and int(index.max()) < frames):
        raise IndexError(f"positions must be in [0, {frames}), but go from {int(index.min())} to {int(index.max())}")
    return index
