"""Recurrent highway network (Zilly et al. 2016, https://arxiv.org/abs/1607.03474)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from returnn_lite.ops.recurrent import rhn_step
from returnn_lite.rec.cells.base import Cell, ParamSpec, State, Weights, check_rate, sequence_mask


class Rhn(Cell):
    """`depth` highway layers a tick: s += σ(t) (tanh(h) - s), with h, t = s W_i, plus x W + b at the first.

    `dropout` is on the s that enters the products, with one mask per sequence for all ticks and depths.
    `transform_bias` is the initial value of the half of b that belongs to t.  The output is the state s (B, H).
    `dropout_seed`, `batch_size` and `is_training` are accepted and not needed.
    """

    state_keys = ("var",)

    def __init__(
        self,
        n_out: int,
        *,
        depth: int = 5,
        dropout: float = 0.0,
        transform_bias: float | None = None,
        dropout_seed: int | None = None,
        batch_size: Any = None,
        is_training: Any = None,
    ) -> None:
        super().__init__(n_out)
        self.depth = depth
        self.dropout = check_rate("dropout", dropout)
        self.transform_bias = transform_bias
        self._names = [f"rhn_cell/depth_{i}/W" for i in range(depth)]

    def _params(self, n_in: int) -> list[ParamSpec]:
        size = self.n_out
        bias = "bias" if self.transform_bias is None else (0.0, self.transform_bias)
        highway = [ParamSpec(name, (size, 2 * size)) for name in self._names]
        return [ParamSpec("W", (n_in, 2 * size)), ParamSpec("b", (2 * size,), bias), *highway]

    def begin_sequence(
        self, p: Mapping[str, Tensor], training: bool, generator: torch.Generator | None, *, batch: int | None = None
    ) -> Weights:
        arrays = {"w_x": p["W"], "bias": p["b"], **{name: p[name] for name in self._names}}
        if training and self.dropout:
            arrays["mask"] = sequence_mask(p["W"], batch, self.n_out, self.dropout, generator)
        return Weights(arrays, training, generator)

    def step(self, p: Weights, projected: Tensor, state: State) -> tuple[Tensor, State]:
        s = rhn_step(projected, state["var"], [p[name] for name in self._names], p.get("mask"))
        return s, {"var": s}
