"""Positions as vectors: sinusoids, relative positions, learned ones."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

import returnn_lite.ops.positions as ops_positions
from returnn_lite.frontend import dtypes
from returnn_lite.frontend.dim import Dim, Dims, single_step_dim
from returnn_lite.frontend.dim_sizes import as_torch
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.parameter import Parameter
from returnn_lite.frontend.tensor import Tensor


def sinusoidal_positional_encoding(
    *,
    spatial_dim: Dim,
    feat_dim: Dim,
    offset: int | Tensor | None = None,
    base: float = 1e4,
    dtype: str | None = None,
    device: str | None = None,
) -> Tensor:
    """Sines, then cosines of the positions of an axis, with the rates base^(-m / (D/2 - 1)). [axis, D]

    offset: is added to the positions; its axes are added. For `single_step_dim` it is the position. (Vaswani et al.,
    2017)
    """
    where = dtypes.get_default_device() if device is None else device
    if spatial_dim == single_step_dim:
        if offset is None:
            raise WrongUse("sinusoidal_positional_encoding of a single step needs an `offset`")
        dims: Dims = ()
        positions = torch.zeros((), dtype=torch.int32, device=where)
    else:
        if offset is None or (isinstance(offset, int) and offset == 0):
            return _kept(spatial_dim, feat_dim, base, dtype, where)
        dims = (spatial_dim,)
        positions = torch.arange(spatial_dim.padded_size(), dtype=torch.int32, device=where)
    if isinstance(offset, Tensor):
        more = tuple(dim for dim in offset.dims if dim not in dims)
        added = arranged(offset.raw_tensor, offset.dims, (*dims, *more)).to(positions.device)
        positions, dims = arranged(positions, dims, (*dims, *more)) + added, (*dims, *more)
    elif offset:
        positions = positions + offset
    return _encoded(positions, dims, feat_dim, base, dtype)


def sinusoidal_encoding(indices: Tensor, *, feat_dim: Dim, base: float = 1e4, dtype: str | None = None) -> Tensor:
    """The same of given positions, which may be fractions. [*axes of the indices, D]"""
    return _encoded(indices.raw_tensor, indices.dims, feat_dim, base, dtype)


def rotary_encoding(positions: Dim | Tensor, *, feat_dim: Dim, device: str | None = None) -> Tensor:
    """Sines, then cosines of all positions of an axis, or of given ones, with the rates 10000^(-2m / D)."""
    if isinstance(positions, Dim):
        return _kept(positions, feat_dim, 1e4, None, device, last_included=False)
    return _encoded(positions.raw_tensor, positions.dims, feat_dim, 1e4, None, last_included=False)


def _kept(dim: Dim, feat_dim: Dim, base: float, dtype: str | None, where: Any, *, last_included: bool = True) -> Tensor:
    """The encoding of a whole axis, made once per batch."""
    name = dtype or dtypes.get_default_float_dtype()

    def compute() -> torch.Tensor:
        positions = torch.arange(dim.padded_size(), dtype=torch.int32, device=where)
        return _sinusoids(positions, feat_dim, base, name, last_included)

    key = ("sinusoids", dim.padded_size(), feat_dim.padded_size(), base, name, str(where), last_included)
    return Tensor._new(dim.extent().memo(key, compute), (dim, feat_dim), feature_axis=1, name="sinusoids")


def _encoded(
    positions: torch.Tensor, dims: Dims, feat_dim: Dim, base: float, dtype: str | None, *, last_included: bool = True
) -> Tensor:
    raw = _sinusoids(positions, feat_dim, base, dtype or dtypes.get_default_float_dtype(), last_included)
    return Tensor._new(raw, (*dims, feat_dim), feature_axis=len(dims), name="sinusoids")


def _sinusoids(positions: torch.Tensor, feat_dim: Dim, base: float, dtype: str, last_included: bool) -> torch.Tensor:
    size = feat_dim.padded_size()
    if size % 2:
        raise WrongUse(f"positions as sinusoids: axis {feat_dim} must have an even size")
    found = ops_positions.sinusoids(positions, size, base, last_included=last_included)
    return found.to(dtypes.torch_dtype(dtype))


def relative_positional_encoding(
    *,
    query_spatial_dim: Dim,
    key_value_spatial_dim: Dim,
    feat_dim: Dim,
    query_offset: int | Tensor = 0,
    dtype: str | None = None,
    device: str | None = None,
) -> tuple[Tensor, Dim]:
    """Sinusoids of the distances key - query: ([R, D], R), with the rates 10000^(-2m / D).

    The rows are the distances -(Tq - 1) … Tk - 1, by padded sizes, minus `query_offset`. Of `single_step_dim`, the
    query is the last key: the distances -(Tk - 1) … 0, and R is the axis of the keys. (Dai et al., 2019)
    """
    where = dtypes.get_default_device() if device is None else device
    name = dtype or dtypes.get_default_float_dtype()
    size = feat_dim.padded_size()
    dim, first, count = _distances(query_spatial_dim, key_value_spatial_dim)

    def compute() -> tuple[torch.Tensor, Dim]:
        rows = torch.arange(first, first + count, device=where)
        raw = ops_positions.sinusoids(rows, size, last_included=False).to(dtypes.torch_dtype(name))
        return raw, Dim(count, name="relative-positions") if dim is None else dim

    if isinstance(query_offset, Tensor) or query_offset != 0:
        first = first - (int(query_offset.raw_tensor) if isinstance(query_offset, Tensor) else query_offset)
        raw, out = compute()
    else:
        key = ("relative positions", first, count, size, name, str(where), dim is None)
        raw, out = key_value_spatial_dim.extent().memo(key, compute)
    return Tensor._new(raw, (out, feat_dim), feature_axis=1, name="relative-positions"), out


def _distances(query: Dim, keys: Dim) -> tuple[Dim | None, int, int]:
    """(axis of the rows if it is that of the keys, first distance, number of rows)."""
    count = keys.padded_size()
    if query == single_step_dim:
        return keys, 1 - count, count
    before = query.padded_size() - 1
    return None, -before, max(before + count, 0)


class LearnedRelativePositionalEncoding(Module):
    """A learned vector for each distance key - query, clipped to ±`clipping` (at most 0 if `causal`).

    Parameter: `pos_emb` [2 clipping + 1, D], or [clipping + 1, D] if causal; 0 at first. (Shaw et al., 2018)
    """

    def __init__(self, feat_dim: Dim, *, clipping: int = 16, dtype: str | None = None, causal: bool = False) -> None:
        self.feat_dim, self.clipping, self.causal = feat_dim, clipping, causal
        self.clipped_spatial_dim = Dim((1 if causal else 2) * clipping + 1, name="clipped-positions")
        self.pos_emb = Parameter((self.clipped_spatial_dim, feat_dim), dtype)

    def __call__(
        self, *, query_spatial_dim: Dim, key_value_spatial_dim: Dim, query_offset: int | Tensor = 0
    ) -> tuple[Tensor, Dim]:
        """([R, D], R); rows as of `relative_positional_encoding`."""
        dim, first, count = _distances(query_spatial_dim, key_value_spatial_dim)
        if isinstance(query_offset, Tensor):
            query_offset = int(query_offset.raw_tensor)
        table = self.pos_emb.raw_tensor
        rows = torch.arange(first - query_offset, first - query_offset + count, device=table.device)
        out = Dim(count, name="relative-positions") if dim is None else dim
        return Tensor._new(functional.embedding(self._row(rows), table), (out, self.feat_dim)), out

    def full_matrix(
        self, *, query_spatial_dim: Dim, key_value_spatial_dim: Dim, query_offset: int | Tensor = 0
    ) -> Tensor:
        """The vector of each query and key. [key, query, D]; the queries begin at the position `query_offset`."""
        table = self.pos_emb.raw_tensor
        queries = torch.arange(query_spatial_dim.padded_size(), device=table.device)
        dims: Dims = (query_spatial_dim,)
        if isinstance(query_offset, Tensor):
            dims = (*query_offset.dims, query_spatial_dim)
            queries = queries + as_torch(query_offset).to(table.device).unsqueeze(-1)
        else:
            queries = queries + query_offset
        keys = torch.arange(key_value_spatial_dim.padded_size(), device=table.device)
        shape = (-1, *[1] * queries.dim())
        raw = functional.embedding(self._row(keys.reshape(shape) - queries), table)
        return Tensor._new(raw, (key_value_spatial_dim, *dims, self.feat_dim))

    def _row(self, distances: torch.Tensor) -> torch.Tensor:
        return distances.clamp(-self.clipping, 0 if self.causal else self.clipping) + self.clipping
