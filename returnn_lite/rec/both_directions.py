"""A forward and a backward LSTM over one source as one call of cuDNN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.joint import Joint
from returnn_lite.ops.kernels import on_gpu
from returnn_lite.ops.lstm import bidirectional_lstm
from returnn_lite.ops.masked import frame_mask
from returnn_lite.rec.cells import Cell
from returnn_lite.tensor import Tensor


@dataclass(frozen=True)
class Direction:
    """A `rec` layer with the LSTM that it computes."""

    layer: Layer
    cell: Cell
    weights: Mapping[str, torch.Tensor]
    reverse: bool


class BothDirections(Joint):
    """Two `rec` layers.  Shape: (B, T, F) -> (T, B, 2 n_out)"""

    class_name = "both directions at once"

    def __init__(self, directions: Sequence[Direction]) -> None:
        super().__init__([direction.layer for direction in directions])
        self.directions = tuple(directions)

    def worthwhile(self, x: Tensor) -> bool:
        """On a GPU, which has twice as much to do at a time; a CPU computes in padding what it else leaves out."""
        return on_gpu(x.data) and x.spec.rank == 3 and x.data.is_floating_point() and 0 not in x.data.shape

    def together(self, x: Tensor) -> Tensor:
        """By one call, without reversing anything."""
        spec = self.made_spec(x.spec)
        at, generator = x.spec.dims.index(spec.dims[0]), self.context.generator
        batch = x.spec.batch or 0
        data = x.data.permute(at, batch, 3 - at - batch)
        dim = x.spec.dims[at]
        padding = ~frame_mask(x.length(dim).values, data.shape[0]).t() if dim.dynamic else None
        if padding is not None and not x.zero_padded:
            data = data.masked_fill(padding.unsqueeze(2), 0)
        ahead, back = (
            one.cell.begin_sequence(one.weights, one.layer.training, generator)
            for one in sorted(self.directions, key=lambda one: one.reverse)
        )
        weights = [tuple(w[key] for key in ("w_x", "w_h", "bias")) for w in (ahead, back)]
        out = bidirectional_lstm(data, weights[0], weights[1], padding=padding)
        if self.directions[0].reverse:
            out = out.roll(out.shape[2] // 2, 2)
        return x.with_data(out, spec, zero_padded=True)
