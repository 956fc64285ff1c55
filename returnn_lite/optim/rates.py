"""The learning rates of a step, one for every optimizer."""

import math
from collections.abc import Mapping

from returnn_lite.errors import ConfigError
from returnn_lite.optim.dynamic import StepRate
from returnn_lite.optim.lr_scheduler import LRScheduler
from returnn_lite.optim.optimizer import Optimizer


class Rates:
    """Who says the learning rate: the epoch (from outside), the optimizer's own schedule, or `lr_scheduler`; then
    multipliers of the optimizers, and at last `dynamic_learning_rate`."""

    def __init__(self, optimizers: Mapping[str, Optimizer], scheduler: LRScheduler | None, dynamic: StepRate) -> None:
        self.optimizers, self.lr_scheduler, self.dynamic = optimizers, scheduler, dynamic
        self.absolute = {key for key, made in optimizers.items() if made.learning_rate_absolute is not None}
        plain = [
            key for key, made in optimizers.items() if made.learning_rate_multiplier == 1 and key not in self.absolute
        ]
        self.common = next(iter(plain or optimizers))  # the optimizer whose learning rate is that of the run

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

    def before_dynamic(self, learning_rate: float) -> dict[str, float]:
        """By optimizer, from the epoch's learning rate."""
        found = {}
        for key, optimizer in self.optimizers.items():
            own = optimizer.own_rate()
            found[key] = optimizer.rate(learning_rate if own is None else own)
        scheduler = self.scheduler
        for key, group in zip(found, scheduler.values() if scheduler is not None else (), strict=scheduler is not None):
            if scheduler is not None and key not in self.absolute:
                found[key] = group["lr"] if scheduler.mode == "replace" else found[key] * group["lr"]
        return found

    def of_step(self, global_step: int, learning_rate: float) -> dict[str, float]:
        """By optimizer, from the epoch's learning rate."""
        found = self.before_dynamic(learning_rate)
        for rate in found.values():
            if not math.isfinite(rate):
                option = "lr_scheduler" if self.scheduler is not None else "learning_rate"
                raise ConfigError(option, f"the learning rate must be finite, but is {rate} in step {global_step}")
        known = {base: self.dynamic(global_step, base) for base in set(found.values())}
        return {key: base if key in self.absolute else known[base] for key, base in found.items()}

    def common_of_step(self, global_step: int, learning_rate: float) -> float:
        """That of parameters without a multiplier."""
        return self.of_step(global_step, learning_rate)[self.common]

    def of_epoch(self, learning_rate: float) -> float:
        """What the learning rate file is to record at the start of an epoch."""
        return self.before_dynamic(learning_rate)[self.common] if self.owned else learning_rate

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
        rates = self.of_step(global_step, learning_rate)
        values = {"learning_rate": rates[self.common]}
        if len(set(rates.values())) > 1:
            values = {f"learning_rate of {names[key]}": rate for key, rate in rates.items()}
        if self.scheduler is not None and self.scheduler.proxy.cycles_momentum:
            values.update((name, value) for name, value in self.scheduler.values()[0].items() if name != "lr")
        for optimizer in self.optimizers.values():
            values |= optimizer.scheduled()
        return values
