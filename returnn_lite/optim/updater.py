"""The update of one training step: gradients, their processing, learning rate of the step, optimizers."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.core.params import ParamOptions
from returnn_lite.log import Log

from . import gradients as grad
from .averaging import WeightAveraging
from .dynamic import Clock, step_learning_rate
from .family import Family
from .gradients import Gradients, NoiseGenerators
from .groups import ParamGroup, make_groups
from .lr_scheduler import Count, make_lr_scheduler
from .process import Norms, clip_together, process
from .rates import Rates

INVALID_STEPS = "num_allowed_consec_invalid_gradient_steps"


class Updater:
    """Owns the optimizers of all trainable parameters, their `lr_scheduler` and `weight_averaging`, and the gradients
    accumulated so far.

    `params` by name; those that do not require a gradient are left out. `network`: what a `dynamic_learning_rate`
    function gets, and what knows layers and kinds of parameters. ConfigError on wrong options, or if nothing trains.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        config: Config,
        *,
        param_options: Mapping[str, ParamOptions],
        initial_learning_rate: float,
        log: Log,
        network: Any = None,
        steps_per_epoch: Count | None = None,
    ) -> None:
        trainable = {name: param for name, param in params.items() if param.requires_grad}
        self.log, self.network = log, network
        parts = make_groups(trainable, param_options, config, log, network)
        self.groups, self.optimizers, self.tags = parts.groups, parts.optimizers, parts.tags
        self.params = {name: trainable[name] for group in self.groups for name in group.names}
        if not self.params:
            raise ConfigError("network", "must have trainable parameters, but has none")
        self.active = self.params  # those not frozen in this epoch
        for key, names in self._names_by_optimizer().items():
            self.optimizers[key].bind({name: self.params[name] for name in names})
        self._log_groups()
        self.closure = self._closure_optimizer()
        self.scheduler = make_lr_scheduler(config, list(self.optimizers.values()), log, steps_per_epoch=steps_per_epoch)
        self.averaging = WeightAveraging.from_config(config, params, self.optimizers.values(), log)
        self.clock = Clock()
        self.rates = Rates(self.optimizers, self.scheduler, step_learning_rate(config, network, self.clock))
        self.effective_learning_rate = initial_learning_rate  # the one of the latest step
        self.epoch_rate = initial_learning_rate  # the epoch's, from which it was made
        self.reset_every = config.int("reset_updater_vars_mod_step", 0) or 0  # steps within the epoch
        self.noise_seed = config.int("random_seed", 42) or 0
        self.decay = self._decoupled_decay(config, param_options)
        self.extra_updates = self._extra_updates(config)
        self.accumulated: Gradients = {}
        self.allowed_invalid = config.int(INVALID_STEPS, 0) or 0  # steps in a row without an update
        self.invalid = 0  # such steps in a row so far
        self.observer: Callable[[Gradients], None] | None = None  # is shown the raw gradients of every step
        # (own gradients, parameters) -> those of all processes, where several train together
        self.combine: Callable[[Gradients, Mapping[str, Tensor]], Gradients] = lambda own, params: own
        if self.closure is not None and self.allowed_invalid:
            raise ConfigError(INVALID_STEPS, f"must be 0 with {self.closure.name}, which takes a closure")

    def _log_groups(self) -> None:
        """Which parameters have which optimizer, if there are several."""
        for key, names in self._names_by_optimizer().items() if len(self.optimizers) > 1 else ():
            optimizer, count = self.optimizers[key], sum(self.params[name].numel() for name in names)
            plain = {name: value for name, value in optimizer.options().items() if isinstance(value, int | float)}
            rate = f"learning rate x {optimizer.learning_rate_multiplier:g}"
            text = f"{len(names)} parameters, {count} numbers ({shortened(', '.join(names), 60)})"
            self.log.v3(f"optimizer {optimizer.name}: {text}, {rate}, {plain}")

    def _decoupled_decay(self, config: Config, param_options: Mapping[str, ParamOptions]) -> dict[str, float]:
        """Per parameter the part that `decouple_constraints` takes off each step: twice its layer's L2."""
        if not config.bool("decouple_constraints", False):
            return {}
        l2 = {name: param_options[name].l2 for name in self.params if name in param_options}
        return {name: 2 * factor for name, factor in l2.items() if factor}

    def _extra_updates(self, config: Config) -> dict[str, Callable[..., Any]]:
        """`extra_updates`: functions by parameter name that change their parameter in place after its update."""
        found = dict(config.typed_value("extra_updates", None) or {})
        for name in found:
            if name not in self.params:
                hint = did_you_mean(name, self.params)
                raise ConfigError(f'extra_updates["{name}"]', f"there is no such trainable parameter{hint}")
        return found

    # --- epochs -------------------------------------------------------------------------------------------------------

    def start_epoch(self, epoch: int, score: float | None = None) -> None:
        """Begins an epoch; `score` is what the one before reached, None if that is not known. Lower is better."""
        self.clock.epoch, self.clock.complete = epoch, 0.0
        if self.scheduler is not None:
            self.scheduler.start(epoch, score)
        if self.averaging is not None:
            self.averaging.start_epoch(epoch)
        for optimizer in self.optimizers.values():
            optimizer.start_epoch(epoch, score)
        if any(optimizer.frozen_until > epoch for optimizer in self.optimizers.values()):
            frozen = {key for key, optimizer in self.optimizers.items() if optimizer.frozen_until > epoch}
            names = {name for group in self.groups if group.optimizer not in frozen for name in group.names}
            self.active = {name: param for name, param in self.params.items() if name in names}
        else:
            self.active = self.params

    def end_epoch(self) -> None:
        """Ends an epoch, after its last step."""
        if self.averaging is not None:
            self.averaging.after_epoch()

    def averaged_for(self, task: str) -> AbstractContextManager[None]:
        """The averaged parameters in place of the model's, if they are to be used for this task."""
        return nullcontext() if self.averaging is None else self.averaging.in_place(task)

    def averaged_model(self, params: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """All parameters of the averaged model; None if there is none."""
        return None if self.averaging is None else self.averaging.model(params)

    @property
    def measure(self) -> str | None:
        """The score that the scheduler waits for, if it names one."""
        return None if self.scheduler is None else self.scheduler.measure

    def preview(self, global_step: int, learning_rate: float, complete: float = 0.0) -> dict[str, float]:
        """The learning rates of a step and all numbers with a schedule; the step then counts as made."""
        self.clock.complete = complete
        names = {key: shortened(", ".join(names)) for key, names in self._names_by_optimizer().items()}
        return self.rates.preview(global_step, learning_rate, names)

    def next_learning_rate(self, global_step: int) -> float:
        """What the step of this number, which was not made yet, would take."""
        return self.rates.common_of_step(global_step, self.epoch_rate)

    # --- steps --------------------------------------------------------------------------------------------------------

    def step(
        self,
        objective: Tensor,
        *,
        global_step: int,
        learning_rate: float,
        epoch_step: int,
        evaluate: Callable[[], Tensor] | None = None,
        complete: float = 0.0,
        gradients: Gradients | None = None,
    ) -> None:
        """One training step. Steps count from 0, `global_step` over all epochs; `learning_rate` is the epoch's.

        `complete`: the part of the epoch that is done with it; this step's own rates go by what was done before.
        `evaluate` computes the objective anew, with the same random numbers: for optimizers with a closure.
        `gradients`: those of the objective, by parameter, where they are known already.
        """
        rates = self.rates.of_step(global_step, learning_rate)
        self.clock.complete, self.epoch_rate = complete, learning_rate
        self.effective_learning_rate = rates[self.rates.common]
        self._reset_by_step(epoch_step)
        self.rates.set_momenta()
        if self.closure is not None and evaluate is not None:
            self._step_by_closure(self.closure, objective, evaluate, global_step, rates)
            applied = True
        else:
            applied = self._step_by_gradients(objective, gradients, global_step, rates)
        if applied:
            self._after_update()

    def _after_update(self) -> None:
        if self.scheduler is not None:
            self.scheduler.after_update()
        if self.averaging is not None:
            self.averaging.after_update()

    def _step_by_gradients(
        self, objective: Tensor, known: Gradients | None, global_step: int, rates: Mapping[str, float]
    ) -> bool:
        """Returns whether an optimizer was applied, which accumulation may put off."""
        batch = self.combine(self._gradients(objective) if known is None else known, self.active)
        if self.observer is not None:
            self.observer(batch)
        if self.allowed_invalid and self._is_invalid(batch):
            for group in self.groups:
                self._accumulate(group, {}, global_step)
            return False
        with torch.no_grad():
            due = self._processed(batch, global_step)
            for key, grads in due.items():
                self._decay(grads)
                self.optimizers[key].apply(self.params, grads, rates[key])
                self._update_extra(grads)
        return bool(due)

    def _is_invalid(self, batch: Gradients) -> bool:
        """Whether the gradients are not finite, so that the step is left out. ConfigError after too many in a row."""
        values = [grad.value_of(value).detach() for value in batch.values()]
        if not batch or bool(torch.isfinite(grad.global_norm(values, like=values[0]))):
            self.invalid = 0
            return False
        self.invalid += 1
        if self.invalid > self.allowed_invalid:
            text = f"the gradients were not finite in {self.invalid} steps in a row"
            raise ConfigError(INVALID_STEPS, f"{text}, but {self.allowed_invalid} are allowed")
        self.log.v3(f"Gradients are not finite, no update ({self.invalid} of {self.allowed_invalid} in a row).")
        return True

    def _processed(self, batch: Gradients, global_step: int) -> dict[str, Gradients]:
        """By optimizer what it gets in this step."""
        norms = Norms(batch, self.tags)
        noise = NoiseGenerators(self.noise_seed, global_step)
        due: dict[str, Gradients] = {}
        for group in self.groups:
            grads = self._accumulate(group, batch, global_step)
            if group.options.applies_at(global_step):
                due.setdefault(group.optimizer, {}).update(process(grads, group.options, norms, noise))
        for key in due:
            if self.optimizers[key].clip_norm:
                due[key] = clip_together(due[key], self.optimizers[key].clip_norm)
        return due

    def _step_by_closure(
        self,
        optimizer: Family,
        objective: Tensor,
        evaluate: Callable[[], Tensor],
        global_step: int,
        rates: Mapping[str, float],
    ) -> None:
        first = [objective]

        def loss_and_gradients() -> tuple[Tensor, Gradients]:
            with torch.enable_grad():
                loss = first.pop() if first else evaluate()
                batch = self._gradients(loss)
            with torch.no_grad():
                return loss, next(iter(self._processed(batch, global_step).values()), {})

        key = next(iter(self.optimizers))
        self._decay(dict(self.active))
        optimizer.apply_closure(self.params, loss_and_gradients, rates[key])

    def _closure_optimizer(self) -> Family | None:
        """The optimizer that calls for the loss itself, alone with all parameters."""
        found = [optimizer for optimizer in self.optimizers.values() if optimizer.needs_closure]
        if not found:
            return None
        if len(self.optimizers) > 1:
            raise ConfigError(
                "optimizer", f"{found[0].name} takes a closure, so it must be alone, without parameter groups"
            )
        if any(group.options.accum_grad_multiple_step > 1 for group in self.groups):
            raise ConfigError("accum_grad_multiple_step", f"must be 1 with {found[0].name}, which takes a closure")
        return found[0]

    def _reset_by_step(self, epoch_step: int) -> None:
        if self.reset_every > 0 and epoch_step % self.reset_every == 0:
            self.log.v5(f"Reset updater vars in step {epoch_step}.")
            for optimizer in self.optimizers.values():
                optimizer.reset()

    def _gradients(self, objective: Tensor) -> Gradients:
        factors = {name: group.options.maximize_grad_norm for group in self.groups for name in group.names}
        if not any(factors.values()):
            return grad.gradients(objective, self.active)
        return grad.maximize_norm(grad.gradients(objective, self.active, create_graph=True), self.active, factors)

    def _accumulate(self, group: ParamGroup, batch: Gradients, global_step: int) -> Gradients:
        """The group's gradients, summed since the last global step that is a multiple of N; dense if N > 1."""
        own = {name: batch[name] for name in group.names if name in batch}
        every = group.options.accum_grad_multiple_step
        if every <= 1:
            return own
        total = self.accumulated
        if global_step % every == 0:
            for name in group.names:
                total.pop(name, None)
        for name, value in own.items():
            if name in total:
                total[name].add_(value)
            else:
                total[name] = value.to_dense() if value.is_sparse else value.clone()
        return {name: total[name] for name in group.names if name in total}

    def _decay(self, grads: Gradients) -> None:
        """Decoupled constraints: w -= w (2 L2)."""
        for name in grads.keys() & self.decay.keys():
            self.params[name].sub_(self.params[name] * self.decay[name])

    def _update_extra(self, grads: Gradients) -> None:
        for name in grads.keys() & self.extra_updates.keys():
            function = self.extra_updates[name]
            offered = {"network": self.network, "grad": grads[name], "update_ops": []}
            wanted = inspect.signature(function).parameters
            function(var=self.params[name], **{key: value for key, value in offered.items() if key in wanted})

    def reset(self) -> None:
        """Starts anew: optimizer state and accumulated gradients are forgotten."""
        self.accumulated.clear()
        for optimizer in self.optimizers.values():
            optimizer.reset()

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to go on with the same numbers: dicts of numbers, texts and tensors."""
        names = self._names_by_optimizer()
        optimizers = {key: {**opt.state_dict(), "params": names[key]} for key, opt in self.optimizers.items()}
        state = {"optimizers": optimizers, "accumulated": dict(self.accumulated), "invalid": self.invalid}
        return {**state, **self.schedule_state()}

    def schedule_state(self) -> dict[str, Any]:
        """The part of the state that does not end with the network: scheduler and averages."""
        parts = {"scheduler": self.scheduler, "averaging": self.averaging}
        return {name: part.state_dict() for name, part in parts.items() if part is not None}

    def take_over(self, old: "Updater") -> None:
        """From the updater of another network: scheduler, averages, and where the schedules of the optimizers are."""
        self.load_schedule_state(old.schedule_state())
        for key in self.optimizers.keys() & old.optimizers.keys():
            self.optimizers[key].load_position(old.optimizers[key].position())

    def load_schedule_state(self, state: Mapping[str, Any]) -> None:
        """Takes over `schedule_state`, as far as it is there."""
        for name, part in (("scheduler", self.scheduler), ("averaging", self.averaging)):
            if part is not None and name in state:
                part.load_state_dict(state[name])

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over the state of the parameters whose optimizer is of the same class; the log names the others."""
        self.reset()
        names = self._names_by_optimizer()
        for key, optimizer in self.optimizers.items():
            own = {name: self.params[name] for name in names[key]}
            saved = _best_match(key, optimizer.name, own, state["optimizers"])
            new = optimizer.load_state_dict(saved, own) if saved else list(own)
            if new:
                self.log.v3(f"optimizer {optimizer.name}: no fitting saved state for {', '.join(new)}")
        for name, value in state["accumulated"].items():
            if name in self.params and value.shape == self.params[name].shape:
                self.accumulated[name] = value.to(self.params[name].device, copy=True)
        self.invalid = state.get("invalid", 0)
        self.load_schedule_state(state)

    def _names_by_optimizer(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {key: [] for key in self.optimizers}
        for group in self.groups:
            names[group.optimizer] += group.names
        return names


def _best_match(
    key: str, rule: str, own: Mapping[str, Tensor], saved: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The saved optimizer of this class with the same options; else the one with most of the parameters, if any."""
    fitting = {other: state for other, state in saved.items() if state["class"] == rule}
    if key in fitting:
        return fitting[key]
    common = {other: len(own.keys() & set(state["params"])) for other, state in fitting.items()}
    best = max(common, key=common.__getitem__, default=None)
    return fitting[best] if best is not None and common[best] else None


def shortened(text: str, length: int = 30) -> str:
    """The text, or its beginning."""
    return text if len(text) <= length else text[: length - 1] + "…"
