"""Initial states of recurrent units, in all forms that configs give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from returnn_lite.config_value import ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.core.base import Layer
from returnn_lite.rec.cells import Cell
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.align import place

State = dict[str, torch.Tensor]
_KEPT = ("keep_over_epoch", "keep_over_epoch_no_init")
_WORDS = {"zeros": 0.0, "ones": 1.0}


class InitialState:
    """`initial_state`: None, 0, 1, "zeros", "ones", "var", "keep_over_epoch", a layer, or one of these per key.

    A layer with a last hidden state gives that; any other its output (B, H). `scope`: where its parameters are.
    """

    def __init__(self, value: ConfigValue, scope: str = "rec/") -> None:
        self.value = value
        self.scope = scope
        self.kept: State | None = None
        self.kept_epoch: int | None = None

    @property
    def is_kept(self) -> bool:
        """Whether a batch begins where the last one ended."""
        value = self.value
        entries = (
            value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else [value]
        )
        return any(isinstance(entry, str) and entry in _KEPT for entry in entries)

    @property
    def is_zero(self) -> bool:
        """Whether a sequence begins with zeros."""
        return self.value in (None, 0, "zeros")

    def per_key(self, cell: Cell) -> ConfigOptions:
        """The entry of each component of the state."""
        keys, value = cell.state_keys, self.value
        if isinstance(value, Mapping):
            if len(keys) == 1 and [*value] == ["state"]:
                value = {keys[0]: value["state"]}
            for key in value:
                if key not in keys:
                    raise ConfigError("initial_state", f"unknown component {key!r}{did_you_mean(str(key), keys)}")
            return {k: value.get(k) for k in keys}
        if isinstance(value, (list, tuple)):
            if len(value) != len(keys):
                text = f"must have {len(keys)} entries ({', '.join(keys)}), but has {len(value)}"
                raise ConfigError("initial_state", text)
            return dict(zip(keys, value, strict=True))
        return dict.fromkeys(keys, value)

    def layers(self, cell: Cell) -> dict[str, str]:
        """The layers to refer to, by reference key."""
        found = {}
        for key, value in self.per_key(cell).items():
            if isinstance(value, str) and value not in (*_WORDS, "var", "placeholder", *_KEPT):
                found[f"initial_state/{key}"] = value
        if self.value is not None and self.value not in (0, "zeros") and not cell.accepts_initial_state:
            raise ConfigError("initial_state", "is not supported by this unit; use nativelstm2")
        return found

    def build(self, unit: Layer, cell: Cell) -> None:
        """The trainable vectors of "var", which start at 0: `rec/initial_<key>`, of an rnn_cell `initial_<key>`."""
        for key, value in self.per_key(cell).items():
            if value == "var":
                unit.param(f"{self.scope}initial_{key}", (cell.n_out,), 0.0)

    def state(
        self, unit: Layer, cell: Cell, batch: int, device: torch.device, refs: Mapping[str, Tensor]
    ) -> State | None:
        """The initial state of a run; None for zeros."""
        if self.is_zero:
            return None
        zeros = cell.zero_state(batch, device, torch.float32)
        entries = self.per_key(cell)
        return {k: self._component(unit, k, entries[k], zeros[k], refs) for k in cell.state_keys}

    def of_frame(
        self, unit: Layer, cell: Cell, rows: Spec, shape: torch.Size, device: torch.device, refs: Mapping[str, Tensor]
    ) -> State:
        """The state before one frame alone: zeros, or what the layers give, for all axes of `rows` but the last one."""
        zeros = cell.zero_state(1, device, torch.float32)
        if self.is_zero or self.is_kept:
            return {key: value.expand(*shape, -1) for key, value in zeros.items()}
        entries, found = self.per_key(cell), State()
        for key in cell.state_keys:
            x = refs.get(f"initial_state/{key}")
            if x is not None and key not in (x.state or ()) and x.spec.feature_dim is not None:
                value = place(x, rows.with_feature(x.spec.feature_dim)).expand(*shape, -1)
            else:
                value = self._component(unit, key, entries[key], zeros[key], refs)
            found[key] = value.expand(*shape, -1) if value.shape[0] == 1 else value
        return found

    def _component(
        self, unit: Layer, key: str, value: Any, zeros: torch.Tensor, refs: Mapping[str, Tensor]
    ) -> torch.Tensor:
        if value == "var":
            vector: torch.Tensor = getattr(unit, f"{self.scope.replace('/', '__')}initial_{key}")
            return zeros + vector
        if value in (None, "placeholder"):
            return zeros
        if isinstance(value, str) and value in _KEPT:
            last = self._last(unit, value, zeros.shape[0])
            return zeros if last is None else last[key]
        if isinstance(value, (int, float)) or value in _WORDS:
            return zeros + float(_WORDS.get(value, value) if isinstance(value, str) else value)
        x = refs.get(f"initial_state/{key}")
        if x is None:
            raise unit.error(f"the initial state {value!r} is not known here")
        if x.state is not None:
            if key in x.state:
                return x.state[key]
            return torch.cat(list(x.state.values()), -1)
        if x.spec.time is not None or x.spec.batch is None:
            raise unit.error(f"the initial state {value!r} must be (B, {zeros.shape[1]}), but is {x.spec} instead")
        return x.batch_major().data

    def _last(self, unit: Layer, value: str, batch: int) -> State | None:
        """The state at the end of the previous batch; zeros at the start of an epoch, if `value` says so."""
        if self.kept is None or (value == _KEPT[0] and self.kept_epoch != unit.context.epoch):
            return None
        if next(iter(self.kept.values())).shape[0] != batch:
            raise unit.error("a state kept over batches needs batches of one size")
        return self.kept

    def keep(self, unit: Layer, final: Mapping[str, torch.Tensor] | None) -> None:
        """Keeps the state of this batch for the next one, if asked to."""
        if final and self.is_kept:
            self.kept = {k: v.detach() for k, v in final.items()}
            self.kept_epoch = unit.context.epoch
