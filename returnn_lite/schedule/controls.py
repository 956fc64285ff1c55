"""The controls: what the learning rate of an epoch without a record is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from returnn_lite.errors import ConfigError

if TYPE_CHECKING:
    from .control import LearningRateControl

Control = Callable[["LearningRateControl", int], float]
CONTROLS: dict[str, Control] = {}


def control(*names: str) -> Callable[[Control], Control]:
    """Registers a control under its config names."""

    def register(function: Control) -> Control:
        CONTROLS.update(dict.fromkeys(names, function))
        return function

    return register


@control("constant")
def constant(history: LearningRateControl, epoch: int) -> float:
    """The latest learning rate."""
    rate = history.last_rate(epoch)
    return history.options.learning_rate if rate is None else rate


@control("newbob", "newbob_rel", "newbob_relative")
def newbob_relative(history: LearningRateControl, epoch: int) -> float:
    """Decay if the relative error between the last two epochs is above the threshold, else growth."""
    return _newbob(history, epoch, history.relative_error, history.options.relative_threshold)


@control("newbob_abs")
def newbob_absolute(history: LearningRateControl, epoch: int) -> float:
    """The same with the difference of the scores."""
    return _newbob(history, epoch, history.difference, history.options.absolute_threshold)


def _newbob(
    history: LearningRateControl, epoch: int, change: Callable[[int, int], float | None], threshold: float
) -> float:
    rate, last = constant(history, epoch), history.last_epochs(epoch, 2)
    worse = change(*last) if len(last) == 2 else None
    if worse is None:
        return rate
    return history.decayed(rate) if worse > threshold else history.options.growth(rate)


@control("newbob_multi_epoch")
def newbob_multi_epoch(history: LearningRateControl, epoch: int) -> float:
    """Every `multi_interval` epochs: by the mean of the relative errors within the last `multi_epochs` + 1."""
    options, rate = history.options, constant(history, epoch)
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


@control("learned")
def learned(history: LearningRateControl, epoch: int) -> float:
    """What a trained agent says, after the scores and gradients so far."""
    if history.agent is None:
        raise ConfigError("learning_rate_agent", 'there must be an agent with learning_rate_control = "learned"')
    return history.agent.rate(history, epoch)
