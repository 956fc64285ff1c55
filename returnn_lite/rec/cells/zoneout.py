"""LSTM with zoneout (Krueger et al. 2016, https://arxiv.org/abs/1606.01305)."""

from __future__ import annotations

from torch import Tensor

from returnn_lite.errors import ConfigError
from returnn_lite.ops.recurrent import zoneout
from returnn_lite.rec.cells.base import State, Weights
from returnn_lite.rec.cells.lstm import LstmCell, StandardLstm


class ZoneoutLstm(StandardLstm):
    """The standard LSTM (forget bias 1) of whose new state some elements keep their old values.

    In training each element of c and h does with probability `zoneout_factor_cell`, `zoneout_factor_output`; otherwise
    the new state is the mean over that.  The output is the new h before that, or after with `use_zoneout_output`.
    """

    def __init__(
        self,
        n_out: int,
        *,
        zoneout_factor_cell: float = 0.0,
        zoneout_factor_output: float = 0.0,
        use_zoneout_output: bool = False,
    ) -> None:
        super().__init__(n_out)
        self.factors = {"c": zoneout_factor_cell, "h": zoneout_factor_output}
        for name, factor in zip(("zoneout_factor_cell", "zoneout_factor_output"), self.factors.values(), strict=True):
            if not 0 <= factor <= 1:
                raise ConfigError(name, f"`{name}` must be between 0 and 1, but is {factor} instead")
        self.use_zoneout_output = use_zoneout_output
        self._fusable = not any(self.factors.values())

    def step(self, p: Weights, projected: Tensor, state: State) -> tuple[Tensor, State]:
        out, new = LstmCell.step(self, p, projected, state)
        for key, factor in self.factors.items():
            if factor:
                new[key] = zoneout(state[key], new[key], factor, training=p.training, generator=p.generator)
        return new["h"] if self.use_zoneout_output else out, new
