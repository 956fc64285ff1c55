"""Edit distance of label sequences."""

from __future__ import annotations

import returnn_lite.ops.edit_distance as ops_edit_distance
from returnn_lite.frontend import dtypes
from returnn_lite.frontend.dim import Dim, Dims
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged, as_rows, axis_of, joined
from returnn_lite.frontend.sizes import sizes_over
from returnn_lite.frontend.tensor import Tensor


def edit_distance(a: Tensor, a_spatial_dim: Dim, b: Tensor, b_spatial_dim: Dim, *, dtype: str = "int32") -> Tensor:
    """The least number of insertions, deletions and substitutions that make one sequence of the other."""
    others = joined(_others(a, a_spatial_dim), _others(b, b_spatial_dim))
    shape = [dim.padded_size() for dim in others]
    rows = [
        as_rows(arranged(x.raw_tensor, x.dims, (*others, dim)).expand(*shape, -1), len(others))
        for x, dim in ((a, a_spatial_dim), (b, b_spatial_dim))
    ]
    lengths = [sizes_over(dim, others, a.raw_tensor.device).reshape(-1) for dim in (a_spatial_dim, b_spatial_dim)]
    found = ops_edit_distance.edit_distance(rows[0], lengths[0], rows[1], lengths[1])
    return a._new(found.to(dtypes.torch_dtype(dtype)).reshape(shape), others, name="edit_distance")


def _others(x: Tensor, dim: Dim) -> Dims:
    at = axis_of(x.dims, dim, x)
    if dim.is_static():
        raise WrongUse(f"edit_distance of {x}: axis {dim} must have sizes")
    return x.dims[:at] + x.dims[at + 1 :]
