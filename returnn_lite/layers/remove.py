"""`remove`: drops the frames of one symbol."""

from __future__ import annotations

import torch

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.slicing import with_axis
from returnn_lite.tensor import Lengths, Spec, Tensor
from returnn_lite.tensor.axes import AxisText, describe
from returnn_lite.tensor.axes import axis as find_axis
from returnn_lite.tensor.dim import SPATIAL
from returnn_lite.tensor.masked import mask


@layer("remove")
class Remove(Layer):
    """The frames that are not `symbol`, moved together; 0 after them.  Shape: sparse (B, T) -> (B, T')"""

    recurrent = True

    def __init__(self, *, symbol: int, axis: AxisText = "T") -> None:
        super().__init__()
        self.symbol = symbol
        self.axis = axis

    def spec(self, x: Spec | None) -> Spec | None:
        """The shorter axis."""
        if x is None:
            return None
        at = find_axis(x, self.axis)
        visible = [d for d in x.dims if d not in x.loop]
        if x.batch is None or len(visible) != 2:
            raise self.error(f"the source must have the axes batch and {self.axis!r}, but is {describe(x)}")
        return with_axis(x, at, self.axis_dim(self.options.out_dim, self.dim("removed-items", None, SPATIAL)))

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The frames that are left."""
        x, spec = sources[0], self.made_spec(sources[0].spec)
        at = find_axis(x.spec, self.axis)
        keep = x.data != self.symbol
        valid = mask(x, at)
        keep = keep if valid is None else keep & valid
        order = torch.argsort(keep.to(torch.uint8), dim=at, descending=True, stable=True)
        count = keep.sum(at, dtype=torch.int32)
        frames = int(count.max()) if count.numel() else 0
        data = x.data.gather(at, order).masked_fill(~keep.gather(at, order), 0).narrow(at, 0, frames)
        dims = tuple(d for i, d in enumerate(x.spec.dims) if i != at)
        return x.with_lengths({spec.dims[at]: Lengths(count, frames, dims)}).with_data(data, spec)
