"""The update of one training step: gradients, their processing, learning rate of the step, optimizers."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.params import ParamOptions
from returnn_lite.log import Log

from . import gradients as grad
from .averaging import WeightAveraging
from .dynamic import step_learning_rate
from .family import Family
from .gradients import Gradients, NoiseGenerators
from .groups import GradientOptions, ParamGroup, make_groups
from .lr_scheduler import Count, make_lr_scheduler


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
        self.learning_rate_at = step_learning_rate(config, network)
        self.effective_learning_rate = initial_learning_rate  # the one of the latest step
        self.reset_every = config.int("reset_updater_vars_mod_step", 0) or 0  # steps within the epoch
        self.noise_seed = config.int("random_seed", 42) or 0
        self.decay = self._decoupled_decay(config, param_options)
        self.extra_updates = self._extra_updates(config)
        self.accumulated: Gradients = {}

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

    # --- learning rates -----------------------------------------------------------------------------------------------

    def start_epoch(self, epoch: int, score: float | None = None) -> None:
        """Begins an epoch; `score` is what the one before reached, None if that is not known. Lower is better."""
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

    @property
    def rate_changes_within_epochs(self) -> bool:
        """Whether a scheduler, or the optimizer, sets the learning rate at every step."""
        scheduled = self.scheduler is not None and self.scheduler.per_step
        return scheduled or any(optimizer.own_rate() is not None for optimizer in self.optimizers.values())

    @property
    def owns_rate(self) -> bool:
        """Whether the learning rate is said by a scheduler, or by the optimizer, and not from outside."""
        scheduled = self.scheduler is not None and self.scheduler.mode == "replace" and self.scheduler.started
        return scheduled or any(optimizer.own_rate() is not None for optimizer in self.optimizers.values())

    def base_rates(self, learning_rate: float) -> dict[str, float]:
        """By optimizer the learning rate of the next step, before `dynamic_learning_rate`, from that of the epoch."""
        scheduler = self.scheduler if self.scheduler is not None and self.scheduler.started else None
        values = scheduler.values() if scheduler is not None else [{}] * len(self.optimizers)
        rates = {}
        for (key, optimizer), group in zip(self.optimizers.items(), values, strict=True):
            own = optimizer.own_rate()
            rate = optimizer.rate(learning_rate if own is None else own)
            if group and optimizer.learning_rate_absolute is None:
                rate = group["lr"] if scheduler is not None and scheduler.mode == "replace" else rate * group["lr"]
                if scheduler is not None and scheduler.mode == "multiply":
                    rate /= optimizer.learning_rate_multiplier or 1.0  # which the group's value has, too
            rates[key] = rate
        return rates

    def common_rate(self, rates: Mapping[str, float]) -> float:
        """Of the learning rates by optimizer that of a parameter without a multiplier."""
        plain = [
            key
            for key, optimizer in self.optimizers.items()
            if optimizer.learning_rate_multiplier == 1 and optimizer.learning_rate_absolute is None
        ]
        return rates[next(iter(plain or rates))]

    def epoch_rate(self, learning_rate: float) -> float:
        """What the learning rate file is to record at the start of an epoch."""
        return self.common_rate(self.base_rates(learning_rate)) if self.owns_rate else learning_rate

    def step_rates(self, global_step: int, learning_rate: float) -> dict[str, float]:
        """By optimizer the learning rate of a step."""
        bases = self.base_rates(learning_rate)
        fixed = {key for key, optimizer in self.optimizers.items() if optimizer.learning_rate_absolute is not None}
        known = {
            base: self.learning_rate_at(global_step, base) for base in {bases[key] for key in bases if key not in fixed}
        }
        return {key: base if key in fixed else known[base] for key, base in bases.items()}

    def start_rate(self, global_step: int, learning_rate: float) -> float:
        """The learning rate of a step for parameters without a multiplier."""
        return self.common_rate(self.step_rates(global_step, learning_rate))

    def preview(self, global_step: int, learning_rate: float) -> dict[str, float]:
        """The learning rates of a step and all numbers with a schedule; the step then counts as made."""
        rates = self.step_rates(global_step, learning_rate)
        names = {key: ", ".join(names) for key, names in self._names_by_optimizer().items()}
        values = {"learning_rate": self.common_rate(rates)}
        if len(set(rates.values())) > 1:
            values = {f"learning_rate of {shortened(names[key])}": rate for key, rate in rates.items()}
        if self.scheduler is not None and self.scheduler.shadow.cycles_momentum:
            values.update((name, value) for name, value in self.scheduler.values()[0].items() if name != "lr")
        for optimizer in self.optimizers.values():
            values |= optimizer.scheduled()
            optimizer.skip()
        if self.scheduler is not None:
            self.scheduler.after_update()
        return values

    def _set_momenta(self) -> None:
        """The momentum that a scheduler cycles."""
        if self.scheduler is None or not self.scheduler.started or not self.scheduler.shadow.cycles_momentum:
            return
        for optimizer, group in zip(self.optimizers.values(), self.scheduler.values(), strict=True):
            for name, value in group.items():
                if name != "lr":
                    optimizer.set_option(name, value)

    # --- steps --------------------------------------------------------------------------------------------------------

    def step(
        self,
        objective: Tensor,
        *,
        global_step: int,
        learning_rate: float,
        epoch_step: int,
        evaluate: Callable[[], Tensor] | None = None,
    ) -> None:
        """One training step. Steps count from 0, `global_step` over all epochs; `learning_rate` is the epoch's.

        `evaluate` computes the objective anew, with the same random numbers: for optimizers with a closure.
        """
        rates = self.step_rates(global_step, learning_rate)
        self.effective_learning_rate = self.common_rate(rates)
        self._reset_by_step(epoch_step)
        self._set_momenta()
        if self.closure is not None and evaluate is not None:
            self._step_by_closure(self.closure, objective, evaluate, global_step, rates)
            applied = True
        else:
            applied = self._step_by_gradients(objective, global_step, rates)
        if applied:
            self._after_update()

    def _after_update(self) -> None:
        if self.scheduler is not None:
            self.scheduler.after_update()
        if self.averaging is not None:
            self.averaging.after_update()

    def _step_by_gradients(self, objective: Tensor, global_step: int, rates: Mapping[str, float]) -> bool:
        """Returns whether an optimizer was applied, which accumulation may put off."""
        batch = self._gradients(objective)
        with torch.no_grad():
            due = self._processed(batch, global_step)
            for key, grads in due.items():
                self._decay(grads)
                self.optimizers[key].apply(self.params, grads, rates[key])
                self._update_extra(grads)
        return bool(due)

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
        return {"optimizers": optimizers, "accumulated": dict(self.accumulated), **self.schedule_state()}

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


def clip_together(grads: Gradients, limit: float) -> Gradients:
    """All gradients scaled such that their common norm is at most the limit."""
    values = [grad.value_of(value) for value in grads.values()]
    if not values:
        return grads
    norm = grad.global_norm(values, like=values[0])
    scaled = torch._foreach_mul(values, (limit / norm).clamp(max=1.0))
    return {name: grad.with_value(old, new) for (name, old), new in zip(grads.items(), scaled, strict=True)}


class Norms:
    """Norms of the batch's gradients as they came: over all parameters, or over those with a tag; once each."""

    def __init__(self, grads: Gradients, tags: Mapping[str, set[str]]) -> None:
        self.grads, self.tags = grads, tags
        self.known: dict[str | None, Tensor] = {}

    def __call__(self, tag: str | None) -> Tensor:
        if tag not in self.known:
            names = self.grads.keys() if tag is None else self.grads.keys() & self.tags.get(tag, set())
            values = [grad.value_of(self.grads[name]) for name in self.grads if name in names]
            self.known[tag] = grad.global_norm(values, like=next(iter(self.grads.values())))
        return self.known[tag]


def process(grads: Gradients, options: GradientOptions, norms: Norms, noise: NoiseGenerators) -> Gradients:
    """All stages between the gradients and the optimizer, in their fixed order."""
    if options.gradient_noise:  # noise on all rows makes a gradient dense
        grads = grad.dense(grads)
    values = [grad.value_of(value) for value in grads.values()]
    if not values:
        return {}
    if options.gradient_noise:
        values = grad.add_noise(values, options.gradient_noise, noise)
    if options.gradient_clip:
        values = grad.clip_values(values, options.gradient_clip)
    if options.gradient_clip_norm:
        values = grad.clip_norms(values, options.gradient_clip_norm)
    if options.gradient_clip_avg_norm:
        values = grad.clip_average_norms(values, options.gradient_clip_avg_norm)
    if options.gradient_clip_global_norm:
        values = grad.clip_global_norm(values, options.gradient_clip_global_norm, norms(options.clip_tag))
    if options.gradient_nan_inf_filter:
        values = grad.without_nan_and_inf(values)
    if options.grad_norm_to_clip_to_zero:
        values = grad.zero_above(values, options.grad_norm_to_clip_to_zero, norms(options.global_norm_tag))
    return {name: grad.with_value(old, new) for (name, old), new in zip(grads.items(), values, strict=True)}
