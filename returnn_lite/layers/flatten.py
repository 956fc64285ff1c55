"""Batch and time in one axis: `flatten_batch`, `unflatten_batch`, `split_batch_time`; and `boolean_mask`.

The packed axis is a batch axis of its own, derived from the time axis it was made of; the lengths of that stay known,
so the packing can be undone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.registry import layer
from returnn_lite.tensor import AUTO, Dim, Lengths, Spec, Tensor, batch_dim
from returnn_lite.tensor.align import joined, place
from returnn_lite.tensor.axes import AxisText, describe
from returnn_lite.tensor.axes import axes as find_axes
from returnn_lite.tensor.axes import axis as find_axis
from returnn_lite.tensor.dim import BATCH, SPATIAL
from returnn_lite.tensor.masked import mask_all
from returnn_lite.tensor.spec import Role

_PACKED = "packed"


@layer("flatten_batch")
class FlattenBatch(Layer):
    """The valid frames of all sequences as one batch axis.  Shape: (B, T, F) -> (sum of lengths, F)

    Sequence by sequence, or (`batch_major` False) frame by frame. `unflatten_batch` undoes it.
    """

    recurrent = True

    def __init__(self, *, axis: AxisText = "T", batch_major: bool = True) -> None:
        super().__init__()
        self.axis = axis
        self.batch_major = batch_major

    def spec(self, x: Spec | None) -> Spec | None:
        """The packed batch axis, then the others."""
        if x is None:
            return None
        at = find_axis(x, self.axis)
        if x.batch is None:
            raise self.error(f"the source needs a batch axis, but is {describe(x)}")
        packed = Dim(None, "packed", kind=BATCH, derived=(_PACKED, (x.dims[at], int(self.batch_major))))
        left = x.without([at])
        order = left.order(left.batch or 0)
        left = left.permuted(order)
        return left.with_dims([packed if d.is_batch else d for d in left.dims])

    def forward(self, x: Tensor) -> Tensor:
        """The valid frames."""
        at, batch = find_axis(x.spec, self.axis), x.spec.batch or 0
        first = (batch, at) if self.batch_major else (at, batch)
        loops = [i for i, d in enumerate(x.spec.dims) if d in x.spec.loop]
        others = [i for i in range(x.spec.rank) if i not in (*first, *loops)]
        data = x.data.permute((*first, *loops, *others)).flatten(0, 1)
        rows = _rows(x, at, self.batch_major)
        data = data.index_select(0, rows).movedim(0, len(loops))
        sequence = rows // x.data.shape[at] if self.batch_major else rows % x.data.shape[batch]
        kept = {d for i, d in enumerate(x.spec.dims) if i not in (batch, at)}
        lengths = {d: n.gather(sequence) for d, n in x.lengths.items() if d in kept}
        out = x.with_lengths(lengths)
        return out.with_data(data, self.spec(x.spec))


def _rows(x: Tensor, at: int, batch_major: bool) -> torch.Tensor:
    """Which of the B * T (or T * B) frames are valid."""
    batch = x.spec.batch or 0
    valid = mask_all(x, [at])
    shape = [n if i in (batch, at) else 1 for i, n in enumerate(x.data.shape)]
    ones = torch.ones(shape, dtype=torch.bool, device=x.device)
    valid = ones if valid is None else valid & ones
    both = valid.permute((batch, at, *(i for i in range(x.spec.rank) if i not in (batch, at))))
    both = both.reshape((x.data.shape[batch], x.data.shape[at]))
    return (both if batch_major else both.t()).reshape(-1).nonzero().reshape(-1)


@layer("unflatten_batch")
class UnflattenBatch(Layer):
    """Undoes `flatten_batch`; 0 after the sequence ends.  Shape: (sum of lengths, F) -> (B, T, F)"""

    recurrent = True

    def _packed(self, x: Spec) -> tuple[Dim, bool]:
        """The time axis, and whether sequences stand one behind the other."""
        dim = None if x.batch is None else x.dims[x.batch]
        if dim is None or dim.op != _PACKED or not isinstance(dim.parts[0], Dim):
            raise self.error(f"the batch axis must come from `flatten_batch`, but the source is {describe(x)}")
        return dim.parts[0], bool(dim.parts[1])

    def spec(self, x: Spec | None) -> Spec | None:
        """Batch and time in place of the packed axis."""
        if x is None:
            return None
        dim, batch_major = self._packed(x)
        pair = (batch_dim, dim) if batch_major else (dim, batch_dim)
        at = x.batch or 0
        feature = None if x.feature is None else x.feature + (x.feature > at)
        dims = (*x.dims[:at], *pair, *x.dims[at + 1 :])
        return Spec(dims, x.dtype, sparse_dim=x.sparse_dim, time=dim, feature=feature, loop=x.loop)

    def forward(self, x: Tensor) -> Tensor:
        """The frames back at their places."""
        dim, batch_major = self._packed(x.spec)
        at = x.spec.batch or 0
        lengths = x.length(dim) if dim.dynamic else None
        frames = lengths.max if lengths is not None else dim.size or 0
        if lengths is not None:
            valid = lengths.mask(frames)
        else:
            valid = torch.ones((x.data.shape[at] // max(frames, 1), frames), dtype=torch.bool, device=x.device)
        rows = (valid if batch_major else valid.t()).reshape(-1).nonzero().reshape(-1)
        data = x.data.movedim(at, 0)
        zeros = data.new_zeros((valid.numel(), *data.shape[1:]))
        data = zeros.index_copy(0, rows, data)
        shape = tuple(valid.shape) if batch_major else tuple(reversed(valid.shape))
        data = data.reshape((*shape, *data.shape[1:])).movedim((0, 1), (at, at + 1))
        restored = {
            d: Lengths(_unpacked(n.values, rows, shape, batch_major), n.max, (batch_dim,))
            for d, n in x.lengths.items()
            if d in x.spec.dims and d != dim and n.dims == (batch_dim,)
        }
        return x.with_lengths(restored).with_data(data, self.spec(x.spec))


def _unpacked(values: torch.Tensor, rows: torch.Tensor, shape: tuple[int, ...], batch_major: bool) -> torch.Tensor:
    """Numbers per frame, equal within a sequence, as numbers per sequence (0 for sequences without a frame)."""
    zeros = values.new_zeros(shape[0] * shape[1])
    return zeros.index_copy(0, rows, values).reshape(shape).amax(1 if batch_major else 0)


@layer("split_batch_time")
class SplitBatchTime(Layer):
    """Undoes the merging of batch and time.  Shape: (B * T, F) -> (B, T, F), B and T those of the layer `base`"""

    recurrent = True

    def __init__(self, *, base: LayerRef) -> None:
        super().__init__()
        self.base = base

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """Batch and time of the base, then the other axes."""
        x, base = sources[0], refs["base"]
        if x is None or base is None:
            return None
        if base.batch is None or base.time is None or x.batch is None:
            raise self.error(f"the source needs a batch axis, `base` batch and time axes; they are {x} and {base}")
        x = x.permuted(x.order(x.batch))
        at = len(x.loop)
        dims = (*x.dims[:at], base.dims[base.batch], base.dims[base.time], *x.dims[at + 1 :])
        feature = None if x.feature is None else x.feature + 1
        return Spec(dims, x.dtype, sparse_dim=x.sparse_dim, time=at + 1, feature=feature, loop=x.loop)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The reshaped source."""
        x, base = sources[0].batch_front(), refs["base"]
        spec = self.made_spec(sources[0].spec, base=base.spec)
        at = len(x.spec.loop)
        sizes = base.data.shape[base.spec.batch or 0], base.data.shape[base.spec.time or 0]
        data = x.data.reshape((*x.data.shape[:at], *sizes, *x.data.shape[at + 1 :]))
        return joined(data, spec, [base, x])


@layer("boolean_mask")
class BooleanMask(Layer):
    """The entries where `mask` is True, as one new axis.  Shape: (B, T, F), mask (B, T), dims [B, T] -> (N, F)

    `dims`: the axes of the source that the mask covers. Frames after the sequence ends are left out.
    """

    recurrent = True

    def __init__(self, *, mask: LayerRef, dims: Sequence[AxisText]) -> None:
        super().__init__()
        self.mask = mask
        self.dims = list(dims)

    def _axes(self, x: Spec) -> tuple[int, ...]:
        return find_axes(x, self.dims, option="dims")

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """The packed axis, then the others."""
        if x is None:
            return None
        new = self.axis_dim(self.options.out_dim, self.dim("mask", None, SPATIAL))
        rest = [i for i in range(x.rank) if i not in self._axes(x)]
        dims = [new, *(x.dims[i] for i in rest)]
        time: Role = 1 + rest.index(x.time) if x.time in rest else 0
        feature: Role = 1 + rest.index(x.feature) if x.feature in rest else None if x.sparse else AUTO
        return Spec(dims, x.dtype, sparse_dim=x.sparse_dim, time=time, feature=feature, loop=x.loop)

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """The entries."""
        found, spec = self._axes(x.spec), self.made_spec(x.spec)
        layout = Spec([x.spec.dims[i] for i in found], "bool", time=None, feature=None)
        keep = place(refs["mask"], layout, self.behavior).expand([x.data.shape[i] for i in found])
        valid = mask_all(x, [i for i in found if x.spec.dims[i].dynamic])
        if valid is not None:
            covered = (*found, *(i for i in range(x.spec.rank) if i not in found))
            keep = keep & valid.permute(covered).reshape([valid.shape[i] for i in found])
        rest = [i for i in range(x.spec.rank) if i not in found]
        data = x.data.permute((*found, *rest))[keep]
        count = torch.full((), data.shape[0], dtype=torch.int32, device=x.device)
        return x.with_lengths({spec.dims[0]: Lengths(count, data.shape[0], ())}).with_data(data, spec)
