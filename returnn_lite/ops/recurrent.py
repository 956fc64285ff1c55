"""One tick of recurrent units: the sums that enter the gates, and the state, give the new state.

Shapes: B sequences, H units. The gates of an LSTM stand in the order a, i, f, o (cell input, input, forget, output
gate), blocks of H columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from returnn_lite.ops.linear import added_product, linear
from returnn_lite.ops.tanh import tanh

Function = Callable[[Tensor], Tensor]


def lstm_step(
    gates: Tensor,
    c: Tensor,
    *,
    activation: Function = tanh,
    peepholes: tuple[Tensor, Tensor] | None = None,
    cell_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """c' = σ(f) c + σ(i) tanh(a), h' = σ(o) tanh(c').  Shape: (B, 4H), c (B, H) -> h', c' (B, H)

    `peepholes`: weights (2H,) with which the old c enters i and f, and (H,) with which the new one enters o.
    `cell_clip` limits |c'| (Hochreiter and Schmidhuber 1997; Gers et al. 2002).
    """
    size = c.shape[-1]
    if peepholes is None:
        a, ifo = torch.split_with_sizes(gates, (size, 3 * size), 1)
        i, f, o = torch.sigmoid(ifo).chunk(3, 1)
    else:
        a, i_f, o = torch.split_with_sizes(gates, (size, 2 * size, size), 1)
        i, f = torch.sigmoid(torch.addcmul(i_f, torch.cat([c, c], 1), peepholes[0])).chunk(2, 1)
    c = torch.addcmul(f * c, i, activation(a))
    if cell_clip is not None:
        c = c.clamp(-cell_clip, cell_clip)
    if peepholes is not None:
        o = torch.sigmoid(torch.addcmul(o, c, peepholes[1]))
    return o * activation(c), c


def normed_lstm_step(
    gates: Tensor,
    c: Tensor,
    *,
    activation: Function = tanh,
    dropout: Function | None = None,
    cell_norm: Function | None = None,
    norm_in_output: bool = True,
    hidden_norm: Function | None = None,
) -> tuple[Tensor, Tensor]:
    """As `lstm_step`, with normalised c' and h' (Ba et al. 2016, https://arxiv.org/abs/1607.06450).

    Shape: (B, 4H), c (B, H) -> h', c' (B, H). `dropout` is applied to the activated cell input. Without
    `norm_in_output` h' comes from c' before its normalisation.
    """
    size = c.shape[-1]
    a, ifo = gates.split((size, 3 * size), 1)
    a = activation(a)
    if dropout is not None:
        a = dropout(a)
    i, f, o = torch.sigmoid(ifo).chunk(3, 1)
    c = c_out = torch.addcmul(f * c, i, a)
    if cell_norm is not None:
        c = cell_norm(c)
        if norm_in_output:
            c_out = c
    h = o * activation(c_out)
    return h if hidden_norm is None else hidden_norm(h), c


def zoneout(old: Tensor, new: Tensor, factor: float, *, training: bool, generator: torch.Generator | None) -> Tensor:
    """The new state, of which some elements keep their old values.  Shape: any, the same -> the same

    In training each does with probability `factor`; otherwise the mean over that (Krueger et al. 2016,
    https://arxiv.org/abs/1606.01305).
    """
    if not training:
        return torch.lerp(new, old, factor)
    kept = torch.rand(new.shape, device=new.device, dtype=new.dtype, generator=generator) < factor
    return torch.where(kept, old, new)


def gru_step(sums: Tensor, h: Tensor, gates_h: Tensor, new_h: Tensor, *, activation: Function = tanh) -> Tensor:
    """r, u = σ(sums_ru + h gates_h), n = tanh(sums_n + (r h) new_h), h' = u h + (1 - u) n.

    Shape: (B, 3H), (B, H), (H, 2H), (H, H) -> (B, H). The reset gate is applied before the product, unlike in torch's
    GRU (Cho et al. 2014, https://arxiv.org/abs/1406.1078).
    """
    size = h.shape[-1]
    gates, new = sums.split((2 * size, size), 1)
    r, u = torch.sigmoid(added_product(gates, h, gates_h)).chunk(2, 1)
    new = activation(added_product(new, r * h, new_h))
    return torch.lerp(new, h, u)


def rhn_step(sums: Tensor, s: Tensor, weights: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
    """Highway layers s += σ(t) (tanh(h) - s), with h, t = s W_i, plus `sums` at the first.

    Shape: (B, 2H), (B, H), each W_i (H, 2H) -> (B, H). `mask` (B, H) is multiplied with the s that enters the products
    (Zilly et al. 2016, https://arxiv.org/abs/1607.03474).
    """
    for depth, weight in enumerate(weights):
        dropped = s if mask is None else s * mask
        both = added_product(sums, dropped, weight) if depth == 0 else linear(dropped, weight.t())
        h, t = both.chunk(2, 1)
        s = torch.lerp(s, tanh(h), torch.sigmoid(t))
    return s


def zoned_lstm(
    gates_x: Tensor,
    w_h: Tensor,
    h: Tensor,
    c: Tensor,
    *,
    zone_cell: Callable[[Tensor, Tensor], Tensor],
    zone_output: Callable[[Tensor, Tensor], Tensor],
    zoned_output: bool = True,
    padding: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """An LSTM whose new cell and output go through functions of (old, new), frame by frame.

    Shape: (T, B, 4H) with the gates i, f, a, o, (H, 4H), (B, H), (B, H), padding (T, B) -> (T, B, H), (B, H), (B, H):
    the outputs (with `zoned_output` those that the next frame sees; 0 in the padding), the last output and cell.
    """
    outputs = []
    for t, frame in enumerate(gates_x):
        i, f, a, o = added_product(frame, h, w_h).chunk(4, 1)
        new_c = f.sigmoid() * c + i.sigmoid() * a.tanh()
        plain = o.sigmoid() * new_c.tanh()
        new_c, new_h = zone_cell(c, new_c), zone_output(h, plain)
        output = new_h if zoned_output else plain
        if padding is None:
            h, c = new_h, new_c
        else:
            ended = padding[t].unsqueeze(1)
            h, c = torch.where(ended, h, new_h), torch.where(ended, c, new_c)
            output = output.masked_fill(ended, 0)
        outputs.append(output)
    return torch.stack(outputs), h, c
