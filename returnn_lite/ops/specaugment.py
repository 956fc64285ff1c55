"""Random stretches of an axis, to be hidden from a model (SpecAugment, Park et al. 2019)."""

from __future__ import annotations

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
