"""The update of one training step: gradients, their processing, learning rate of the step, optimizers."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.params import ParamOptions
from returnn_lite.log import Log
from returnn_lite.optim import gradients as grad
from returnn_lite.optim.accumulation import make_accumulation
from returnn_lite.optim.averaging import WeightAveraging
from returnn_lite.optim.beside import BesideOptimizer
from returnn_lite.optim.dynamic import Clock, step_learning_rate
from returnn_lite.optim.gradients import Gradients
from returnn_lite.optim.groups import COUNT, counted_by_function, make_groups, optimizer_lines, shortened
from returnn_lite.optim.held import Held, may_train
from returnn_lite.optim.layer_rule import LayerRule
from returnn_lite.optim.loss_scale import OPTION as SCALER
from returnn_lite.optim.loss_scale import LossScale
from returnn_lite.optim.lr_scheduler import Count, make_lr_scheduler
from returnn_lite.optim.optimizer import Optimizer, best_match, changed_options, fixed_options
from returnn_lite.optim.rates import Rates
from returnn_lite.optim.state import SavedState, State
from returnn_lite.optim.torch_rule import TorchRule
from returnn_lite.optim.update_rule import INVALID_STEPS


class Updater:
    """Owns the optimizers of all trainable parameters, their `lr_scheduler` and `weight_averaging`, and the gradients
    accumulated so far.

    `params` by name. Nets of layers: those that do not require a gradient are left out. Models written in torch: all
    parameters of the model; whether they require a gradient is looked at in each step. `network`: what a
    `dynamic_learning_rate` function gets, and what knows layers and kinds of parameters. ConfigError on wrong options,
    or if nothing trains.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        config: Config,
        *,
        param_options: Mapping[str, ParamOptions],
        initial_learning_rate: float,
        log: Log,
        network: object = None,
        steps_per_epoch: Callable[[], int] | None = None,
    ) -> None:
        self.written_in_torch = config.value("backend", None) == "torch"
        trainable = {name: param for name, param in params.items() if may_train(param, self.written_in_torch)}
        self.log, self.network = log, network
        parts = make_groups(trainable, param_options, config, log, network)
        self.groups, self.optimizers = parts.groups, parts.optimizers
        self.params = {name: trainable[name] for group in self.groups for name in group.names}
        if not self.params:
            source = "get_model" if self.written_in_torch else "network"
            raise ConfigError(source, "must have trainable parameters, but has none")
        self.held = Held(trainable) if self.written_in_torch else None
        self._set_active(self.params)
        for key, names in self._names_by_optimizer().items():
            self.optimizers[key].bind({name: self.params[name] for name in names})
        for line in optimizer_lines(parts, self.params):
            log.v3(line)
        self.closure = self._closure_optimizer(config)
        self.clock = Clock()
        self.accumulation = make_accumulation(config, self.clock)
        count = None if steps_per_epoch is None else self._counting(steps_per_epoch, config)
        self.scheduler = make_lr_scheduler(config, list(self.optimizers.values()), log, count_updates=count)
        self.averaging = WeightAveraging.from_config(config, params, self.optimizers.values(), log, trained=trainable)
        self.rates = Rates(self.optimizers, self.scheduler, step_learning_rate(config, network, self.clock))
        self.rates.ask(0, initial_learning_rate)
        self.effective_learning_rate = initial_learning_rate  # the one of the latest step
        self.epoch_rate = initial_learning_rate  # the epoch's, from which it was made
        self.reset_every = config.int("reset_updater_vars_mod_step", 0) or 0  # steps within the epoch
        self.beside = BesideOptimizer(config, self.params, param_options, network)
        rule = TorchRule if self.written_in_torch else LayerRule
        self.rule = rule(config, log, parts=parts, accumulation=self.accumulation)
        # (own gradients, parameters) -> those of all processes, where several train together
        self.combine: Callable[[Gradients, Mapping[str, Tensor]], Gradients] = lambda own, params: own
        self.loss_scale: LossScale | None = None
        self.by_backward = False  # gradients by a backward pass over all parameters
        if self.closure is not None and self.rule.invalid.allowed is not None:
            raise ConfigError(INVALID_STEPS, f"must not be set with {self.closure.name}, which takes a closure")

    def scale_by(self, scale: LossScale) -> None:
        """Lets this scale the objective. ConfigError where the objective is differentiated in other ways."""
        if self.needs_objective:
            by = self.closure.name if self.closure is not None else "maximize_grad_norm"
            raise ConfigError(SCALER, f"cannot be used together with {by}")
        self.loss_scale, self.rule.accepts = scale, scale.may_step
        self.rule.invalid.allowed = None  # which of them are left out is up to the scale

    def _counting(self, steps_per_epoch: Callable[[], int], config: Config) -> Count:
        """Counts the updates from an epoch to the end of the run, where all epochs have as many steps as the first."""
        epochs = config.int("num_epochs", 5) or 0
        return lambda first: self.accumulation.count(self.groups, self.clock, steps_per_epoch(), first, epochs)

    # --- epochs -------------------------------------------------------------------------------------------------------

    def start_epoch(self, epoch: int, score: float | None = None) -> None:
        """Begins an epoch; `score` is what the one before reached, None if that is not known. Lower is better."""
        self.clock.epoch, self.clock.complete = epoch, 0.0
        self.rule.start_epoch()
        if self.scheduler is not None:
            self.scheduler.start(epoch, score)
        if self.averaging is not None:
            self.averaging.start_epoch(epoch)
        for optimizer in self.optimizers.values():
            optimizer.start_epoch(epoch, score)
        if any(optimizer.frozen_until > epoch for optimizer in self.optimizers.values()):
            frozen = {key for key, optimizer in self.optimizers.items() if optimizer.frozen_until > epoch}
            names = {name for group in self.groups if group.optimizer not in frozen for name in group.names}
            self._set_active({name: param for name, param in self.params.items() if name in names})
        else:
            self._set_active(self.params)

    def _set_active(self, params: dict[str, Tensor]) -> None:
        self.active = params
        if self.held is not None:
            self.held.update(params)

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
    def needs_objective(self) -> bool:
        """Whether a step takes more than the gradients of the objective: it is scaled, differentiated twice, or made
        anew."""
        if self.loss_scale is not None:
            return True
        return self.closure is not None or any(group.options.maximize_grad_norm for group in self.groups)

    @property
    def measure(self) -> str | None:
        """The score that the scheduler waits for, if it names one."""
        return None if self.scheduler is None else self.scheduler.measure

    def preview(self, global_step: int, learning_rate: float, complete: float | None = 0.0) -> dict[str, float]:
        """The learning rates of a step and all numbers with a schedule; the step then counts as made.

        `complete`: the part of the epoch that is done with it.
        """
        names = {key: shortened(", ".join(names)) for key, names in self._names_by_optimizer().items()}
        values = self.rates.preview(global_step, learning_rate, names)
        self.skip_step(global_step, complete)
        return values

    def skip_step(self, global_step: int, complete: float | None) -> None:
        """Counts a step as made: schedules go on, parameters stay."""
        self.clock.complete = complete
        self.accumulation.next_step(global_step)
        due = {group.optimizer for group in self.groups if self.accumulation.due(group)}
        for key in due:
            if self.optimizers[key].frozen_until <= self.clock.epoch:
                self.optimizers[key].skip()
        if due and self.scheduler is not None:
            self.scheduler.after_update()

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
        complete: float | None = 0.0,
        gradients: Gradients | None = None,
        show: Callable[[Gradients], None] = lambda gradients: None,
    ) -> None:
        """One training step. Steps count from 0, `global_step` over all epochs; `learning_rate` is the epoch's.

        `complete`: the part of the epoch that is done with it; this step's own rates go by what was done before.
        `evaluate` computes the objective anew, with the same random numbers: for optimizers with a closure.
        `gradients`: those of the objective, by parameter, where they are known already. `show` gets the step's
        gradients, of all processes, before anything is done to them.
        """
        rates, self.effective_learning_rate = self.rates.of_step_and_run(global_step, learning_rate)
        self.clock.complete, self.epoch_rate = complete, learning_rate
        self._reset_by_step(epoch_step)
        self.rates.set_momenta()
        if self.closure is not None and evaluate is not None:
            self._step_by_closure(self.closure, objective, evaluate, global_step, rates)
            applied = True
        else:
            batch = self._batch_gradients(objective, gradients)
            show(batch)
            applied = self._step_by_gradients(batch, global_step, rates)
        if applied:
            self._after_update()
        self.rates.ask(global_step + 1, learning_rate)

    def _after_update(self) -> None:
        if self.scheduler is not None:
            self.scheduler.after_update()
        if self.averaging is not None:
            self.averaging.after_update()

    def _batch_gradients(self, objective: Tensor, known: Gradients | None) -> Gradients:
        """The gradients of the step's batches in all processes."""
        own = self._gradients(objective) if known is None else {n: known[n] for n in self.active if n in known}
        params = self.active
        if self.written_in_torch:
            params = {name: param for name, param in params.items() if param.requires_grad or name in own}
        return self.combine(own, params)

    def _step_by_gradients(self, batch: Gradients, global_step: int, rates: Mapping[str, float]) -> bool:
        """Returns whether an optimizer was applied, which accumulation may put off."""
        due = self.rule.due(batch, global_step)
        with torch.no_grad():
            for key, grads in due.items():
                self.beside.decay(grads)
                self.optimizers[key].apply(self.params, grads, rates[key])
                self.beside.update(grads)
        return bool(due)

    def _step_by_closure(
        self,
        optimizer: Optimizer,
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
            return loss, next(iter(self.rule.due(batch, global_step).values()), {})

        key = next(iter(self.optimizers))
        self.beside.decay(self.active)
        optimizer.apply_closure(self.params, loss_and_gradients, rates[key])

    def _closure_optimizer(self, config: Config) -> Optimizer | None:
        """The optimizer that calls for the loss itself, alone with all parameters."""
        found = [optimizer for optimizer in self.optimizers.values() if optimizer.needs_closure]
        if not found:
            return None
        if len(self.optimizers) > 1:
            raise ConfigError(
                "optimizer", f"{found[0].name} takes a closure, so it must be the only one, without groups"
            )
        fixed = {group.options.accum_grad_multiple_step for group in self.groups}
        if fixed != {1} or counted_by_function(config):
            raise ConfigError(COUNT, f"must be 1 with {found[0].name}, which takes a closure")
        return found[0]

    def _reset_by_step(self, epoch_step: int) -> None:
        if self.reset_every > 0 and epoch_step % self.reset_every == 0:
            self.log.v5(f"Reset updater vars in step {epoch_step}.")
            for optimizer in self.optimizers.values():
                optimizer.reset()

    def _gradients(self, objective: Tensor) -> Gradients:
        if self.loss_scale is None:
            return self._plain_gradients(objective)
        return self.loss_scale.unscaled(self._plain_gradients(self.loss_scale.scale(objective)))

    def _plain_gradients(self, objective: Tensor) -> Gradients:
        factors = {name: group.options.maximize_grad_norm for group in self.groups for name in group.names}
        if any(factors.values()):
            if self.by_backward:
                text = 'must be 0 with several processes, unless torch_distributed has "reduce_type": "grad_explicit"'
                raise ConfigError("maximize_grad_norm", text)
            free = {name: param for name, param in self.active.items() if param.requires_grad}
            return grad.maximize_norm(grad.gradients(objective, free, create_graph=True), free, factors)
        if self.held is None and not self.by_backward:
            return grad.gradients(objective, self.active)
        found = grad.backward(objective, self.params if self.held is None else self.held.params)
        return {name: found[name] for name in self.active if name in found}

    def reset(self) -> None:
        """Starts anew: optimizer state and accumulated gradients are forgotten."""
        self.accumulation.total.clear()
        for optimizer in self.optimizers.values():
            optimizer.reset()

    def state_dict(self) -> State:
        """Everything a resumed run needs to go on with the same numbers: dicts of numbers, texts and tensors."""
        names = self._names_by_optimizer()
        optimizers = {
            key: {**opt.state_dict(), "params": names[key], "options": fixed_options(opt)}
            for key, opt in self.optimizers.items()
        }
        state = {
            "optimizers": optimizers,
            "accumulated": dict(self.accumulation.total),
            "invalid": self.rule.invalid.count,
        }
        if self.loss_scale is not None:
            state["loss_scale"] = self.loss_scale.state_dict()
        return {**state, **self.schedule_state()}

    def schedule_state(self) -> State:
        """The part of the state that does not end with the network: scheduler and averages."""
        parts = {"scheduler": self.scheduler, "averaging": self.averaging}
        return {name: part.state_dict() for name, part in parts.items() if part is not None}

    def take_over(self, old: "Updater") -> None:
        """From the updater of another network: scheduler, averages, and where the schedules of the optimizers are."""
        self.load_schedule_state(old.schedule_state())
        for key in self.optimizers.keys() & old.optimizers.keys():
            self.optimizers[key].load_position(old.optimizers[key].position())

    def load_schedule_state(self, state: SavedState) -> None:
        """Takes over `schedule_state`, as far as it is there."""
        for name, part in (("scheduler", self.scheduler), ("averaging", self.averaging)):
            if part is not None and name in state:
                part.load_state_dict(state[name])

    def load_state_dict(self, state: SavedState) -> None:
        """Takes over the state of the parameters whose optimizer is of the same class; the log names the others."""
        self.reset()
        names = self._names_by_optimizer()
        for key, optimizer in self.optimizers.items():
            own = {name: self.params[name] for name in names[key]}
            saved = best_match(key, optimizer.name, own, state["optimizers"])
            new = optimizer.load_state_dict(saved, own) if saved else list(own)
            for line in changed_options(optimizer, saved or {}):
                self.log.v2(line)
            if new:
                self.log.v3(f"optimizer {optimizer.name}: no fitting saved state for {', '.join(new)}")
        for name, value in state["accumulated"].items():
            if name in self.params and value.shape == self.params[name].shape:
                self.accumulation.total[name] = value.to(self.params[name].device, copy=True)
        self.rule.invalid.count = state.get("invalid", 0)
        if self.loss_scale is not None and "loss_scale" in state:
            self.loss_scale.load_state_dict(state["loss_scale"])
        self.load_schedule_state(state)

    def _names_by_optimizer(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {key: [] for key in self.optimizers}
        for group in self.groups:
            names[group.optimizer] += group.names
        return names
