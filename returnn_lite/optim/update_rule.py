"""From a step's gradients to what each optimizer gets: what the rules for all kinds of models have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from returnn_lite.config import Config
from returnn_lite.config.numbers import whole
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.optim import gradients as grad
from returnn_lite.optim.accumulation import Accumulation
from returnn_lite.optim.gradients import Gradients, NoiseGenerators
from returnn_lite.optim.groups import Groups, ParamGroup
from returnn_lite.optim.process import clip_together

Parts = list[tuple[ParamGroup, Gradients]]
INVALID_STEPS, LOG_NORM = "num_allowed_consec_invalid_gradient_steps", "log_grad_norm"
DEFAULT_POWER = 2.0


class UpdateRule:
    """Sums gradients over the steps of an update, and processes them; `rule.accumulation` says which steps are due.

    `grad_norm`: with `log_grad_norm`, the norm of the gradients of the last update before any processing; None where
    the last step made no update. `norm_name`: "p2", as the log calls it.
    """

    def __init__(self, config: Config, log: Log, *, parts: Groups, accumulation: Accumulation) -> None:
        self.groups, self.optimizers, self.tags = parts.groups, parts.optimizers, parts.tags
        self.accumulation = accumulation
        self.invalid = InvalidSteps(config, log)
        self.norm_power = norm_power(config)
        self.norm_name = "" if self.norm_power is None else f"p{self.norm_power:g}"
        self.grad_norm: torch.Tensor | None = None
        self.noise_seed = config.int("random_seed", 42) or 0
        # Whether the gradients of an update may be applied, asked once for each.
        self.accepts: Callable[[Gradients], bool] = lambda grads: True

    def start_epoch(self) -> None:
        """Begins an epoch."""
        self.accumulation.start_epoch()

    def due(self, batch: Gradients, global_step: int) -> dict[str, Gradients]:
        """By optimizer what it gets in this step; nothing where accumulation puts that off, or (if that is allowed)
        gradients are not finite."""
        self.accumulation.next_step(global_step)
        self.grad_norm = None
        with torch.no_grad():
            parts = self._update(batch, global_step)
        due: dict[str, Gradients] = {}
        for group, grads in parts:
            due.setdefault(group.optimizer, {}).update(grads)
        for key in due:
            if self.optimizers[key].clip_norm:
                due[key] = clip_together(due[key], self.optimizers[key].clip_norm)
        return due

    def _update(self, batch: Gradients, global_step: int) -> Parts:
        """The processed gradients of the groups whose update ends with this step."""
        raise NotImplementedError(f"{type(self).__name__}._update")

    def _summed(self, batch: Gradients) -> Parts:
        """The gradients of the groups whose update ends with this step, not processed yet."""
        parts = [(group, self.accumulation.add(group, batch)) for group in self.groups]
        parts = [(group, grads) for group, grads in parts if self.accumulation.due(group)]
        if self.norm_power is not None and parts:
            self.grad_norm = global_norm(together(parts), self.norm_power)
        return parts if not parts or self.accepts(together(parts)) else []

    def _noise(self, global_step: int) -> NoiseGenerators:
        return NoiseGenerators(self.noise_seed, global_step)


class InvalidSteps:
    """Counts steps in a row whose gradients are not finite. `allowed`: None if they are not looked at."""

    def __init__(self, config: Config, log: Log) -> None:
        self.log, self.count = log, 0
        given = config.int(INVALID_STEPS, None)
        self.allowed = None if given is None else whole(INVALID_STEPS, given)

    def found(self, grads: Gradients, global_step: int) -> bool:
        """Whether the step is to be left out. ConfigError after too many in a row."""
        if self.allowed is None:
            return False
        if not grads or bool(torch.isfinite(global_norm(grads))):
            self.count = 0
            return False
        self.count += 1
        if self.count > self.allowed:
            text = f"the gradients were not finite in {self.count} steps in a row"
            raise ConfigError(INVALID_STEPS, f"{text}, but {self.allowed} are allowed")
        left = f"{self.allowed - self.count} subsequent broken steps left until training is aborted."
        self.log.v2(f"Invalid gradient in step {global_step}, skipping. {left}")
        return True


def norm_power(config: Config) -> float | None:
    """The p of the norm that `log_grad_norm` asks for: True is 2; None without."""
    value = config.typed_value(LOG_NORM, None)
    if isinstance(value, str):
        value = config.literal(LOG_NORM)
    if value is None or value is False:
        return None
    if value is True:
        return DEFAULT_POWER
    if not isinstance(value, int | float) or not value > 0:
        raise ConfigError(LOG_NORM, f"must be True or a number above 0 (the p of the norm), but is {value!r} instead")
    return float(value)


def global_norm(grads: Gradients, power: float = DEFAULT_POWER) -> torch.Tensor:
    """The p-norm of all gradients together, a scalar."""
    values = [grad.value_of(value.coalesce() if value.is_sparse else value).detach() for value in grads.values()]
    if not values:
        return torch.zeros(())
    norms = torch.stack([torch.linalg.vector_norm(value, ord=power) for value in values])
    return grad.in_one_piece(norms.max() if math.isinf(power) else torch.linalg.vector_norm(norms, ord=power))


def together(parts: Parts) -> Gradients:
    """The gradients of all groups."""
    return {name: value for _, grads in parts for name, value in grads.items()}


def by_name(values: Mapping[str, torch.Tensor], parts: Parts) -> Parts:
    """Other gradients of the same parameters, in the same groups."""
    return [(group, {name: values[name] for name in grads}) for group, grads in parts]
