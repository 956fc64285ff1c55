"""Scaling of the objective, for gradients that are too small for float16: `grad_scaler`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from returnn_lite.config_value import ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.optim.gradients import Gradients, in_one_piece, value_of, with_value
from returnn_lite.optim.state import SavedState, State

OPTION = "grad_scaler"
OPTIONS = [name for name in inspect.signature(torch.amp.GradScaler).parameters if name not in ("device", "enabled")]


class _Witness(torch.optim.Optimizer):
    """What torch's scaler looks at: one number, which is finite if all gradients are; notes whether it may step."""

    def __init__(self, device: torch.device) -> None:
        self.number = torch.zeros((), device=device)
        self.stepped = False
        super().__init__([self.number], {})

    def step(self, closure: Any = None) -> Any:  # Any: as torch has it
        """Notes it."""
        self.stepped = True


class LossScale:
    """The objective is multiplied by a scale, its gradients are divided by it again. An update with gradients that are
    not finite is left out, and the scale shrinks; it grows where that does not happen for long (torch.amp.GradScaler,
    whose `options` these are; Micikevicius et al. 2018)."""

    def __init__(self, options: ConfigOptions, device: torch.device) -> None:
        self.device = device
        try:
            self.scaler = torch.amp.GradScaler(device.type, **options)
        except (AssertionError, TypeError, ValueError) as error:
            raise ConfigError(OPTION, str(error) or f"wrong values: {options}") from None
        self.witness = _Witness(device)

    def scale(self, objective: Tensor) -> Tensor:
        """The objective times the scale."""
        scaled: Tensor = self.scaler.scale(objective)
        return scaled

    def unscaled(self, grads: Gradients) -> Gradients:
        """The gradients of the objective, from those of what `scale` gave; infinite and NaN stay so."""
        factor = self.scale(torch.ones((), device=self.device)).reciprocal()
        values = torch._foreach_mul([value_of(grad) for grad in grads.values()], factor) if grads else ()
        return {name: with_value(old, new) for (name, old), new in zip(grads.items(), values, strict=True)}

    def may_step(self, grads: Gradients) -> bool:
        """Whether the gradients of an update are finite; the scale changes by it."""
        norms = torch._foreach_norm([value_of(grad) for grad in grads.values()]) if grads else ()
        self.witness.number.grad = (
            in_one_piece(torch.stack(list(norms)).sum()) if norms else torch.zeros_like(self.witness.number)
        )
        self.witness.stepped = False
        self.scaler.unscale_(self.witness)
        self.scaler.step(self.witness)
        self.scaler.update()
        return self.witness.stepped

    def state_dict(self) -> State:
        """The scale, and what its changes depend on."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: SavedState) -> None:
        """Takes it over."""
        self.scaler.load_state_dict(dict(state))


def scaler_options(value: ConfigValue) -> ConfigOptions | None:
    """The options in a config; None without. ConfigError for what GradScaler does not have."""
    if value is None or value is False:
        return None
    if not isinstance(value, Mapping):
        text = f"must be a dict of options of torch.amp.GradScaler or None, but is {value!r} instead"
        raise ConfigError(OPTION, text)
    for key in value:
        if key not in (*OPTIONS, "enabled"):
            text = f"unknown option{did_you_mean(str(key), OPTIONS)} (options: {', '.join(OPTIONS)})"
            raise ConfigError(f'{OPTION}["{key}"]', text)
    if not value.get("enabled", True):
        return None
    return {key: option for key, option in value.items() if key != "enabled"}
