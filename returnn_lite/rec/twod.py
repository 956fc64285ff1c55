"""`twod_lstm`: an LSTM over two axes at once, the frames of an encoder and those of a target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from returnn_lite.config.option_types import PositiveInt
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.stateful import LoopConstants, LoopStart, State, Stateful, Tick
from returnn_lite.ops.lstm2d import lstm2d
from returnn_lite.ops.masked import frame_mask
from returnn_lite.ops.reductions import reduce
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor, batch_dim
from returnn_lite.tensor.align import joined

_POOLINGS = ("last", "max", "average", "weighted")
_STATE = ("h", "c")


@layer("twod_lstm")
class TwoDLSTM(Stateful):
    """An LSTM whose cell (t, s) follows (t, s - 1) and (t - 1, s), pooled over s (Bahar et al. 2018, arxiv 1810.03975).

    Sources: encoder (B, S, F), target side (B, T, G), or (B, G) in a loop. Shape: -> (T, B, n_out); (B, n_out). With
    a, i, f, o, l = [x_s, y_t] W_re + h(t, s-1) Vh_re + h(t-1, s) Vv_re:
    c = sig(i) tanh(a) + sig(f) (sig(l) c(t, s-1) + (1 - sig(l)) c(t-1, s)), h = sig(o) tanh(c). `pooling`: "last"
    valid s, "max" over all, "average" over the valid ones, "weighted" by a softmax over all of y_t W_att h. Parameters,
    below `rec-twod`: `Vh_re`, `Vv_re` (n_out, 5 n_out), `W_re` (F + G, 5 n_out), `W_att` (G, n_out).
    """

    sources = "many"
    recurrent = True
    lets_padding_through = True  # of the encoder, with the poolings "max" and "weighted"

    def __init__(self, *, n_out: PositiveInt | None = None, pooling: str = "last", unit_opts: Any = None) -> None:
        super().__init__()
        if pooling not in _POOLINGS:
            raise self.error(f"`pooling` must be one of {', '.join(_POOLINGS)}, but is {pooling!r} instead")
        self.n_out = n_out
        self.pooling = pooling

    def carries_state(self, sources: tuple[Spec | None, ...]) -> bool:
        """Whether the target side is one tick of a loop."""
        return len(sources) < 2 or sources[1] is None or sources[1].time is None

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The time axis of the target side, batch, features."""
        if len(sources) != 2:
            raise self.error(f"`from` must be two layers, encoder and target side, but are {len(sources)} instead")
        encoder, target = sources
        if encoder is not None and (encoder.time is None or encoder.feature is None or encoder.rank != 3):
            raise self.error(f"the first source must be (B, S, F), but is {encoder} instead")
        feature = self.feature_dim(self.n_out)
        time = () if target is None or target.time is None else (target.dims[target.time],)
        return Spec((*time, batch_dim, feature), time=0 if time else None, feature=len(time) + 1)

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """The parameters."""
        n, n_in = self.feature_dim(self.n_out).size or 0, (sources[0].dim or 0) + (sources[1].dim or 0)
        self.across = self.param("rec-twod/Vh_re", (n, 5 * n), "glorot_uniform")
        self.down = self.param("rec-twod/Vv_re", (n, 5 * n), "glorot_uniform")
        self.into = self.param("rec-twod/W_re", (n_in, 5 * n), "glorot_uniform")
        if self.pooling == "weighted":
            self.att = self.param("rec-twod/W_att", (sources[1].dim or 0, n), "glorot_uniform")

    # --- the table ----------------------------------------------------------------------------------------------------

    def _table(self, encoder: torch.Tensor, target: torch.Tensor, above: State) -> tuple[torch.Tensor, torch.Tensor]:
        """h and c of all cells.  Shape: (B, S, F), (B, T, G), the row above (B, S, H) -> (B, T, S, H) each"""
        split = encoder.shape[-1]
        columns, rows = encoder @ self.into[:split], target @ self.into[split:]  # (B, S, 5H), (B, T, 5H)
        return lstm2d(columns, rows, self.across, self.down, above["h"], above["c"])

    def _pooled(self, table: torch.Tensor, target: torch.Tensor, lengths: Lengths | None) -> torch.Tensor:
        """One vector per row.  Shape: (B, T, S, H) -> (B, T, H)"""
        if self.pooling == "max":
            return table.amax(2)
        if self.pooling == "weighted":
            energies = torch.einsum("bth,btsh->bts", target @ self.att, table)
            return torch.einsum("bts,btsh->bth", energies.softmax(-1), table)
        width = table.shape[2]
        sizes = torch.full(table.shape[:1], width, device=table.device) if lengths is None else lengths.values
        if self.pooling == "average":
            return reduce(table, "mean", (2,), frame_mask(sizes, width)[:, None, :, None])
        last = (sizes.long() - 1).clamp(min=0).reshape(-1, 1, 1, 1).expand(-1, table.shape[1], 1, table.shape[3])
        return table.gather(2, last).squeeze(2)

    def _run(self, encoder: Tensor, target: torch.Tensor, above: State | None) -> tuple[torch.Tensor, State]:
        """All rows for the target side (B, T, G): the pooled output (B, T, H), and the last row."""
        spec = encoder.spec
        order = tuple(i for i in (spec.batch, spec.time, spec.feature) if i is not None)
        columns = encoder.data.permute(order)
        dim = spec.dims[spec.time or 0]
        if above is None:
            above = self._nothing(columns.shape[:2], columns.device)
        h, c = self._table(columns, target, above)
        out = self._pooled(h, target, encoder.length(dim) if dim.dynamic else None)
        return out, {"h": h[:, -1], "c": c[:, -1]}

    def _nothing(self, shape: tuple[int, ...], device: torch.device) -> State:
        """The row above the first one."""
        zeros = torch.zeros(*shape, self.down.shape[0], dtype=self.down.dtype, device=device)
        return dict.fromkeys(_STATE, zeros)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """All frames of the target side."""
        encoder, target = sources
        if target.spec.time is None:
            raise self.error(f"the second source needs a time axis outside of loops, but is {target.spec}")
        order = tuple(i for i in (target.spec.batch, target.spec.time, target.spec.feature) if i is not None)
        out, _ = self._run(encoder, target.data.permute(order), None)
        spec = self.spec(encoder.spec, target.spec)
        return joined(out.transpose(0, 1), spec or target.spec, [target, encoder])

    def over(self, dim: Dim, sources: list[Tensor], refs: dict[str, Tensor]) -> Tensor:
        """All ticks of a loop."""
        encoder, target = sources
        if encoder.spec.loop or dim not in target.spec.loop or target.spec.rank != 3:
            raise self.error(f"the encoder must come from outside of the loop, but is {encoder.spec} instead")
        target = target.permuted((target.spec.dims.index(dim), target.spec.batch or 1, target.spec.feature or 2))
        out, _ = self._run(encoder, target.data.transpose(0, 1), None)
        spec = self.spec(encoder.spec, target.spec.in_loop(dim))
        return joined(out.transpose(0, 1), spec.with_loop(dim) if spec else target.spec, [target, encoder])

    # --- tick by tick -------------------------------------------------------------------------------------------------

    def first_state(self, make: LoopStart, refs: Mapping[str, Tensor]) -> State:
        """No row above; how long rows are is known at the first tick."""
        return {}

    def step(self, constants: LoopConstants, sources: list[Tensor], state: State, tick: Tick) -> tuple[Tensor, State]:
        """One more row."""
        encoder, target = sources
        out, row = self._run(encoder, target.batch_major().data.unsqueeze(1), state or None)
        spec = self.spec(encoder.spec, target.spec)
        return joined(out.squeeze(1), spec or target.spec, [target, encoder]), row
