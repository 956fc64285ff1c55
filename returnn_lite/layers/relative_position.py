"""`relative_positional_encoding`: a row of a matrix for the distance of key and query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from returnn_lite.config.option_types import NaturalInt, PositiveInt
from returnn_lite.layers.core.base import LayerRef
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.stateful import LoopConstants, State, Stateful, Tick
from returnn_lite.ops.positions import relative_energies, relative_rows, sinusoids
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
        self._rows: torch.Tensor | None = None
        super().__init__(None, spec, lengths)  # type: ignore[arg-type]

    @property
    def data(self) -> torch.Tensor:
        """The rows; with a loop axis in front each of its frames has one query, (T, 1, keys, F)."""
        rows = self._rows
        if rows is None:
            rows = relative_rows(self.matrix, self.queries, self.keys)
            rows = self._rows = rows if self.spec.rank == 3 else rows.unsqueeze(1)
        return rows

    @data.setter
    def data(self, rows: torch.Tensor | None) -> None:
        self._rows = rows

    def copy(self) -> Tensor:
        """A copy that still has not looked anything up."""
        return RelativeRows(self.matrix, self.queries, self.keys, self.spec, self.lengths)

    def energies(self, queries: torch.Tensor) -> torch.Tensor:
        """Inner products of vectors (…, Q, F) with the rows.  -> (…, Q, keys)"""
        return relative_energies(queries, self.matrix, self.queries, self.keys)


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
        n_out: PositiveInt | None = None,
        forward_weights_init: Any = "glorot_uniform",
        clipping: NaturalInt = 16,
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
        if spec is None or (x.spec.time is None and self.query_dim is None):
            raise self.error(f"the source needs a time axis outside of loops, but is {x.spec}")
        queries, keys = (d.size if d.size is not None else x.length(d).max for d in spec.dims[:2])
        positions = torch.arange(queries, device=x.device)
        offset = refs["query_offset"].data if "query_offset" in refs else int(self.query_offset or 0)
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

    def step(self, constants: LoopConstants, sources: list[Tensor], state: State, tick: Tick) -> tuple[Tensor, State]:
        """One query, the keys up to it."""
        x, keys = sources[0], tick.number + 1
        spec = self.spec(x.spec) or x.spec
        position = torch.full((1,), tick.number, device=x.device)
        seen = Lengths((position[0] + 1).to(torch.int32), keys, ())
        return RelativeRows(self.encoding_matrix, position, keys, spec, {**x.lengths, spec.dims[1]: seen}), state
