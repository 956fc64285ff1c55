"""Edit distance (Levenshtein) of label sequences, and its table row by row; a whole batch at a time.

row[j] of the table is the distance of what was read so far to the first j labels of the target.
"""

from __future__ import annotations

import torch
from torch import Tensor

from returnn_lite.ops.masked import frame_mask

ROWS = 64  # of the table, whose costs are made at once


def edit_distance(a: Tensor, a_lengths: Tensor, b: Tensor, b_lengths: Tensor) -> Tensor:
    """Least number of insertions, deletions and substitutions.  Shape: (B, N), (B,), (B, M), (B,) -> (B,) int32

    The table holds the distance of the first i labels of a to the first j of b, less i + j: deletions and insertions
    then cost nothing, equal labels -2 and replaced ones -1, and a label behind the end of a changes nothing.
    """
    if a.shape[1] > b.shape[1]:
        return edit_distance(b, b_lengths, a, a_lengths)
    device = a.device
    b, a_lengths, b_lengths = b.to(device), a_lengths.to(device), b_lengths.to(device)
    row = torch.zeros(b.shape[0], b.shape[1] + 1, dtype=torch.int32, device=device)
    behind = ~frame_mask(a_lengths, a.shape[1])
    for first in range(0, a.shape[1], ROWS):
        part = slice(first, first + ROWS)
        costs = (a[:, part, None] != b[:, None]).to(torch.int32) - 2
        costs = costs.masked_fill_(behind[:, part, None], a.shape[1] + b.shape[1])
        for cost in costs.unbind(1):
            best = torch.minimum(row[:, 1:], row[:, :-1] + cost)
            row = torch.cat([row[:, :1], best.cummin(1).values], 1)
    found = row.gather(1, b_lengths.long()[:, None])[:, 0]
    return found + (a_lengths + b_lengths).to(torch.int32)


def first_row(target: Tensor, lengths: Tensor) -> Tensor:
    """The row before any label: 0, 1, …; behind the end of the target its last value.

    Shape: (B, M), (B,) -> (B, M + 1) int32
    """
    row = torch.arange(target.shape[1] + 1, dtype=torch.int32, device=target.device)
    return torch.minimum(row, lengths.to(torch.int32).unsqueeze(1))


def next_row(row: Tensor, label: Tensor, target: Tensor, lengths: Tensor, *, blank: int | None = None) -> Tensor:
    """The row behind one more label; behind the end of the target its last value. A blank leaves the row as it is.

    Shape: (B, M + 1), (B,), (B, M), (B,) -> (B, M + 1)
    """
    new = _next_row(row, label, target)
    positions = torch.arange(new.shape[1], device=new.device)
    new = new.gather(1, torch.minimum(positions, lengths.long().unsqueeze(1)))
    return new if blank is None else torch.where((label == blank).unsqueeze(1), row, new)


def _next_row(row: Tensor, label: Tensor, target: Tensor) -> Tensor:
    replaced = row[:, :-1] + (label[:, None] != target)
    best = row + 1
    best[:, 1:] = torch.minimum(best[:, 1:], replaced)
    # Insertions: min over k <= j of best[k] + (j - k), a running minimum.
    position = torch.arange(row.shape[1], dtype=row.dtype, device=row.device)
    return (best - position).cummin(1).values + position


def optimal_completions(
    rows: Tensor, target: Tensor, lengths: Tensor, classes: int, *, blank: int | None = None
) -> Tensor:
    """For each next label the distance that the best continuation can still reach (Sabour et al. 2018).

    Shape: rows (…, B, M + 1), (B, M), (B,) -> (…, B, V) int32. The blank keeps the least distance.
    """
    valid = frame_mask(lengths + 1, rows.shape[-1])
    rows = rows.masked_fill(~valid, torch.iinfo(torch.int32).max // 2)
    least = rows.amin(-1, keepdim=True)
    # Behind a label that the target has at j + 1 the distance of j remains; behind any other the least one grows.
    best = (least + 1).expand(*rows.shape[:-1], classes).clone()
    index = target.long().expand(rows[..., :-1].shape)
    best.scatter_reduce_(-1, index, rows[..., :-1].masked_fill(~valid[:, 1:], torch.iinfo(torch.int32).max), "amin")
    if blank is not None:
        best[..., blank] = least.squeeze(-1)
    return best
