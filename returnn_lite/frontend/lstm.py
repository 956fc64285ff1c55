"""LSTMs, with and without zoneout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import returnn_lite.ops.lstm as ops_lstm
from returnn_lite.frontend import init
from returnn_lite.frontend.const import zeros
from returnn_lite.frontend.dim import Dim, Dims, single_step_dim
from returnn_lite.frontend.dim_sizes import as_torch
from returnn_lite.frontend.dot_attention import has_padding
from returnn_lite.frontend.dropout import dropout, dropout_broadcast_default
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged, axis_of
from returnn_lite.frontend.linear import matrix
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.parameter import Parameter
from returnn_lite.frontend.run_ctx import get_run_ctx
from returnn_lite.frontend.state import LstmState
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.frontend.tensor_base import checked_dims
from returnn_lite.ops.frames import Frames
from returnn_lite.ops.linear import linear
from returnn_lite.ops.recurrent import zoned_lstm

_ORDER = "ifao"  # of torch: input gate, forget gate, cell input, output gate


class LSTM(Module):
    """c' = σ(f) c + σ(i) tanh(g), h' = σ(o) tanh(c') (Hochreiter and Schmidhuber, 1997; Gers et al., 1999).

    Parameters, with the gates in the order i, f, g, o: `ff_weight` [4 out, in], `rec_weight` [4 out, out], `bias`
    [4 out].
    """

    def __init__(self, in_dim: Dim, out_dim: Dim, *, with_bias: bool = True) -> None:
        self.in_dim, self.out_dim = in_dim, out_dim
        gates = 4 * out_dim
        self.ff_weight = Parameter((gates, in_dim))
        self.ff_weight.initial = init.Glorot()
        self.rec_weight = Parameter((gates, out_dim))
        self.rec_weight.initial = init.Glorot()
        self.bias: Any = None
        if with_bias:
            self.bias = Parameter((gates,))
            self.bias.initial = 0.0

    def default_initial_state(self, *, batch_dims: Sequence[Dim]) -> LstmState:
        """Zeros."""
        dims = (*checked_dims(batch_dims, "default_initial_state"), self.out_dim)
        return LstmState(h=zeros(dims, feature_dim=self.out_dim), c=zeros(dims, feature_dim=self.out_dim))

    def __call__(self, source: Tensor, *, state: LstmState, spatial_dim: Dim) -> tuple[Tensor, LstmState]:
        """(tensor, new state). Axes: [time, batch axes …, out], without time for `single_step_dim`.

        Behind the end of a sequence the output is 0; the new state is that of the last frame.
        """
        step = spatial_dim == single_step_dim
        batch = self._batch(source, None if step else spatial_dim)
        shape = [source.raw_tensor.shape[source.dims.index(dim)] for dim in batch]
        front: Dims = () if step else (spatial_dim,)
        x = arranged(source.raw_tensor, source.dims, (*front, *batch, self.in_dim))
        x = x.flatten(len(front), -2) if batch else x.unsqueeze(-2)
        h, c = (self._rows(state, name, batch, shape, x) for name in ("h", "c"))
        if step:
            out, (h, c) = None, self._step(x, h, c)
        else:
            out, h, c = self._frames(x, h, c, *padding_of(spatial_dim, batch, shape, x))
        new = LstmState(h=self._tensor(h, (), batch, shape, source), c=self._tensor(c, (), batch, shape, source))
        return new.h if out is None else self._tensor(out, front, batch, shape, source), new

    def _batch(self, source: Tensor, spatial: Dim | None) -> Dims:
        what = f"{type(self).__name__}: {source}"
        at = {axis_of(source.dims, dim, what) for dim in (self.in_dim, spatial) if dim is not None}
        return tuple(dim for i, dim in enumerate(source.dims) if i not in at)

    def _rows(self, state: LstmState, name: str, batch: Dims, shape: list[int], like: torch.Tensor) -> torch.Tensor:
        """A part of the state as (B, H)."""
        value = state.get(name) if isinstance(state, dict) else None
        if value is None:
            raise WrongUse(f"{type(self).__name__} needs a state with h and c, but {name} is missing in {state}")
        raw = arranged(value.raw_tensor, value.dims, (*batch, self.out_dim))
        found: torch.Tensor = raw.expand(*shape, -1).reshape(-1, raw.shape[-1]).to(like.device)
        return found

    def _tensor(self, raw: torch.Tensor, front: Dims, batch: Dims, shape: list[int], source: Tensor) -> Tensor:
        raw = raw.reshape(*raw.shape[: len(front)], *shape, raw.shape[-1])
        return source._new(raw, (*front, *batch, self.out_dim), feature_axis=len(front) + len(batch), name="lstm")

    def _weights(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(4H, in), (4H, H), (4H,)"""
        w_x = matrix(self.ff_weight, self.in_dim)
        w_h = matrix(self.rec_weight, self.out_dim)
        return w_x, w_h, w_x.new_zeros(w_x.shape[0]) if self.bias is None else self.bias.raw_tensor

    def _step(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        w_x, w_h, bias = self._weights()
        return torch.lstm_cell(x, (h, c), w_x, w_h, bias, torch.zeros_like(bias))

    def _frames(
        self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, padding: torch.Tensor | None, lengths: Any
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Shape: (T, B, in), (B, H), (B, H), padding (T, B) -> (T, B, H), (B, H), (B, H)"""
        if x.shape[0] == 0:
            return x.new_zeros(0, *h.shape), h, c
        w_x, w_h, bias = self._weights()
        out, cell = ops_lstm.lstm(x, w_x.t(), w_h.t(), bias, h, c, padding=padding, order=_ORDER)
        if padding is None:
            return out, out[-1], cell
        last = Frames(lengths, x.shape[0], reverse=False, device=x.device).last(out, h)
        return out.masked_fill(padding.unsqueeze(-1), 0), last, cell


def padding_of(
    dim: Dim, batch: Dims, shape: list[int], like: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """(the padding (T, B), lengths (B,)); None if there is none."""
    if not has_padding(dim):
        return None, None
    sizes = dim.get_dyn_size_ext_for_device(like.device)
    lengths = arranged(as_torch(sizes), sizes.dims, batch).expand(shape).reshape(-1)
    frames = torch.arange(dim.padded_size(), device=like.device)
    return frames.unsqueeze(-1) >= lengths, lengths


class ZoneoutLSTM(LSTM):
    """An LSTM in which random cells and outputs keep their old values in training (Krueger et al., 2016).

    parts_order: which quarter of the parameters is which gate: i, f, o, and c (or g, j) the cell input. forget_bias:
    added to the forget gate. use_zoneout_output: whether the output is what the next frame sees, too.
    """

    def __init__(
        self,
        in_dim: Dim,
        out_dim: Dim,
        *,
        with_bias: bool = True,
        zoneout_factor_cell: float = 0.0,
        zoneout_factor_output: float = 0.0,
        use_zoneout_output: bool = True,
        forget_bias: float = 0.0,
        parts_order: str = "ifco",
    ) -> None:
        super().__init__(in_dim, out_dim, with_bias=with_bias)
        order = "".join("a" if part in "cgj" else part for part in parts_order)
        if sorted(order) != sorted(_ORDER):
            raise WrongUse(f"`parts_order` must have i, f, o and one of c, g, j, but is {parts_order!r} instead")
        self.zoneout_factor_cell, self.zoneout_factor_output = zoneout_factor_cell, zoneout_factor_output
        self.use_zoneout_output, self.forget_bias, self.parts_order = use_zoneout_output, forget_bias, parts_order
        self._order = order
        self.dropout_broadcast = dropout_broadcast_default()

    def _weights(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The gates in torch's order, the forget gate with its bias."""
        found = []
        for x in super()._weights():
            parts = dict(zip(self._order, x.chunk(4, 0), strict=True))
            if x.dim() == 1 and self.forget_bias:
                parts["f"] = parts["f"] + self.forget_bias
            found.append(torch.cat([parts[gate] for gate in _ORDER]))
        return found[0], found[1], found[2]

    def _zoned(self) -> bool:
        return bool(self.zoneout_factor_cell or self.zoneout_factor_output)

    def _zone(self, old: torch.Tensor, new: torch.Tensor, factor: float) -> torch.Tensor:
        if not factor:
            return new
        if not get_run_ctx().is_train_flag_enabled(func=dropout):
            return torch.lerp(new, old, factor)
        shape = (1, new.shape[-1]) if self.dropout_broadcast else tuple(new.shape)
        kept = torch.rand(shape, device=new.device, dtype=new.dtype) < factor
        return torch.where(kept, old, new)

    def _run(
        self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, padding: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        w_x, w_h, bias = self._weights()
        return zoned_lstm(
            linear(x, w_x, bias),
            w_h.t(),
            h,
            c,
            zone_cell=lambda old, new: self._zone(old, new, self.zoneout_factor_cell),
            zone_output=lambda old, new: self._zone(old, new, self.zoneout_factor_output),
            zoned_output=self.use_zoneout_output,
            padding=padding,
        )

    def __call__(self, source: Tensor, *, state: LstmState, spatial_dim: Dim) -> tuple[Tensor, LstmState]:
        """As of `LSTM`."""
        if self.use_zoneout_output or spatial_dim != single_step_dim or not self._zoned():
            return super().__call__(source, state=state, spatial_dim=spatial_dim)
        one = Dim(1, name="step")
        dims = (one, *source.dims)
        frame = source._new(source.raw_tensor.unsqueeze(0), dims)
        out, new = super().__call__(frame, state=state, spatial_dim=one)
        return out._new(out.raw_tensor[0], out.dims[1:], feature_axis=len(out.dims) - 2, name="lstm"), new

    def _step(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._zoned():
            return super()._step(x, h, c)
        _, h, c = self._run(x.unsqueeze(0), h, c, None)
        return h, c

    def _frames(
        self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, padding: torch.Tensor | None, lengths: Any
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if not self._zoned() or x.shape[0] == 0:
            return super()._frames(x, h, c, padding, lengths)
        return self._run(x, h, c, padding)
