"""LSTM with layer normalisation (Ba et al. 2016, https://arxiv.org/abs/1607.06450) at selectable places."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from returnn_lite.errors import ConfigError
from returnn_lite.ops.dropout import dropout_mask
from returnn_lite.ops.linear import added_product
from returnn_lite.ops.recurrent import normed_lstm_step
from returnn_lite.rec.cells.activation import Activation, activation_function, is_bounded
from returnn_lite.rec.cells.base import (
    Cell,
    ParamSpec,
    State,
    Weights,
    check_rate,
    project,
    sequence_mask,
)
from returnn_lite.rec.cells.lstm import cell_input_first, split_rows

_GATES = "ijfo"  # their order in the parameters; inside, j comes first


class LayerNormVariantsLstm(Cell):
    """LSTM whose sums, gates, cell or output are normalised: LN(x) = (x - mean) / sqrt(var + ε) γ + β.

    `global_norm`: input and recurrent products (4H) apart (the latter without β); `global_norm_joined`: their sum;
    `per_gate_norm`: each gate (H); `cell_norm`: the new c, which is also the state (`cell_norm_in_output`: and enters
    the output); `hidden_norm`: the output.  `norm_gain`, `norm_shift`, `forget_bias` are initial values only.
    `with_concat`: one matrix for input and state.  `dropout` is on the cell input, `dropout_h` on the h that enters
    the product, with one mask per sequence.  `dropout_seed` is accepted and not needed.
    """

    def __init__(
        self,
        n_out: int,
        *,
        norm_gain: float = 1.0,
        norm_shift: float = 0.0,
        forget_bias: float = 0.0,
        activation: Activation = "tanh",
        dropout: float = 0.0,
        dropout_h: float = 0.0,
        dropout_seed: int | None = None,
        with_concat: bool = False,
        global_norm: bool = True,
        global_norm_joined: bool = False,
        per_gate_norm: bool = False,
        cell_norm: bool = True,
        cell_norm_in_output: bool = True,
        hidden_norm: bool = False,
        variance_epsilon: float = 1e-12,
    ) -> None:
        super().__init__(n_out)
        _exclusive(global_norm=global_norm, global_norm_joined=global_norm_joined)
        _exclusive(per_gate_norm=per_gate_norm, global_norm=global_norm)
        _exclusive(per_gate_norm=per_gate_norm, global_norm_joined=global_norm_joined)
        _exclusive(with_concat=with_concat, global_norm=global_norm)
        self.norm_gain = norm_gain
        self.norm_shift = norm_shift
        self.forget_bias = forget_bias
        self.activation = activation_function(activation)
        self.bounded = is_bounded(activation)
        self.dropout = check_rate("dropout", dropout)
        self.dropout_h = check_rate("dropout_h", dropout_h)
        self.with_concat = with_concat
        self.global_norm = global_norm
        self.global_norm_joined = global_norm_joined
        self.per_gate_norm = per_gate_norm
        self.cell_norm = cell_norm
        self.cell_norm_in_output = cell_norm_in_output
        self.hidden_norm = hidden_norm
        self.epsilon = variance_epsilon
        self._has_bias = not (global_norm or global_norm_joined or per_gate_norm)

    def _params(self, n_in: int) -> list[ParamSpec]:
        size, gates, suffix = self.n_out, 4 * self.n_out, "ff_re" if self.with_concat else "ff"
        if self.with_concat:
            specs = [ParamSpec("W_ff_re", (n_in + size, gates))]
        else:
            specs = [ParamSpec("W_ff", (n_in, gates)), ParamSpec("W_re", (size, gates))]
        if self._has_bias:
            specs.append(ParamSpec(f"bias_{suffix}", (gates,), (0.0, 0.0, self.forget_bias, 0.0)))
        # With a norm over all gates, the reference starts the whole shift with the forget bias.
        shift = self.norm_shift + self.forget_bias
        if self.global_norm:
            specs += self._norm("input_below", gates, shift)
            specs.append(ParamSpec("gamma_state_below", (gates,), self.norm_gain))
        if self.global_norm_joined:
            specs += self._norm("lstm_in", gates, shift)
        if self.per_gate_norm:
            for gate in _GATES:
                specs += self._norm(f"{gate}_gate", size, shift if gate == "f" else self.norm_shift)
        if self.cell_norm:
            specs += self._norm("new_c", size, self.norm_shift)
        if self.hidden_norm:
            specs += self._norm("new_h", size, self.norm_shift)
        return specs

    def _norm(self, name: str, size: int, shift: float) -> list[ParamSpec]:
        return [ParamSpec(f"gamma_{name}", (size,), self.norm_gain), ParamSpec(f"beta_{name}", (size,), shift)]

    def begin_sequence(
        self, p: Mapping[str, Tensor], training: bool, generator: torch.Generator | None, *, batch: int | None = None
    ) -> Weights:
        if self.with_concat:
            w_x, w_h = split_rows(cell_input_first(p["W_ff_re"]), self.n_out)
        else:
            w_x, w_h = cell_input_first(p["W_ff"]), cell_input_first(p["W_re"])
        arrays = {"w_x": w_x, "w_h": w_h}
        if self._has_bias:
            arrays["bias"] = cell_input_first(p["bias_ff_re" if self.with_concat else "bias_ff"])
        else:
            arrays["bias"] = torch.zeros_like(w_x[0])
        for name in ("gamma_input_below", "beta_input_below", "gamma_state_below", "gamma_lstm_in", "beta_lstm_in"):
            if name in p:
                arrays[name] = cell_input_first(p[name])
        if self.per_gate_norm:
            for kind in ("gamma", "beta"):
                arrays[f"{kind}_gates"] = torch.stack([p[f"{kind}_{gate}_gate"] for gate in "jifo"])  # (4, H)
        arrays |= {name: p[name] for name in ("gamma_new_c", "beta_new_c", "gamma_new_h", "beta_new_h") if name in p}
        if training and self.dropout_h:
            arrays["mask_h"] = sequence_mask(w_h, batch, self.n_out, self.dropout_h, generator)
        return Weights(arrays, training, generator)

    def project(self, p: Weights, x: Tensor, *, sparse_grad: bool = False) -> Tensor:
        sums = project(x, p["w_x"], p["bias"])
        if self.global_norm:
            sums = self._layer_norm(sums, p["gamma_input_below"], p["beta_input_below"])
        return sums

    def step(self, p: Weights, projected: Tensor, state: State) -> tuple[Tensor, State]:
        h, c = normed_lstm_step(
            self._gates(p, projected, state["h"]),
            state["c"],
            activation=self.activation,
            dropout=self._dropped(p) if p.training and self.dropout else None,
            cell_norm=self._normed(p, "new_c") if self.cell_norm else None,
            norm_in_output=self.cell_norm_in_output,
            hidden_norm=self._normed(p, "new_h") if self.hidden_norm else None,
        )
        return h, {"c": c, "h": h}

    def _dropped(self, p: Weights) -> Callable[[Tensor], Tensor]:
        """Dropout of the cell input."""
        return lambda a: a * dropout_mask(a, tuple(a.shape), self.dropout, p.generator)

    def _normed(self, p: Weights, name: str) -> Callable[[Tensor], Tensor]:
        """The layer normalisation with the parameters of this name."""
        gamma, beta = p[f"gamma_{name}"], p[f"beta_{name}"]
        return lambda x: self._layer_norm(x, gamma, beta)

    def _gates(self, p: Weights, projected: Tensor, h: Tensor) -> Tensor:
        """The normalised sums of the gates (B, 4H), in the order j, i, f, o."""
        if "mask_h" in p:
            h = h * p["mask_h"]
        if self.global_norm:
            return projected + self._layer_norm(h @ p["w_h"], p["gamma_state_below"], None)
        gates = added_product(projected, h, p["w_h"])
        if self.global_norm_joined:
            return self._layer_norm(gates, p["gamma_lstm_in"], p["beta_lstm_in"])
        if self.per_gate_norm:
            normed = functional.layer_norm(gates.view(-1, 4, self.n_out), (self.n_out,), eps=self.epsilon)
            return torch.addcmul(p["beta_gates"], normed, p["gamma_gates"]).flatten(1)
        return gates

    def _layer_norm(self, x: Tensor, gamma: Tensor, beta: Tensor | None) -> Tensor:
        return functional.layer_norm(x, (x.shape[-1],), gamma, beta, self.epsilon)


def _exclusive(**options: bool) -> None:
    if all(options.values()):
        first, second = options
        raise ConfigError(first, f"`{first}` must be False where `{second}` is True, but both are True instead")
