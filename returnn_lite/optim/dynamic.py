"""`dynamic_learning_rate`: the learning rate of a step, from that of the epoch."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from returnn_lite.config import Config
from returnn_lite.config.numbers import finite, whole
from returnn_lite.config_value import ConfigFunction
from returnn_lite.errors import ConfigError

OPTION, PIECEWISE = "dynamic_learning_rate", "learning_rate_piecewise"
StepRate = Callable[[int, float], float]  # global step (from 0), learning rate of the epoch -> that of the step


class Step(int):
    """A step number. Published schedules raise step 0 to a negative power: infinite here, an error with a plain int."""

    def __pow__(self, exponent: Any, modulo: Any = None) -> Any:
        """self ** exponent; inf for 0 to a negative power."""
        if modulo is None and self == 0 and exponent < 0:
            return math.inf
        return pow(int(self), exponent, modulo)


@dataclass
class Clock:
    """Where a run is: the epoch, from 1, and which part of it is done; None where nobody knows how long it is."""

    epoch: int = 1
    complete: float | None = 0.0

    @property
    def epoch_continuous(self) -> float | None:
        """Epochs that have passed: 1.5 in the middle of epoch 2; None if that is not known."""
        return None if self.complete is None else self.epoch - 1 + self.complete


def step_learning_rate(config: Config, network: object = None, clock: Clock | None = None) -> StepRate:
    """The function that the option describes; without it the epoch's learning rate stays."""
    value = config.typed_value(OPTION, None)
    if value is None:
        return piecewise(config, clock or Clock()) or (lambda step, learning_rate: learning_rate)
    if callable(value):
        if config.value("backend", None) != "torch":
            return _by_function(value, network, None)
        clock = clock or Clock()
        return AskedRate(_by_function(value, network, clock), clock)
    if isinstance(value, Mapping) and set(value) == {"interval", "decay"}:
        interval = whole(f'{OPTION}["interval"]', value["interval"], low=1)
        decay = finite(f'{OPTION}["decay"]', value["decay"], low=0)
        return lambda step, learning_rate: learning_rate * decay ** (step % interval)
    raise ConfigError(OPTION, f'must be a function or a dict with "interval" and "decay", but is {value!r} instead')


class AskedRate:
    """A function of a config for models written in torch: it is asked at the start, when an epoch gets its rate (still
    where the run was before), when the epoch begins, and after every batch. In between, what it said last holds."""

    def __init__(self, function: StepRate, clock: Clock) -> None:
        self.function, self.clock = function, clock
        self.step = 0  # where it was asked last
        self.at: tuple[int, int, float | None] | None = None
        self.known: dict[float, float] = {}

    def __call__(self, step: int, learning_rate: float) -> float:
        at = step, self.clock.epoch, self.clock.complete
        if at != self.at:
            self.step, self.at, self.known = step, at, {}
        if learning_rate not in self.known:
            self.known[learning_rate] = self.function(step, learning_rate)
        return self.known[learning_rate]

    def ask(self, step: int, learning_rate: float) -> None:
        """Asks, whatever is known."""
        self.at = None
        self(step, learning_rate)


def piecewise(config: Config, clock: Clock) -> StepRate | None:
    """`learning_rate_piecewise_steps` and `_values`: the epoch's rate times a factor that is linear between these steps
    (or, with `_by_epoch_continuous`, epochs that are done), and constant outside. None without them. ConfigError for
    lists that do not fit, or where nobody knows how much of an epoch is done."""
    steps, values = (config.opt_typed_value(f"{PIECEWISE}_{part}") for part in ("steps", "values"))
    if steps is None and values is None:
        return None
    for part, given in (("steps", steps), ("values", values)):
        if not isinstance(given, list | tuple) or not given:
            raise ConfigError(f"{PIECEWISE}_{part}", f"must be a list of numbers, but is {given!r} instead")
    points, factors = (
        [finite(f"{PIECEWISE}_{part}", x, low=0) for x in given]
        for part, given in (("steps", steps), ("values", values))
    )
    if len(points) != len(factors) or points != sorted(points):
        text = f"must be as many as `{PIECEWISE}_values`, in ascending order, but are {points} and {factors}"
        raise ConfigError(f"{PIECEWISE}_steps", text)
    by_epoch = config.is_true(f"{PIECEWISE}_by_epoch_continuous")

    def rate(step: int, learning_rate: float) -> float:
        at = clock.epoch_continuous if by_epoch else step
        if at is None:
            raise ConfigError(f"{PIECEWISE}_by_epoch_continuous", "needs a dataset that knows its number of sequences")
        return learning_rate * float(np.interp(at, points, factors))

    return rate


def _by_function(function: ConfigFunction, network: object, clock: Clock | None) -> StepRate:
    """f(network=, global_train_step=, learning_rate=, **kwargs) -> number, with a clock also of epoch=,
    epoch_continuous=.

    The step is passed as a `Step`."""
    parameters = inspect.signature(function).parameters
    if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
        raise ConfigError(OPTION, "the function must take **kwargs (further arguments may be added)")
    if "epoch" in parameters and clock is None:
        text = 'it gets global_train_step and learning_rate (and the epoch with `backend` "torch")'
        raise ConfigError(OPTION, f"the function must not take `epoch`; {text}")

    def rate(step: int, learning_rate: float) -> float:
        epochs = {"epoch": clock.epoch, "epoch_continuous": clock.epoch_continuous} if clock is not None else {}
        found = function(network=network, global_train_step=Step(step), learning_rate=learning_rate, **epochs)
        try:
            return finite(OPTION, float(found), low=0)
        except (ConfigError, TypeError, ValueError):
            text = "the function must return a finite number of at least 0"
            raise ConfigError(OPTION, f"{text}, but returned {found!r} in step {step}") from None

    return rate
