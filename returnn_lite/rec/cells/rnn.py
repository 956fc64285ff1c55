"""Units with a single state tensor: GRU and the plain recurrent net."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from returnn_lite.ops.linear import added_product
from returnn_lite.ops.lstm import rnn_tanh
from returnn_lite.ops.recurrent import gru_step
from returnn_lite.ops.tanh import tanh
from returnn_lite.rec.cells.activation import Activation, activation_function, is_bounded
from returnn_lite.rec.cells.base import Cell, ParamSpec, Run, State, Weights
from returnn_lite.rec.cells.lstm import split_rows


class Gru(Cell):
    """r, u = σ([x, h] W_g + b_g), n = tanh([x, r h] W_c + b_c), h' = u h + (1 - u) n.  State h (B, H).

    The reset gate is applied before the product, unlike in torch's GRU.
    """

    state_keys = ("var",)

    def __init__(self, n_out: int, *, activation: Activation = "tanh") -> None:
        super().__init__(n_out)
        self.activation = activation_function(activation)
        self.bounded = is_bounded(activation)

    def _params(self, n_in: int) -> list[ParamSpec]:
        size = self.n_out
        return [
            ParamSpec("gru_cell/gates/kernel", (n_in + size, 2 * size)),
            ParamSpec("gru_cell/gates/bias", (2 * size,), 1.0),
            ParamSpec("gru_cell/candidate/kernel", (n_in + size, size)),
            ParamSpec("gru_cell/candidate/bias", (size,), 0.0),
        ]

    def begin_sequence(
        self, p: Mapping[str, Tensor], training: bool, generator: torch.Generator | None, *, batch: int | None = None
    ) -> Weights:
        gates_x, gates_h = split_rows(p["gru_cell/gates/kernel"], self.n_out)
        new_x, new_h = split_rows(p["gru_cell/candidate/kernel"], self.n_out)
        arrays = {
            "w_x": torch.cat([gates_x, new_x], 1),  # (D, 3H)
            "bias": torch.cat([p["gru_cell/gates/bias"], p["gru_cell/candidate/bias"]]),
            "gates_h": gates_h,
            "new_h": new_h,
        }
        return Weights(arrays, training, generator)

    def step(self, p: Weights, projected: Tensor, state: State) -> tuple[Tensor, State]:
        h = gru_step(projected, state["var"], p["gates_h"], p["new_h"], activation=self.activation)
        return h, {"var": h}


class BasicRnn(Cell):
    """h' = tanh([x, h] K + b).  State h (B, H)."""

    state_keys = ("var",)

    def __init__(self, n_out: int, *, activation: Activation = "tanh") -> None:
        super().__init__(n_out)
        self.activation = activation_function(activation)
        self.bounded = is_bounded(activation)

    def _params(self, n_in: int) -> list[ParamSpec]:
        kernel = ParamSpec("basic_rnn_cell/kernel", (n_in + self.n_out, self.n_out))
        return [kernel, ParamSpec("basic_rnn_cell/bias", (self.n_out,), 0.0)]

    def begin_sequence(
        self, p: Mapping[str, Tensor], training: bool, generator: torch.Generator | None, *, batch: int | None = None
    ) -> Weights:
        w_x, w_h = split_rows(p["basic_rnn_cell/kernel"], self.n_out)
        return Weights({"w_x": w_x, "w_h": w_h, "bias": p["basic_rnn_cell/bias"]}, training, generator)

    def step(self, p: Weights, projected: Tensor, state: State) -> tuple[Tensor, State]:
        h = self.activation(added_product(projected, state["var"], p["w_h"]))
        return h, {"var": h}

    def run(self, p: Weights, x: Tensor, start: State, run: Run) -> tuple[Tensor, State]:
        if self.activation is not tanh:
            return super().run(p, x, start, run)
        out = rnn_tanh(x, p["w_x"], p["w_h"], p["bias"], start["var"])
        return out, {"var": run.frames.last(out, start["var"])} if run.need_state else {}
