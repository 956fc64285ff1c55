"""An LSTM over two axes at once (Graves et al. 2007; Bahar et al. 2018, arXiv 1810.03975).

Shapes: B sequences, T rows, S columns, H units. The gates stand in the order a, i, f, o, l: cell input, input, forget,
output, and the share of the left neighbour.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lstm2d_step(gates: Tensor, left: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
    """c = σ(i) tanh(a) + σ(f) (σ(l) c_left + (1 - σ(l)) c_above), h = σ(o) tanh(c).

    Shape: (…, 5H), the cells (…, H) on the left and above -> h, c (…, H)
    """
    new, enter, forget, out, share = gates.chunk(5, -1)
    share = share.sigmoid()
    c = enter.sigmoid() * new.tanh() + forget.sigmoid() * (share * left + (1 - share) * above)
    return out.sigmoid() * c.tanh(), c


def lstm2d(
    columns: Tensor, rows: Tensor, w_left: Tensor, w_above: Tensor, h_above: Tensor, c_above: Tensor
) -> tuple[Tensor, Tensor]:
    """h and c of all cells (t, s), which follow (t, s - 1), at first 0, and (t - 1, s), at first the row above.

    Shape: input products per column (B, S, 5H) and per row (B, T, 5H), (H, 5H) twice, the row above (B, S, H) twice ->
    (B, T, S, H) twice. A cell needs its neighbours on the previous diagonal only, so a whole diagonal s + t is computed
    at once.
    """
    width, height = columns.shape[1], rows.shape[1]
    ticks = torch.arange(height, device=rows.device)
    left_h = left_c = rows.new_zeros(*rows.shape[:2], rows.shape[2] // 5)
    diagonals: list[tuple[Tensor, Tensor]] = []
    for number in range(width + height - 1):
        at = number - ticks  # the column of each row on this diagonal
        inside = ((at >= 0) & (at < width)).reshape(1, -1, 1)
        first = min(number, width - 1)
        up_h = torch.cat([h_above[:, first : first + 1], left_h[:, :-1]], 1)
        up_c = torch.cat([c_above[:, first : first + 1], left_c[:, :-1]], 1)
        gates = columns[:, at.clamp(0, width - 1)] + rows + left_h @ w_left + up_h @ w_above
        left_h, left_c = lstm2d_step(gates, left_c, up_c)
        left_h, left_c = left_h.masked_fill(~inside, 0.0), left_c.masked_fill(~inside, 0.0)
        diagonals.append((left_h, left_c))
    index = (ticks.unsqueeze(1) + torch.arange(width, device=rows.device)).flatten()  # the diagonal of each cell
    row = ticks.repeat_interleave(width)
    shape = (rows.shape[0], height, width, -1)
    tables = [torch.stack(d, 1)[:, index, row].reshape(shape) for d in zip(*diagonals, strict=True)]
    return tables[0], tables[1]
