"""`relative_positional_encoding`: a row of a matrix for the distance of key and query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from returnn_lite.layers.core.base import LayerRef
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.stateful import State, Stateful, Tick
from returnn_lite.layers.position import sinusoids
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor


class RelativeRows(Tensor):
    """Rows of `matrix` (2 clipping + 1, F) by the distance of `keys` keys to the positions `queries` (Q,).

    Shape: (Q, keys, F); looked up only when the data is read, since attention does better with `energies`.
    """

    __slots__ = ("_rows", "keys", "matrix", "queries")

    def __init__(
        self, matrix: torch.Tensor, queries: torch.Tensor, keys: int, spec: Spec, lengths: Mapping[Dim, Lengths]
    ) -> None:
        self.matrix = matrix
        self.queries = queries
        self.keys = keys
        super().__init__(None, spec, lengths)  # type: ignore[arg-type]

    @property
    def data(self) -> torch.Tensor:  # type: ignore[override]
        """The rows; with a loop axis in front each of its frames has one query, (T, 1, keys, F)."""
        if self._rows is None:
            rows = F.embedding(_index(self.queries, self.keys, self.matrix.shape[0]), self.matrix)
            self._rows = rows if self.spec.rank == 3 else rows.unsqueeze(1)
        return self._rows

    @data.setter
    def data(self, rows: torch.Tensor | None) -> None:
        self._rows = rows

    def copy(self) -> Tensor:
        """A copy that still has not looked anything up."""
        return RelativeRows(self.matrix, self.queries, self.keys, self.spec, self.lengths)

    def energies(self, queries: torch.Tensor) -> torch.Tensor:
        """Inner products of vectors (…, Q, F) with the rows.  -> (…, Q, keys)

        First with all rows of the matrix, then picked: no (Q, keys, F) array is needed.
        """
        energies: torch.Tensor = _Picked.apply(queries @ self.matrix.t(), self.queries, self.keys)
        return energies


def _index(queries: torch.Tensor, keys: int, rows: int) -> torch.Tensor:
    """The row for each query and key.  Shape: (Q,) -> (Q, keys)"""
    distance = torch.arange(keys, device=queries.device) - queries.unsqueeze(-1)
    return distance.clamp(-(rows // 2), rows // 2) + rows // 2


class _Picked(torch.autograd.Function):
    """(…, Q, rows) -> (…, Q, keys) by `_index`. The gradient of a row is that of one key, of the outer rows a sum."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, queries: torch.Tensor, keys: int) -> torch.Tensor:
        """The entries."""
        ctx.save_for_backward(queries)
        ctx.rows = x.shape[-1]
        return x.gather(-1, _index(queries, keys, x.shape[-1]).expand(*x.shape[:-1], keys))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Without scattering: many keys share the outer rows."""
        (grad,), (queries,), rows = grads, ctx.saved_tensors, ctx.rows
        if rows == 1:
            return grad.sum(-1, keepdim=True), None, None
        clip, last = rows // 2, grad.shape[-1] - 1
        keys = queries.unsqueeze(1) + torch.arange(-clip, clip + 1, device=grad.device)  # (Q, rows)
        picked = grad.gather(-1, keys.clamp(0, last).expand(*grad.shape[:-1], rows))
        result = picked.masked_fill_((keys < 0) | (keys > last), 0.0)
        sums = F.pad(grad.cumsum(-1), (1, 0))  # of the first 0, 1, … keys
        count = (queries.unsqueeze(1) + torch.tensor([1 - clip, clip], device=grad.device)).clamp(0, last + 1)
        before = sums.gather(-1, count.expand(*grad.shape[:-1], 2))
        result[..., 0] = before[..., 0]
        result[..., -1] = sums[..., -1] - before[..., 1]
        return result, None, None


@layer("relative_positional_encoding")
class RelativePositionalEncoding(Stateful):
    """A row of a matrix for the distance of key and query.

    Shape: (B, T, F) -> (T, T, n_out); in a loop (B, F) -> (1, t + 1, n_out). Row clip(k - q, -clipping, clipping) +
    clipping. For `key_shift` of self_attention (Shaw et al. 2018, https://arxiv.org/abs/1803.02155). Parameter:
    `encoding_matrix` (2 clipping + 1, n_out); `fixed`: sinusoids instead.
    """

    recurrent = True

    def __init__(
        self,
        *,
        n_out: int | None = None,
        forward_weights_init: Any = "glorot_uniform",
        clipping: int = 16,
        fixed: bool = False,
        query_spatial_dim: Dim | None = None,
        key_value_spatial_dim: Dim | None = None,
        query_offset: LayerRef | int | None = None,
    ) -> None:
        super().__init__()
        self.n_out = n_out
        self.weights_init = forward_weights_init
        self.clipping = clipping
        self.fixed = fixed
        self.query_dim = query_spatial_dim
        self.key_dim = key_value_spatial_dim
        self.query_offset = query_offset

    def carries_state(self, sources: tuple[Spec | None, ...]) -> bool:
        """Whether the one query is the tick of a loop."""
        return self.query_dim is None and super().carries_state(sources)

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """Queries, keys, features; no batch."""
        if x is None:
            return None
        feature = self.feature_dim(self.n_out, x)
        if self.query_dim is not None:
            return self._of((self.query_dim, self.key_dim or self.query_dim, feature))
        time = x.time_dim
        if time is None:
            return self._of((self.dim("query", 1, "spatial"), self.dim("keys", None, "spatial"), feature))
        return self._of((time, self.key_dim or time, feature))

    @staticmethod
    def _of(dims: tuple[Dim, ...]) -> Spec:
        return Spec(dims, time=0 if dims[0].dynamic else None, feature=len(dims) - 1)

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """`encoding_matrix`."""
        size = self.n_out or self.feature_dim(None).size or 0
        rows = 2 * self.clipping + 1
        if self.fixed:
            self.register_buffer("encoding_matrix", sinusoids(torch.arange(rows), size), persistent=False)
        else:
            self.encoding_matrix = self.param("encoding_matrix", (rows, size), self.weights_init)

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """All queries and all keys."""
        spec = self.spec(x.spec)
        if spec is None or not spec.dims[0].dynamic and self.query_dim is None:
            raise self.error(f"the source needs a time axis outside of loops, but is {x.spec}")
        queries, keys = (d.size if d.size is not None else x.length(d).max for d in spec.dims[:2])
        positions = torch.arange(queries, device=x.device)
        offset = refs["query_offset"].data if "query_offset" in refs else self.query_offset or 0
        lengths = {d: x.length(d) for d in spec.dynamic_dims}
        return RelativeRows(self.encoding_matrix, positions + offset, keys, spec, {**x.lengths, **lengths})

    def over(self, dim: Dim, sources: list[Tensor], refs: dict[str, Tensor]) -> Tensor:
        """All ticks of a loop; each has one query.  Shape: (T, 1, T, n_out)"""
        x = sources[0]
        positions = torch.arange(x.size(dim), device=x.device)
        spec = self.spec(x.spec.in_loop(dim)) or x.spec
        seen = Lengths((positions + 1).to(torch.int32), x.size(dim), (dim,))
        lengths = {**x.lengths, spec.dims[1]: seen}
        return RelativeRows(self.encoding_matrix, positions, x.size(dim), spec.with_loop(dim), lengths)

    def step(self, constants: Any, sources: list[Tensor], state: State, tick: Tick) -> tuple[Tensor, State]:
        """One query, the keys up to it."""
        x, keys = sources[0], tick.number + 1
        spec = self.spec(x.spec) or x.spec
        position = torch.tensor([tick.number], device=x.device)
        seen = Lengths((position[0] + 1).to(torch.int32), keys, ())
        return RelativeRows(self.encoding_matrix, position, keys, spec, {**x.lengths, spec.dims[1]: seen}), state
