"""Layers about lengths and positions: `length`, `range`, `range_in_axis`, `range_from_length`, `seq_len_mask`."""

from __future__ import annotations

import math

import torch

from returnn_lite.config.option_types import NaturalInt
from returnn_lite.layers.constants import check_dtype
from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.runtime_sizes import MadeSizes
from returnn_lite.ops.masked import range_mask
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor, batch_dim
from returnn_lite.tensor.align import place
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axis as find_axis
from returnn_lite.tensor.dim import SPATIAL
from returnn_lite.tensor.masked import mask
from returnn_lite.tensor.tensor import DTYPES


@layer("length")
class Length(Layer):
    """The lengths of an axis.  Shape: (B, T, F), "T" -> (B,) int32; () for a static axis or the batch

    `axis` "sparse_dim": number of classes. `add_time_axis`: (B, 1). `sparse`: the values are positions of that axis.
    """

    sources = "many"

    def __init__(
        self, *, axis: AxisText = "T", add_time_axis: bool = False, dtype: str = "int32", sparse: bool = False
    ) -> None:
        super().__init__()
        self.axis = axis
        self.add_time_axis = add_time_axis
        self.dtype = dtype
        self.sparse = sparse
        check_dtype(self, dtype)

    def measured(self, x: Spec) -> Dim:
        """The axis (or the classes) that this layer measures."""
        if self.axis != "sparse_dim":
            return x.dims[find_axis(x, self.axis)]
        if x.sparse_dim is None:
            raise self.error(f'`axis` "sparse_dim" needs sparse data, but the source is {x}')
        return x.sparse_dim

    def spec(self, x: Spec | None) -> Spec | None:
        """(B,), or (B, 1), or a single number."""
        if x is None:
            return None
        dim = self.measured(x)
        dims = [batch_dim] if dim.dynamic else []
        if self.add_time_axis:
            dims.append(self.dim("dummy-time", 1, SPATIAL))
        return Spec(
            dims,
            "int32" if dim.dynamic else self.dtype,
            sparse_dim=dim if self.sparse else None,
            time=len(dims) - 1 if self.add_time_axis else None,
            feature=None,
        )

    def forward(self, x: Tensor) -> Tensor:
        """The lengths."""
        spec, dim = self.made_spec(x.spec), self.measured(x.spec)
        if dim.dynamic:
            lengths = x.length(dim)
            values = lengths.values.to(torch.int32)
            if lengths.dims != (batch_dim,):
                spec = spec.with_dims(lengths.dims, loop=x.spec.loop)
        else:
            size = x.data.shape[x.spec.batch or 0] if dim.is_batch else dim.size
            values = torch.full((), size or 0, dtype=DTYPES[self.dtype], device=x.device)
        return x.with_data(values.unsqueeze(-1) if self.add_time_axis else values, spec)


def measured_axis(node: Node | None) -> Dim | None:
    """The dynamic axis that the node's values are lengths of, if it is a `length` layer."""
    if node is None or not isinstance(node.layer, Length) or node.sources[0].spec is None:
        return None
    dim = node.layer.measured(node.sources[0].spec)
    return dim if dim.dynamic else None


@layer("range")
class Range(Layer):
    """start, start + delta, … below `limit`.  Shape: (n,)"""

    sources = "none"

    def __init__(
        self,
        *,
        limit: float,
        start: float = 0,
        delta: float = 1,
        dtype: str | None = None,
        sparse: bool = False,
        out_spatial_dim: Dim | None = None,
    ) -> None:
        super().__init__()
        self.out_spatial_dim = out_spatial_dim
        whole = all(isinstance(n, int) for n in (limit, start, delta))
        self.dtype = dtype or ("int32" if whole else "float32")
        check_dtype(self, self.dtype)
        if delta == 0:
            raise self.error("`delta` must not be 0")
        if delta == 0 or (limit - start) * delta < 0 or not math.isfinite((limit - start) / delta):
            raise self.error(f"`delta` must lead from `start` {start} to `limit` {limit}, but is {delta} instead")
        self.values = torch.arange(start, limit, delta, dtype=DTYPES[self.dtype])
        self.sparse = sparse

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """One static axis."""
        dim = self.axis_dim(self.out_spatial_dim or self.options.out_dim, self.dim("range", len(self.values)))
        return Spec([dim], self.dtype, sparse_dim=dim if self.sparse else None, time=None)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The numbers."""
        sizes = MadeSizes(self)
        return sizes.tensor(self.values.to(sizes.device), self.made_spec())


@layer("range_in_axis")
class RangeInAxis(Layer):
    """The positions 0 … n - 1 of an axis of the source.  Shape: (B, T, F), "T" -> (T,), with the lengths of that axis

    `sparse`: the values are classes, namely positions of that axis. Other options of the reference have no effect.
    """

    sources = "many"

    def __init__(
        self,
        *,
        axis: AxisText,
        dtype: str = "int32",
        unbroadcast: bool = False,
        keepdims: bool = False,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.axis = axis
        self.dtype = dtype
        self.sparse = sparse
        check_dtype(self, dtype)

    def spec(self, x: Spec | None) -> Spec | None:
        """That axis alone."""
        if x is None:
            return None
        dim = x.dims[find_axis(x, self.axis)]
        return Spec([dim], self.dtype, sparse_dim=dim if self.sparse else None)

    def forward(self, x: Tensor) -> Tensor:
        """The positions."""
        size = x.data.shape[find_axis(x.spec, self.axis)]
        return x.with_data(torch.arange(size, dtype=DTYPES[self.dtype], device=x.device), self.spec(x.spec))


@layer("range_from_length")
class RangeFromLength(Layer):
    """The positions 0 … max - 1 of a new axis with the lengths that the source gives.  Shape: (B,) int -> (T,)

    The lengths of a `length` layer give its own axis back.
    """

    def __init__(self, *, dtype: str = "int32", sparse: bool = False, out_spatial_dim: Dim | None = None) -> None:
        super().__init__()
        self.dtype = dtype
        self.sparse = sparse
        self.out_spatial_dim = out_spatial_dim
        self.source: Node | None = None  # the node that the lengths come from
        check_dtype(self, dtype)

    def link(self, net: Linker, node: Node) -> None:
        """Remembers where the lengths come from."""
        self.source = node.sources[0]

    def _new_dim(self) -> Dim:
        """The axis that a `length` layer measures, else a new one."""
        given = self.out_spatial_dim or self.options.out_dim
        if given is not None:
            return given
        return measured_axis(self.source) or self.dim("range", None, SPATIAL)

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """One dynamic axis."""
        if sources[0] is None:
            return None
        dim = self._new_dim()
        return Spec([dim], self.dtype, sparse_dim=dim if self.sparse else None)

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """The positions up to the largest length."""
        spec = self.made_spec(x.spec)
        dim = spec.dims[0]
        if dim in x.lengths:
            largest = x.lengths[dim].max  # known without waiting for the device
        else:
            largest = int(x.data.max()) if x.data.numel() else 0
        lengths = Lengths(x.data, largest, x.spec.dims)
        data = torch.arange(lengths.max, dtype=DTYPES[self.dtype], device=x.device)
        return x.with_lengths({dim: lengths}).with_data(data, spec)


@layer("seq_len_mask")
class SeqLenMask(Layer):
    """`mask_value` after the sequence ends, or outside of a range.  Shape: (B, T, F) -> (B, T, F)

    Valid: position < `seq_len_source` (default: the length of the axis), >= `start`, and in
    [`window_start`, `window_start` + `window_size`).
    """

    def __init__(
        self,
        *,
        mask_value: float,
        axis: AxisText = "T",
        seq_len_source: LayerRef | None = None,
        start: LayerRef | None = None,
        window_start: LayerRef | int | None = None,
        window_size: LayerRef | NaturalInt | None = None,
    ) -> None:
        super().__init__()
        self.mask_value = mask_value
        self.axis = axis
        self.seq_len_source = seq_len_source
        self.start = start
        self.window_start = window_start
        self.window_size = window_size
        if window_start is not None and window_size is None:
            raise self.error("`window_start` needs `window_size`")

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """The masked source."""
        at = find_axis(x.spec, self.axis)
        positions = torch.arange(x.data.shape[at], device=x.device).reshape((-1, *(1,) * (x.spec.rank - 1 - at)))
        end = self._value("seq_len_source", x, refs)
        valid = mask(x, at) if end is None else None
        start, first, size = (self._value(o, x, refs) for o in ("start", "window_start", "window_size"))
        valid = range_mask(positions, valid, end=end, start=start, first=first, size=size)
        return x if valid is None else x.with_data(x.data.masked_fill(~valid, self.mask_value))

    def _value(self, option: str, x: Tensor, refs: dict[str, Tensor]) -> torch.Tensor | int | None:
        """A layer's numbers shaped to broadcast against the source, or the number that the option gives."""
        if option in refs:
            return place(refs[option], x.spec, self.behavior)
        value = getattr(self, option)
        return value if isinstance(value, int) else None
