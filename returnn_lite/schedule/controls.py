"""The controls: what the learning rate of an epoch without a record is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log
from returnn_lite.schedule.history import History
from returnn_lite.schedule.options import Options


class Control(ABC):
    """A rule for learning rates. Numbers that all rules share are in the options of the history."""

    @classmethod
    def from_config(cls, config: Config, log: Log) -> Control:
        """The control of a run. Raises ConfigError for options that do not fit."""
        return cls()

    def can_tell(self, history: History, epoch: int) -> bool:
        """Whether the records suffice for `rate`."""
        return True

    @abstractmethod
    def rate(self, history: History, epoch: int) -> float:
        """The learning rate of an epoch, from the records before it."""


ControlClass = TypeVar("ControlClass", bound=type[Control])
CONTROLS: dict[str, type[Control]] = {}


def register_control(*names: str) -> Callable[[ControlClass], ControlClass]:
    """Registers a control under its config names."""

    def register(cls: ControlClass) -> ControlClass:
        CONTROLS.update(dict.fromkeys(names, cls))
        return cls

    return register


def control_class(name: str) -> type[Control]:
    """The control of this name. ConfigError if there is none."""
    if name not in CONTROLS:
        known = ", ".join(CONTROLS)
        text = f'unknown control "{name}"{did_you_mean(name, CONTROLS)} (known: {known})'
        raise ConfigError("learning_rate_control", text)
    return CONTROLS[name]


@register_control("constant")
class Constant(Control):
    """The latest learning rate."""

    def rate(self, history: History, epoch: int) -> float:
        """The latest one, or the config's."""
        rate = history.last_rate(epoch)
        return history.options.learning_rate if rate is None else rate


@register_control("newbob", "newbob_rel", "newbob_relative")
class NewbobRelative(Constant):
    """Decay if the relative error between the last two epochs is above the threshold, else growth."""

    def rate(self, history: History, epoch: int) -> float:
        """By the two last records."""
        rate, last = super().rate(history, epoch), history.last_epochs(epoch, 2)
        worse = self.change(history, *last) if len(last) == 2 else None
        if worse is None:
            return rate
        threshold = self.threshold(history.options)
        return history.decayed(rate) if worse > threshold else history.options.growth(rate)

    def change(self, history: History, old: int, new: int) -> float | None:
        """How much worse the new epoch is than the old one."""
        return history.relative_error(old, new)

    def threshold(self, options: Options) -> float:
        """Above it there is a decay."""
        return options.relative_threshold


@register_control("newbob_abs")
class NewbobAbsolute(NewbobRelative):
    """The same with the difference of the scores."""

    def change(self, history: History, old: int, new: int) -> float | None:
        """The difference."""
        return history.difference(old, new)

    def threshold(self, options: Options) -> float:
        """Of differences."""
        return options.absolute_threshold


@register_control("newbob_multi_epoch")
class NewbobMultiEpoch(Constant):
    """Every `multi_interval` epochs: by the mean of the relative errors within the last `multi_epochs` + 1."""

    def rate(self, history: History, epoch: int) -> float:
        """Decay, growth or neither, by two thresholds."""
        options, rate = history.options, super().rate(history, epoch)
        if options.multi_interval > 1 and epoch % options.multi_interval != 1:
            return rate
        last = history.last_epochs(epoch, options.multi_epochs + 1)
        errors = [history.relative_error(old, new) for old, new in zip(last, last[1:], strict=False)]
        known = [error for error in errors if error is not None]
        if not errors or len(known) < len(errors):
            return rate
        mean = sum(known) / len(known)
        if mean > options.relative_threshold:
            return history.decayed(rate)
        return options.growth(rate) if mean < options.grow_threshold else rate
