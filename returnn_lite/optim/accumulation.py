"""Which steps end in an update, and the gradients summed until then (`accum_grad_multiple_step`)."""

from collections.abc import Callable, Iterable

import numpy as np
from torch import Tensor

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.optim.dynamic import Clock
from returnn_lite.optim.gradients import Gradients
from returnn_lite.optim.groups import COUNT, ParamGroup, counted_by_function

Every = Callable[[int], int]  # global step (from 0) -> the number of steps of an update


class Accumulation:
    """Nets of layers: the steps up to a global step s with s mod N = N - 1 make an update, N by group.

    What is left at the end of an epoch is the beginning of the first update of the next one.
    """

    def __init__(self) -> None:
        self.total: Gradients = {}  # by parameter, dense
        self.global_step = 0

    def start_epoch(self) -> None:
        """Begins an epoch."""

    def next_step(self, global_step: int) -> None:
        """Begins a step; to be called once for each."""
        self.global_step = global_step

    def begins(self, group: ParamGroup) -> bool:
        """Whether an update of the group begins with this step."""
        return self.global_step % group.options.accum_grad_multiple_step == 0

    def due(self, group: ParamGroup) -> bool:
        """Whether an update of the group ends with this step."""
        return group.options.applies_at(self.global_step)

    def add(self, group: ParamGroup, batch: Gradients) -> Gradients:
        """The sum of the group's gradients in the steps of its update so far, this one included."""
        own = {name: batch[name] for name in group.names if name in batch}
        if self.begins(group):
            if self.due(group):
                return own
            for name in group.names:
                self.total.pop(name, None)
        for name, value in own.items():
            self._add_one(name, value)
        return {name: self.total[name] for name in group.names if name in self.total}

    def _add_one(self, name: str, value: Tensor) -> None:
        if name in self.total:
            self.total[name].add_(value)
        else:
            self.total[name] = value.to_dense() if value.is_sparse else value.clone()

    def count(self, groups: Iterable[ParamGroup], clock: Clock, batches: int, first: int, last: int) -> int:
        """The number of steps that end in an update of some parameters, in these epochs of a run with so many batches
        each."""
        steps = np.arange(batches * (first - 1), batches * last)
        ends = np.zeros(len(steps), bool)
        for every in {group.options.accum_grad_multiple_step for group in groups}:
            ends |= steps % every == every - 1
        return int(ends.sum())


class SinceUpdate(Accumulation):
    """Models written in torch, or N by a function: an update ends with the step that is the N-th since the last one.

    N: asked for at every step. What is left at the end of an epoch is dropped.
    """

    def __init__(self, every: Every) -> None:
        super().__init__()
        self.every = every
        self.start_epoch()

    def start_epoch(self) -> None:
        self.total.clear()
        self.steps, self.ended = 0, True  # since the last update; whether the last step ended in one

    def next_step(self, global_step: int) -> None:
        super().next_step(global_step)
        if self.ended:
            self.total.clear()
            self.steps = 0
        self.steps += 1
        self.ended = self.steps >= self.every(global_step)

    def begins(self, group: ParamGroup) -> bool:
        return self.steps == 1

    def due(self, group: ParamGroup) -> bool:
        return self.ended

    def count(self, groups: Iterable[ParamGroup], clock: Clock, batches: int, first: int, last: int) -> int:
        rule, found, before = SinceUpdate(self.every), 0, (clock.epoch, clock.complete)
        for epoch in range(first, last + 1):
            rule.start_epoch()
            for batch in range(batches):
                clock.epoch, clock.complete = epoch, (batch + 1) / batches
                rule.next_step((epoch - 1) * batches + batch)
                found += rule.ended
        clock.epoch, clock.complete = before
        return found


def make_accumulation(config: Config, clock: Clock) -> Accumulation:
    """The rule for the config's kind of model; N may be a function, which makes it that of models written in torch.

    It is called as f(epoch=, epoch_continuous=, global_train_step=, **kwargs). ConfigError if it gives no number.
    """
    value = config.typed_value(COUNT)
    if not counted_by_function(config):
        if config.value("backend", None) != "torch":
            return Accumulation()
        every = max(config.int(COUNT, 1) or 1, 1)
        return SinceUpdate(lambda global_step: every)

    def of_step(global_step: int) -> int:
        found = value(epoch=clock.epoch, epoch_continuous=clock.epoch_continuous, global_train_step=global_step)
        if isinstance(found, bool) or not isinstance(found, int) or found < 1:
            raise ConfigError(COUNT, f"the function must return a whole number from 1 on, but returned {found!r}")
        return found

    return SinceUpdate(of_step)
