"""Whole LSTM sequences without a tick in Python, or with ticks that leave no trace for autograd.

The gates stand in the order a, i, f, o (cell input, input, forget, output gate), blocks of H columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from returnn_lite.ops.kernels import on_gpu

_sigmoid_gradient = torch.ops.aten.sigmoid_backward
_tanh_gradient = torch.ops.aten.tanh_backward
ORDER = "aifo"
_TORCH_ORDER = "ifao"
_SATURATED = 1.0e4  # sigmoid is exactly 1 here and exactly 0 at the negative value, in each float type


def lstm(
    x: Tensor,
    w_x: Tensor,
    w_h: Tensor,
    bias: Tensor,
    h0: Tensor,
    c0: Tensor,
    *,
    padding: Tensor | None = None,
    order: str = ORDER,
) -> tuple[Tensor, Tensor]:
    """One fused call: (T, B, D), (D, 4H), (H, 4H), (4H,), (B, H), (B, H) -> outputs (T, B, H), last cell (B, H).

    In the `padding` (T, B) the cell stands still, so that the last cell is that of the last valid frame; the outputs
    there mean nothing. `order`: the gates of the blocks of columns.
    """
    if padding is not None:  # one more input, which shuts the input gate and opens the forget gate
        x = torch.cat([x, padding.unsqueeze(2).to(x.dtype)], 2)
        w_x = torch.cat([w_x, freezing_gates(w_x, order).unsqueeze(0)])
    weights = _in_order([(w_x, w_h, bias)], order)
    hidden = (h0.unsqueeze(0).contiguous(), c0.unsqueeze(0).contiguous())
    out, _, cell = torch.lstm(x, hidden, weights, True, 1, 0.0, torch.is_grad_enabled(), False, False)
    return out, cell[0]


def bidirectional_lstm(
    x: Tensor,
    ahead: Sequence[Tensor],
    back: Sequence[Tensor],
    *,
    padding: Tensor | None = None,
    order: str = ORDER,
) -> Tensor:
    """Both directions by one call: (T, B, D), w_x (D, 4H), w_h (H, 4H), bias (4H,) of each -> (T, B, 2H).

    In the `padding` (T, B), where x is finite, one more input shuts the gates: the state stays 0 there, and so are the
    outputs, from either end.
    """
    more = 0
    if padding is not None:
        more = -x.shape[2] % 8 or 8  # so that matrices stay aligned
        x = torch.cat([x, F.pad(padding.unsqueeze(2).to(x.dtype), (more - 1, 0))], 2)
    weights = _in_order([ahead, back], order, shutting=more)
    state = x.new_zeros(2, x.shape[1], ahead[1].shape[0])
    out, _, _ = torch.lstm(x, (state, state), weights, True, 1, 0.0, torch.is_grad_enabled(), True, False)
    return out


def rnn_tanh(x: Tensor, w_x: Tensor, w_h: Tensor, bias: Tensor, h0: Tensor) -> Tensor:
    """h' = tanh(x w_x + h w_h + bias), one fused call: (T, B, D), (D, H), (H, H), (H,), (B, H) -> (T, B, H)."""
    weights = [w_x.t(), w_h.t(), bias, torch.zeros_like(bias)]
    if on_gpu(x):
        weights = _taken_apart(torch.cat([w.reshape(-1) for w in weights]), [tuple(w.shape) for w in weights])
    hidden = h0.unsqueeze(0).contiguous()
    out, _ = torch.rnn_tanh(x, hidden, weights, True, 1, 0.0, torch.is_grad_enabled(), False, False)
    return out


def freezing_gates(like: Tensor, order: str = ORDER) -> Tensor:
    """Sums (4H,) of the gates with which a tick keeps the cell exactly as it is."""
    return _fixed_gates(like, order, i=-_SATURATED, f=_SATURATED, others=0.0)


def _fixed_gates(like: Tensor, order: str, *, i: float, f: float, others: float) -> Tensor:
    """Numbers (4H,), equal for all units."""
    gates = like.new_full((4, like.shape[-1] // 4), others)
    gates[order.index("i")], gates[order.index("f")] = i, f
    return gates.flatten()


def lstm_over_gates(
    gates: Tensor, w_h: Tensor, h0: Tensor, c0: Tensor, *, padding: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """LSTM whose input products are given: (T, B, 4H), (H, 4H), (B, H), (B, H) -> (T, B, H), last cell (B, H).

    `padding` as for `lstm`.
    """
    if padding is not None:
        gates = torch.where(padding.unsqueeze(2), freezing_gates(gates), gates)
    if on_gpu(gates):  # one more big product is cheaper than ticks there
        size = gates.shape[2]
        unit = torch.eye(size, device=gates.device, dtype=gates.dtype)
        return lstm(gates, unit, w_h, gates.new_zeros(size), h0, c0)
    out, cell = _LstmOverGates.apply(gates, w_h, h0, c0)  # type: ignore[no-untyped-call]
    return out, cell


def _in_order(directions: Sequence[Sequence[Tensor]], order: str, *, shutting: int = 0) -> list[Tensor]:
    """What torch.lstm wants of (w_x, w_h, bias) of each direction: (4H, D), (4H, H), (4H,), and zeros (4H,).

    `shutting`: so many more inputs, of which the last one shuts the gates. On a GPU one operation puts all in order.
    """
    if not on_gpu(directions[0][0]):
        return [w for one in directions for w in _rows_of(one, order, shutting, 0.0, -_SATURATED)]
    sizes = tuple(tuple(w.shape) for w in directions[0])
    parts = [w for one in directions for w in one]
    index, constants, shapes = _places(sizes, len(directions), order, shutting, parts[0].dtype, parts[0].device)
    flat = torch.cat([*(w.reshape(-1) for w in parts), constants]).index_select(0, index)
    return _taken_apart(flat, shapes)


def _taken_apart(flat: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Weights in one piece of memory, as cuDNN wants them."""
    parts = flat.split([math.prod(shape) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


@lru_cache(maxsize=64)
def _places(
    sizes: tuple[tuple[int, ...], ...],
    directions: int,
    order: str,
    shutting: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor, list[tuple[int, ...]]]:
    """Where each number of what torch.lstm wants stands in the weights side by side, with two constants behind them;
    these; and the shapes."""
    total = sum(map(math.prod, sizes)) * directions
    numbers = _taken_apart(torch.arange(total), sizes * directions)
    groups = [numbers[start : start + len(sizes)] for start in range(0, len(numbers), len(sizes))]
    made = [rows for one in groups for rows in _rows_of(one, order, shutting, total, total + 1)]
    index = torch.cat([rows.reshape(-1) for rows in made]).to(device, torch.int32)
    return index, torch.tensor([0.0, -_SATURATED], dtype=dtype, device=device), [tuple(rows.shape) for rows in made]


def _rows_of(one: Sequence[Tensor], order: str, shutting: int, zero: float, shut: float) -> list[Tensor]:
    """(w_x, w_h, bias) of one direction in torch's order, and `zero` for the second bias. `shut`: what the last one of
    the further inputs has for the gates that it shuts."""
    w_x, w_h, bias = one
    if shutting:
        others = bias.new_full((shutting - 1, len(bias)), zero)
        w_x = torch.cat([w_x, others, _fixed_gates(bias, order, i=shut, f=shut, others=zero).unsqueeze(0)])
    return [*(_rows(w, order) for w in (w_x, w_h, bias)), torch.full_like(bias, zero)]


def _rows(weight: Tensor, order: str) -> Tensor:
    """(D, 4H) or (4H,), blocks in this order -> (4H, D) or (4H,), blocks in torch's order."""
    if order == _TORCH_ORDER:
        return weight.t()
    blocks = weight.chunk(4, -1)  # moved before the transposition, so that the gradient is contiguous, too
    return torch.cat([blocks[order.index(gate)] for gate in _TORCH_ORDER], -1).t()


class _LstmOverGates(torch.autograd.Function):
    """Ticks by hand in both directions, so that all frames share one product for the gradient of `w_h`."""

    @staticmethod
    def forward(ctx: FunctionCtx, gates: Tensor, w_h: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor]:
        num_frames, batch, size = *gates.shape[:2], w_h.shape[0]
        hidden = gates.new_empty(num_frames + 1, batch, size)  # [t] is the state before tick t
        cells = torch.empty_like(hidden)
        hidden[0], cells[0] = h0, c0
        active = torch.empty_like(gates)  # the gates after their non-linearities
        squashed = torch.empty_like(hidden[1:])  # tanh(c')
        hs, cs = hidden.unbind(0), cells.unbind(0)
        for t, (sums, g, s) in enumerate(zip(gates.unbind(0), active.unbind(0), squashed.unbind(0), strict=True)):
            torch.addmm(sums, hs[t], w_h, out=g)
            a, ifo = g.split((size, 3 * size), 1)
            a.tanh_()
            i, f, o = ifo.sigmoid_().chunk(3, 1)
            torch.mul(f, cs[t], out=cs[t + 1]).addcmul_(i, a)
            torch.mul(o, torch.tanh(cs[t + 1], out=s), out=hs[t + 1])
        ctx.save_for_backward(w_h, hidden, cells, active, squashed)
        return hidden[1:], cells[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor, grad_cell: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        w_h, hidden, cells, active, squashed = ctx.saved_tensors
        num_frames, _, size = squashed.shape
        grads = torch.empty_like(active)
        back = w_h.t()
        dh, dc = torch.zeros_like(grad_cell), grad_cell.clone()
        for t in range(num_frames - 1, -1, -1):
            a, i, f, o = active[t].chunk(4, 1)
            g = grads[t]
            g_a, g_i, g_f, g_o = g.chunk(4, 1)
            s = squashed[t]
            dh += grad_out[t]
            dc += _tanh_gradient(dh * o, s)
            torch.mul(dc, a, out=g_i)
            torch.mul(dc, cells[t], out=g_f)
            torch.mul(dh, s, out=g_o)
            _sigmoid_gradient(g[:, size:], active[t, :, size:], grad_input=g[:, size:])
            _tanh_gradient(dc * i, a, grad_input=g_a)
            dc *= f
            torch.mm(g, back, out=dh)
        dw = hidden[:-1].reshape(-1, size).t() @ grads.view(-1, 4 * size)
        return grads, dw, dh, dc
