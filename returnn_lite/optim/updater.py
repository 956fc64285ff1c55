"""The update of one training step: gradients, their processing, learning rate of the step, optimizers."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.params import ParamOptions
from returnn_lite.log import Log

from . import gradients as grad
from .dynamic import step_learning_rate
from .gradients import Gradients, NoiseGenerators
from .groups import GradientOptions, ParamGroup, make_groups


class Updater:
    """Owns the optimizers of all trainable parameters, and the gradients accumulated so far.

    `params` by name; those that do not require a gradient are left out. `network` is what a `dynamic_learning_rate`
    function gets under that name. ConfigError on wrong options or if nothing is trainable.
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
    ) -> None:
        self.params = {name: param for name, param in params.items() if param.requires_grad}
        if not self.params:
            raise ConfigError("network", "must have trainable parameters, but has none")
        self.log, self.network = log, network
        parts = make_groups(list(self.params), param_options, config, log)
        self.groups, self.optimizers, self.tags = parts.groups, parts.optimizers, parts.tags
        self.learning_rate_at = step_learning_rate(config, network)
        self.effective_learning_rate = initial_learning_rate  # the one of the latest step
        self.reset_every = config.int("reset_updater_vars_mod_step", 0) or 0  # steps within the epoch
        self.noise_seed = config.int("random_seed", 42) or 0
        self.decay = self._decoupled_decay(config, param_options)
        self.extra_updates = self._extra_updates(config)
        self.accumulated: Gradients = {}

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

    def step(self, objective: Tensor, *, global_step: int, learning_rate: float, epoch_step: int) -> None:
        """One training step. Steps count from 0, `global_step` over all epochs; `learning_rate` is the epoch's."""
        self.effective_learning_rate = self.learning_rate_at(global_step, learning_rate)
        self._reset_by_step(epoch_step)
        batch = self._gradients(objective)
        with torch.no_grad():
            norms = Norms(batch, self.tags)
            noise = NoiseGenerators(self.noise_seed, global_step)
            due: dict[str, Gradients] = {}
            for group in self.groups:
                grads = self._accumulate(group, batch, global_step)
                if group.options.applies_at(global_step):
                    due.setdefault(group.optimizer, {}).update(process(grads, group.options, norms, noise))
            for key, grads in due.items():
                self._decay(grads)
                self.optimizers[key].apply(self.params, grads, self.effective_learning_rate)
                self._update_extra(grads)

    def _reset_by_step(self, epoch_step: int) -> None:
        if self.reset_every > 0 and epoch_step % self.reset_every == 0:
            self.log.v5(f"Reset updater vars in step {epoch_step}.")
            for optimizer in self.optimizers.values():
                optimizer.reset()

    def _gradients(self, objective: Tensor) -> Gradients:
        factors = {name: group.options.maximize_grad_norm for group in self.groups for name in group.names}
        if not any(factors.values()):
            return grad.gradients(objective, self.params)
        return grad.maximize_norm(grad.gradients(objective, self.params, create_graph=True), self.params, factors)

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
        return {"optimizers": optimizers, "accumulated": dict(self.accumulated)}

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
