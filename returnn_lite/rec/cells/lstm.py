"""LSTMs without normalisation: the native ones, the standard and the basic one.

Inside, all of them have their gates in the order a, i, f, o (cell input, input, forget, output gate), which is that of
the native ones; the others keep i, j, f, o in their parameters (j = cell input).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from returnn_lite.errors import ConfigError
from returnn_lite.ops.dropout import dropout_mask
from returnn_lite.ops.indexing import labels
from returnn_lite.ops.linear import added_product
from returnn_lite.ops.lstm import lstm, lstm_over_gates
from returnn_lite.ops.recurrent import lstm_step
from returnn_lite.rec.cells.activation import Activation, activation_function, is_bounded
from returnn_lite.rec.cells.base import Cell, ParamSpec, Run, State, Weights, check_rate


class LstmCell(Cell):
    """c' = σ(f) c + σ(i) tanh(a), h' = σ(o) tanh(c'), with a, i, f, o = x W_x + h W_h + bias.  State c, h (B, H)."""

    def begin_ticks(
        self, p: Mapping[str, Tensor], training: bool, generator: torch.Generator | None, batch: int
    ) -> Weights:
        weights = super().begin_ticks(p, training, generator, batch)
        if self.is_plain and "w_x" in weights:
            weights["w"] = torch.cat([weights["w_x"], weights["w_h"]])
        return weights

    @property
    def is_plain(self) -> bool:
        """Whether a tick is `lstm_step` and nothing more."""
        return True

    def tick(self, p: Weights, x: Tensor, state: State) -> tuple[Tensor, State]:
        if "w" not in p or not x.is_floating_point():
            return super().tick(p, x, state)
        return self.end_tick(added_product(p["bias"], torch.cat([x, state["h"]], 1), p["w"]), state)  # one product

    def end_tick(self, gates: Tensor, state: State) -> tuple[Tensor, State]:
        h, c = lstm_step(gates, state["c"])
        return h, {"c": c, "h": h}

    def step(self, p: Weights, projected: Tensor, state: State) -> tuple[Tensor, State]:
        h, c = lstm_step(added_product(projected, state["h"], p["w_h"]), state["c"])
        return h, {"c": c, "h": h}

    def run(self, p: Weights, x: Tensor, start: State, run: Run) -> tuple[Tensor, State]:
        padding = run.frames.padding if run.need_state else None
        if x.is_floating_point() and "w_x" in p:
            out, c = lstm(x, p["w_x"], p["w_h"], p["bias"], start["h"], start["c"], padding=padding)
        else:
            gates = self.project(p, x, sparse_grad=run.sparse_grad)
            out, c = lstm_over_gates(gates, p["w_h"], start["h"], start["c"], padding=padding)
        return out, {"c": c, "h": run.frames.last(out, start["h"])} if run.need_state else {}


class PackedLstm(LstmCell):
    """An LSTM with the parameters W (D, 4H), W_re (H, 4H), b (4H,)."""

    torch_lstm = True

    native = True
    sparse_input = True

    def _params(self, n_in: int) -> list[ParamSpec]:
        gates = 4 * self.n_out
        return [
            ParamSpec("W", (n_in, gates), "weights"),
            ParamSpec("W_re", (self.n_out, gates), "recurrent"),
            ParamSpec("b", (gates,), "bias"),
        ]

    def _bare_params(self, n_in: int) -> list[ParamSpec]:
        gates = 4 * self.n_out
        if n_in != gates:
            message = f"without it the input dim must be {gates} (4 * n_out), but is {n_in} instead"
            raise ConfigError("input_projection", message)
        return [ParamSpec("W_re", (self.n_out, gates), "recurrent")]

    def begin_sequence(
        self, p: Mapping[str, Tensor], training: bool, generator: torch.Generator | None, *, batch: int | None = None
    ) -> Weights:
        arrays = {"w_h": p["W_re"]}
        if "W" in p:
            arrays |= {"w_x": p["W"], "bias": p["b"]}
        return Weights(arrays, training, generator)

    def project(self, p: Weights, x: Tensor, *, sparse_grad: bool = False) -> Tensor:
        if "w_x" not in p:
            return x
        if x.is_floating_point():
            return super().project(p, x)
        return functional.embedding(labels(x), p["w_x"], sparse=sparse_grad) + p["bias"]


class NativeLstm2(PackedLstm):
    """The usual LSTM.  `rec_weight_dropout`: dropout on W_re, one mask per call; the mask has the shape
    `rec_weight_dropout_shape` (None in it = the whole axis)."""

    def __init__(
        self,
        n_out: int,
        *,
        forget_bias: float = 0.0,
        rec_weight_dropout: float = 0.0,
        rec_weight_dropout_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        super().__init__(n_out)
        _check_forget_bias(forget_bias)
        self.rec_weight_dropout = check_rate("rec_weight_dropout", rec_weight_dropout)
        self.rec_weight_dropout_shape = rec_weight_dropout_shape or (None, None)

    def begin_sequence(
        self, p: Mapping[str, Tensor], training: bool, generator: torch.Generator | None, *, batch: int | None = None
    ) -> Weights:
        weights = super().begin_sequence(p, training, generator, batch=batch)
        if training and self.rec_weight_dropout:
            w_h = weights["w_h"]
            shape = tuple(
                full if size is None else size
                for size, full in zip(self.rec_weight_dropout_shape, w_h.shape, strict=True)
            )
            weights["w_h"] = w_h * dropout_mask(w_h, shape, self.rec_weight_dropout, generator)
        return weights


class VanillaLstm(PackedLstm):
    """The same formula and parameters as a cell: dense input only, always with its projection."""

    native = False
    sparse_input = False
    _bare_params = Cell._bare_params

    def __init__(self, n_out: int) -> None:
        super().__init__(n_out)


class NativeLstm(PackedLstm):
    """The older native LSTM, whose only state seen from outside is c; h starts from 0."""

    state_keys = ("var",)
    accepts_initial_state = False

    def __init__(self, n_out: int, *, forget_bias: float = 0.0) -> None:
        super().__init__(n_out)
        _check_forget_bias(forget_bias)

    @property
    def is_plain(self) -> bool:
        return False

    def before_ticks(self, state: State) -> State:
        return {**state, "h": torch.zeros_like(state["var"])}

    def step(self, p: Weights, projected: Tensor, state: State) -> tuple[Tensor, State]:
        h, new = super().step(p, projected, {"c": state["var"], "h": state["h"]})
        return h, {"var": new["c"], "h": h}

    def run(self, p: Weights, x: Tensor, start: State, run: Run) -> tuple[Tensor, State]:
        cell = start["var"]
        out, final = super().run(p, x, {"c": cell, "h": torch.zeros_like(cell)}, run)
        return out, {"var": final["c"]} if run.need_state else {}


class NativeLstmLowMem(NativeLstm):
    """As `NativeLstm`, with one matrix W (D + H, 4H), rows for the input first; dense input only."""

    sparse_input = False
    accepts_initial_state = True
    _bare_params = Cell._bare_params

    def __init__(self, n_out: int) -> None:
        super().__init__(n_out)

    def _params(self, n_in: int) -> list[ParamSpec]:
        gates = 4 * self.n_out
        return [ParamSpec("W", (n_in + self.n_out, gates), "weights"), ParamSpec("b", (gates,), "bias")]

    def begin_sequence(
        self, p: Mapping[str, Tensor], training: bool, generator: torch.Generator | None, *, batch: int | None = None
    ) -> Weights:
        w_x, w_h = split_rows(p["W"], self.n_out)
        return Weights({"w_x": w_x, "w_h": w_h, "bias": p["b"]}, training, generator)


class StandardLstm(LstmCell):
    """The LSTM with one matrix lstm_cell/kernel (D + H, 4H).  Its forget bias is added at run time.

    `use_peepholes`: i and f see the old c, o the new one (weights w_*_diag (H,)); `cell_clip` limits |c|;
    `num_proj` (= n_out): h is projected by projection/kernel, `proj_clip` limits |h|.
    """

    scope = "lstm_cell"

    def __init__(
        self,
        n_out: int,
        *,
        forget_bias: float = 1.0,
        use_peepholes: bool = False,
        cell_clip: float | None = None,
        num_proj: int | None = None,
        proj_clip: float | None = None,
        activation: Activation = "tanh",
    ) -> None:
        super().__init__(n_out)
        if num_proj is not None and num_proj != n_out:
            raise ConfigError("num_proj", f"`num_proj` must be n_out ({n_out}), but is {num_proj} instead")
        self.forget_bias = forget_bias
        self.use_peepholes = use_peepholes
        self.cell_clip = cell_clip
        self.has_projection = num_proj is not None
        self.proj_clip = proj_clip if self.has_projection else None
        self.activation = activation_function(activation)
        self.bounded = is_bounded(activation)
        self._fusable = activation == "tanh" and not use_peepholes and cell_clip is None and self.proj_clip is None

    @property
    def is_plain(self) -> bool:
        return self._fusable and not self.has_projection

    def _params(self, n_in: int) -> list[ParamSpec]:
        size = self.n_out
        specs = [
            ParamSpec(f"{self.scope}/kernel", (n_in + size, 4 * size)),
            ParamSpec(f"{self.scope}/bias", (4 * size,), 0.0),
        ]
        if self.use_peepholes:
            specs += [ParamSpec(f"{self.scope}/w_{gate}_diag", (size,)) for gate in "fio"]
        if self.has_projection:
            specs.append(ParamSpec(f"{self.scope}/projection/kernel", (size, size)))
        return specs

    def begin_sequence(
        self, p: Mapping[str, Tensor], training: bool, generator: torch.Generator | None, *, batch: int | None = None
    ) -> Weights:
        size, scope = self.n_out, self.scope
        w_x, w_h = split_rows(cell_input_first(p[f"{scope}/kernel"]), size)
        bias = cell_input_first(p[f"{scope}/bias"])
        shift = torch.zeros_like(bias)
        shift[2 * size : 3 * size] = self.forget_bias
        arrays = {"w_x": w_x, "w_h": w_h, "bias": bias + shift}
        if self.use_peepholes:
            arrays["peep_if"] = torch.cat([p[f"{scope}/w_i_diag"], p[f"{scope}/w_f_diag"]])
            arrays["peep_o"] = p[f"{scope}/w_o_diag"]
        if self.has_projection:
            arrays["projection"] = p[f"{scope}/projection/kernel"]
        return Weights(arrays, training, generator)

    def step(self, p: Weights, projected: Tensor, state: State) -> tuple[Tensor, State]:
        if self.is_plain:
            return super().step(p, projected, state)
        gates = added_product(projected, state["h"], p["w_h"])
        peepholes = (p["peep_if"], p["peep_o"]) if self.use_peepholes else None
        h, c = lstm_step(gates, state["c"], activation=self.activation, peepholes=peepholes, cell_clip=self.cell_clip)
        if self.has_projection:
            h = h @ p["projection"]
            if self.proj_clip is not None:
                h = h.clamp(-self.proj_clip, self.proj_clip)
        return h, {"c": c, "h": h}

    def run(self, p: Weights, x: Tensor, start: State, run: Run) -> tuple[Tensor, State]:
        if not self._fusable:
            return Cell.run(self, p, x, start, run)
        if not self.has_projection:
            return super().run(p, x, start, run)
        if not run.zero_start:
            return Cell.run(self, p, x, start, run)
        # h = u P, so the gates get u (P W_h): an LSTM in u, projected at the end for all frames at once
        projection = p["projection"]
        out, final = super().run(Weights({**p, "w_h": projection @ p["w_h"]}, p.training, p.generator), x, start, run)
        return out @ projection, {"c": final["c"], "h": final["h"] @ projection} if run.need_state else {}


class BasicLstm(StandardLstm):
    """`StandardLstm` with no other option than the forget bias."""

    scope = "basic_lstm_cell"

    def __init__(self, n_out: int, *, forget_bias: float = 1.0) -> None:
        super().__init__(n_out, forget_bias=forget_bias)


def split_rows(kernel: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(D + H, G) -> (D, G) for the input, (H, G) for the state; H = `size`."""
    n_in = kernel.shape[0] - size
    return kernel[:n_in], kernel[n_in:]


def cell_input_first(array: Tensor) -> Tensor:
    """(…, 4H) with blocks i, j, f, o -> j, i, f, o."""
    i, j, f_o = array.tensor_split((array.shape[-1] // 4, array.shape[-1] // 2), -1)
    return torch.cat([j, i, f_o], -1)


def _check_forget_bias(value: float) -> None:
    if value != 0:
        message = f'`forget_bias` must be 0 with a native unit, but is {value} instead; "standardlstm" has one'
        raise ConfigError("forget_bias", message)
