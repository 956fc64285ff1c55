"""The learning rates of a step, one for every optimizer."""

import math
from collections.abc import Mapping

from returnn_lite.errors import ConfigError
from returnn_lite.optim.dynamic import AskedRate, StepRate
from returnn_lite.optim.lr_scheduler import LRScheduler
from returnn_lite.optim.optimizer import Optimizer


class Rates:
    """Who says the learning rate: the epoch (from outside), the optimizer's own schedule, or `lr_scheduler`; then
    `dynamic_learning_rate`, and at last multipliers of the optimizers. `common`: the optimizer whose learning rate,
    without its multiplier, is that of the run."""

    def __init__(self, optimizers: Mapping[str, Optimizer], scheduler: LRScheduler | None, dynamic: StepRate) -> None:
        self.optimizers, self.lr_scheduler, self.dynamic = optimizers, scheduler, dynamic
        self.absolute = {key for key, made in optimizers.items() if made.learning_rate_absolute is not None}
        plain = [
            key for key, made in optimizers.items() if made.learning_rate_multiplier == 1 and key not in self.absolute
        ]
        self.common = next(iter(plain or optimizers))

    @property
    def scheduler(self) -> LRScheduler | None:
        """The scheduler, once it is in force."""
        return self.lr_scheduler if self.lr_scheduler is not None and self.lr_scheduler.started else None

    @property
    def owned(self) -> bool:
        """Whether a scheduler or an optimizer says the learning rate, and not the epoch."""
        scheduled = self.scheduler is not None and self.scheduler.mode == "replace"
        return scheduled or self._by_optimizers

    @property
    def change_within_epochs(self) -> bool:
        """Whether a scheduler or an optimizer sets the learning rate at every step."""
        return self.lr_scheduler is not None and self.lr_scheduler.per_step or self._by_optimizers

    @property
    def _by_optimizers(self) -> bool:
        return any(optimizer.own_rate() is not None for optimizer in self.optimizers.values())

    def before_dynamic(self, learning_rate: float) -> dict[str, tuple[float, float]]:
        """By optimizer, from the epoch's learning rate: what `dynamic_learning_rate` gets, and the factor on what it
        gives. The values of a scheduler in place of the epoch's contain the factor."""
        found = {}
        for key, optimizer in self.optimizers.items():
            own = optimizer.own_rate()
            found[key] = learning_rate if own is None else own, optimizer.rate(1.0)
            if optimizer.learning_rate_absolute is not None:
                found[key] = optimizer.learning_rate_absolute, 1.0
        scheduler = self.scheduler
        for key, group in zip(found, scheduler.values() if scheduler is not None else (), strict=scheduler is not None):
            if scheduler is not None and key not in self.absolute:
                base, factor = found[key]
                found[key] = (group["lr"], 1.0) if scheduler.mode == "replace" else (base * group["lr"], factor)
        return found

    def of_step(self, global_step: int, learning_rate: float) -> dict[str, float]:
        """By optimizer, from the epoch's learning rate."""
        return self.of_step_and_run(global_step, learning_rate)[0]

    def of_step_and_run(self, global_step: int, learning_rate: float) -> tuple[dict[str, float], float]:
        """By optimizer, from the epoch's learning rate; and that of parameters without a multiplier."""
        found = self.before_dynamic(learning_rate)
        for base, factor in found.values():
            if not math.isfinite(base * factor):
                rate, option = base * factor, "lr_scheduler" if self.scheduler is not None else "learning_rate"
                raise ConfigError(option, f"the learning rate must be finite, but is {rate} in step {global_step}")
        known = {base: self.dynamic(global_step, base) for base in dict.fromkeys(base for base, _ in found.values())}
        rates = {key: base if key in self.absolute else known[base] * factor for key, (base, factor) in found.items()}
        return rates, rates[self.common] if self._is_plain else known[found[self.common][0]]

    def ask(self, global_step: int | None, learning_rate: float) -> None:
        """Lets a function of the config say the rate of this step (None: of the one that it was asked for last)."""
        if isinstance(self.dynamic, AskedRate) and not self.owned:
            self.dynamic.ask(self.dynamic.step if global_step is None else global_step, learning_rate)

    @property
    def _is_plain(self) -> bool:
        return self.common in self.absolute or self.optimizers[self.common].learning_rate_multiplier == 1

    def common_of_step(self, global_step: int, learning_rate: float) -> float:
        """That of parameters without a multiplier."""
        return self.of_step_and_run(global_step, learning_rate)[1]

    def of_epoch(self, learning_rate: float) -> float:
        """What the learning rate file is to record at the start of an epoch."""
        base, factor = self.before_dynamic(learning_rate)[self.common]
        return (base * factor if self._is_plain else base) if self.owned else learning_rate

    def set_momenta(self) -> None:
        """Gives the optimizers the momentum that a scheduler cycles."""
        if self.scheduler is None or not self.scheduler.proxy.cycles_momentum:
            return
        for optimizer, group in zip(self.optimizers.values(), self.scheduler.values(), strict=True):
            for name, value in group.items():
                if name != "lr":
                    optimizer.set_option(name, value)

    def preview(self, global_step: int, learning_rate: float, names: Mapping[str, str]) -> dict[str, float]:
        """The learning rates of a step and all numbers with a schedule.

        `names`: what the optimizers are called where their learning rates differ.
        """
        rates, of_run = self.of_step_and_run(global_step, learning_rate)
        values = {"learning_rate": of_run}
        if len(set(rates.values())) > 1:
            values = {f"learning_rate of {names[key]}": rate for key, rate in rates.items()}
        if self.scheduler is not None and self.scheduler.proxy.cycles_momentum:
            values.update((name, value) for name, value in self.scheduler.values()[0].items() if name != "lr")
        for optimizer in self.optimizers.values():
            values |= optimizer.scheduled()
        return values
