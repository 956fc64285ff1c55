"""`unflatten_nd`: one time axis parted into several, as for flattened images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from returnn_lite.config.option_types import PositiveInt
from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor
from returnn_lite.tensor.align import joined
from returnn_lite.tensor.axes import AxisText, describe
from returnn_lite.tensor.axes import axis as find_axis
from returnn_lite.tensor.dim import SPATIAL


@layer("unflatten_nd")
class UnflattenNd(Layer):
    """Time split into `num_axes` axes whose sizes differ per sequence.  Shape: (B, T, F), sizes (B, 2) -> (B, W, H, F)

    out[b, w, h] = x[b, w * sizes[b, 1] + h], 0 outside. `in_dim`: another axis than time; `out_dims`: the new axes.
    `declare_same_sizes_as`: {number of a new axis: layer}, which gets the time axis of that layer.
    """

    recurrent = True
    in_dim_is_features = False

    def __init__(
        self,
        *,
        sizes: LayerRef,
        num_axes: PositiveInt,
        in_dim: AxisText = "T",
        out_dims: Sequence[Dim] | None = None,
        declare_same_sizes_as: Mapping[int, str] | None = None,
    ) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.out_dims = out_dims
        if out_dims is not None and len(out_dims) != num_axes:
            raise self.error(f"`out_dims` must have `num_axes` {num_axes} entries, but is {out_dims!r} instead")
        self.sizes = sizes
        self.num_axes = num_axes
        self.same_as = dict(declare_same_sizes_as or {})

    async def link(self, net: Linker, node: Node) -> None:
        """The layers whose axes are taken over."""
        for i, name in self.same_as.items():
            node.refs[f"same:{i}"] = await net.ask(name)

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """Batch, the new axes, the others."""
        if x is None or any(r is None for r in refs.values()):
            return None
        x = x.permuted(self._order(x))
        at = len(x.loop) + 1
        new = [self._axis(i, refs.get(f"same:{i}")) for i in range(self.num_axes)]
        feature = None if x.feature is None else x.feature + self.num_axes - 1
        dims = (*x.dims[:at], *new, *x.dims[at + 1 :])
        return Spec(dims, x.dtype, sparse_dim=x.sparse_dim, time=at, feature=feature, loop=x.loop)

    def _order(self, x: Spec) -> tuple[int, ...]:
        """The batch axis and the one to part in front."""
        if x.batch is None:
            raise self.error(f"the source needs a batch axis, but is {describe(x)}")
        return x.order(x.batch, find_axis(x, self.in_dim, option="in_dim"))

    def _axis(self, i: int, same: Spec | None) -> Dim:
        if self.out_dims is not None:
            return self.out_dims[i]
        if same is not None and same.time_dim is not None:
            return same.time_dim
        return self.dim(f"unflatten-nd-{i}", None, SPATIAL)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The parted frames."""
        x, sizes = sources[0], refs["sizes"].batch_major().data.to(torch.int64)
        spec = self.made_spec(x.spec, **{k: r.spec for k, r in refs.items()})
        if sizes.dim() != 2 or sizes.shape[1] != self.num_axes:
            raise self.error(f"`sizes` must have shape (B, {self.num_axes}), but has {tuple(sizes.shape)} instead")
        x = x.permuted(self._order(x.spec))
        at = len(x.spec.loop) + 1
        largest = [int(n) for n in sizes.amax(0)]
        index = torch.zeros((len(sizes), *(1,) * self.num_axes), dtype=torch.int64, device=x.device)
        valid = torch.ones_like(index, dtype=torch.bool)
        for i, n in enumerate(largest):
            place = torch.arange(n, device=x.device).reshape((-1, *(1,) * (self.num_axes - 1 - i)))
            size = sizes[:, i].reshape((-1, *(1,) * self.num_axes))
            index, valid = index * size + place, valid & (place < size)
        shape = (len(sizes), *largest)
        valid = (valid & (index < x.data.shape[at])).expand(shape)
        flat = index.expand(shape).reshape((len(sizes), -1)).clamp(0, max(x.data.shape[at] - 1, 0))
        tail = (1,) * (x.data.dim() - at - 1)
        rows = flat.reshape((*flat.shape, *tail)).expand((*x.data.shape[:at], flat.shape[1], *x.data.shape[at + 1 :]))
        data = x.data.gather(at, rows).unflatten(at, tuple(largest))
        data = data.masked_fill(~valid.reshape((*shape, *tail)), 0)
        lengths = {spec.dims[at + i]: Lengths(sizes[:, i].to(torch.int32), n) for i, n in enumerate(largest)}
        return joined(x.data, x.spec, [x, *refs.values()]).with_lengths(lengths).with_data(data, spec)
