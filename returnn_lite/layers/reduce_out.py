"""`reduce_out`: neighbouring features reduced, as in maxout."""

from __future__ import annotations

from returnn_lite.config.option_types import PositiveInt
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.tensor import Spec, Tensor


@layer("reduce_out")
class ReduceOut(Layer):
    """Groups of `num_pieces` neighbouring features, each reduced by `mode`.  Shape: (B, T, F) -> (B, T, F / n)

    y_j = f(x_(jn), …, x_(jn + n - 1)); with max this is maxout (Goodfellow et al. 2013).
    """

    def __init__(self, *, mode: str, num_pieces: PositiveInt) -> None:
        super().__init__()
        if mode not in ("max", "sum", "mean", "avg"):
            raise self.error(f'`mode` must be "max", "sum" or "mean", but is {mode!r} instead')
        self.mode = mode
        self.num_pieces = num_pieces

    def spec(self, x: Spec | None) -> Spec | None:
        """The feature axis divided by `num_pieces`."""
        if x is None:
            return None
        if x.feature != x.rank - 1 or x.dim is None or x.dim % self.num_pieces:
            raise self.error(
                f"the last axis must be the features, a multiple of {self.num_pieces}, but the source is {x}"
            )
        return x.with_feature(self.axis_dim(self.options.out_dim, x.dims[x.feature] // self.num_pieces))

    def forward(self, x: Tensor) -> Tensor:
        """The reduced features."""
        groups = x.data.reshape(*x.data.shape[:-1], -1, self.num_pieces)
        if self.mode == "max":
            data = groups.amax(-1)
        else:
            data = groups.sum(-1) if self.mode == "sum" else groups.mean(-1)
        return x.with_data(data, self.spec(x.spec))
