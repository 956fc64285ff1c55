"""Random stretches of an axis, to be hidden from a model (SpecAugment, Park et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from returnn_lite.ops.masked import frame_mask


def random_stretches(
    lengths: Tensor,
    size: int,
    *,
    fewest: Tensor | int,
    most: Tensor | int,
    max_width: Tensor | int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """True in some stretches of an axis.  Shape: (B,) -> (B, T) bool, T = `size`

    Per row a number of stretches, uniform in [`fewest`, `most`] (ints or (B,)), with distinct starts within the length,
    and each of a width uniform in 1 … `max_width` (too), cut at the end. They may overlap. No device is waited for.
    """
    batch, device = lengths.shape[0], lengths.device

    def drawn(low: Tensor | int, high: Tensor | int, columns: int) -> Tensor:
        part = torch.rand(batch, columns, device=device, generator=generator)
        low, high = (torch.as_tensor(n, device=device).reshape(-1, 1) for n in (low, high))
        return torch.minimum(low + (part * (high - low + 1)).floor().to(torch.int64), high)

    valid = frame_mask(lengths, size)
    keys = torch.rand(batch, size, device=device, generator=generator).masked_fill(~valid, -1.0)
    rank = keys.argsort(-1, descending=True).argsort(-1)
    starts = (valid & (rank < drawn(fewest, most, 1))).to(torch.int64)
    ends = torch.arange(size, device=device) + drawn(1, max_width, size)
    change = torch.zeros(batch, size + 1, dtype=torch.int64, device=device)
    change[:, :size] = starts
    change.scatter_add_(1, ends.clamp(max=size), -starts)
    return change[:, :size].cumsum(1) > 0


def stages(step: int, steps: Sequence[int]) -> tuple[int, ...]:
    """1 for each entry of `steps` that the training step `step` has reached, else 0."""
    return tuple(int(step >= start) for start in steps)


def time_stretches(lengths: Tensor, frames: int, stage: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(fewest, most) stretches of frames, more of them with longer axes and later stages.  Shape: (…) -> (…)

    `frames`: about so many for each stretch. `stage`: the three flags of `stages`.
    """
    s0, s1, s2 = stage
    most = (lengths // frames).clamp(min=2) * (s0 + s1 + 2 * s2)
    return lengths.clamp(max=s1 + s2), torch.minimum(most, lengths)


def feature_stretches(stage: Sequence[int]) -> tuple[int, int]:
    """(fewest, most) stretches of features."""
    s0, s1, s2 = stage
    return s1 + s2, 2 * s0 + s1 + 2 * s2


def widest_features(size: int) -> int:
    """The longest stretch of features unless one is given: a fifth of them."""
    return size // 5
