"""`dynamic_learning_rate`: the learning rate of a step, from that of the epoch."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError

OPTION = "dynamic_learning_rate"
StepRate = Callable[[int, float], float]  # global step (from 0), learning rate of the epoch -> that of the step


class Step(int):
    """A step number. Published schedules raise step 0 to a negative power: infinite here, an error with a plain int."""

    def __pow__(self, exponent: Any, modulo: Any = None) -> Any:
        """self ** exponent; inf for 0 to a negative power."""
        if modulo is None and self == 0 and exponent < 0:
            return math.inf
        return pow(int(self), exponent, modulo)


def step_learning_rate(config: Config, network: Any = None) -> StepRate:
    """The function that the option describes; without it the epoch's learning rate stays."""
    value = config.typed_value(OPTION, None)
    if value is None:
        return lambda step, learning_rate: learning_rate
    if callable(value):
        return _by_function(value, network)
    if isinstance(value, Mapping) and set(value) == {"interval", "decay"}:
        interval, decay = int(value["interval"]), float(value["decay"])
        return lambda step, learning_rate: learning_rate * decay ** (step % interval)
    raise ConfigError(OPTION, f'must be a function or a dict with "interval" and "decay", but is {value!r} instead')


def _by_function(function: Callable[..., Any], network: Any) -> StepRate:
    """f(network=, global_train_step=, learning_rate=, **kwargs) -> number.

    The step is passed as a `Step`."""
    parameters = inspect.signature(function).parameters
    if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
        raise ConfigError(OPTION, "the function must take **kwargs (further arguments may be added)")
    if "epoch" in parameters:
        raise ConfigError(OPTION, "the function must not take `epoch`; it gets global_train_step and learning_rate")

    def rate(step: int, learning_rate: float) -> float:
        return float(function(network=network, global_train_step=Step(step), learning_rate=learning_rate))

    return rate
