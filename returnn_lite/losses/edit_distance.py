"""Edit distance (Levenshtein) of label sequences, a whole batch at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def edit_distance(a: Tensor, a_lengths: Tensor, b: Tensor, b_lengths: Tensor) -> Tensor:
    """Least number of insertions, deletions and substitutions. Shape: (B, N), (B,), (B, M), (B,) -> (B,) int32"""
    if a.shape[1] > b.shape[1]:
        return edit_distance(b, b_lengths, a, a_lengths)
    device = a.device
    b, a_lengths, b_lengths = b.to(device), a_lengths.to(device), b_lengths.to(device).long()
    row = torch.arange(b.shape[1] + 1, dtype=torch.int32, device=device).repeat(a.shape[0], 1)
    for index in range(a.shape[1]):
        new = next_row(row, a[:, index], b)
        row = torch.where((index < a_lengths)[:, None], new, row)
    return row.gather(1, b_lengths[:, None])[:, 0]


def next_row(row: Tensor, label: Tensor, b: Tensor) -> Tensor:
    """The row of the distance table that follows when `label` is read. Shape: (B, M + 1), (B,), (B, M) -> (B, M + 1)

    row[j] is the distance of what was read so far to the first j labels of `b`.
    """
    replaced = row[:, :-1] + (label[:, None] != b)
    best = row + 1
    best[:, 1:] = torch.minimum(best[:, 1:], replaced)
    # Insertions: min over k <= j of best[k] + (j - k), a running minimum.
    position = torch.arange(row.shape[1], dtype=row.dtype, device=row.device)
    return (best - position).cummin(1).values + position
