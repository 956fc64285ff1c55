"""Schedules of hyper-parameters: numbers that depend on a step, from 0 on. All in double precision.

A config writes {"@schedules": "warmup_linear.v1", "initial_rate": 0.05, ...}, a list (one value a step, the last one
stays), a function of the step, an iterator, a dict of a torch scheduler ({"class": "StepLR", ...}), or a number.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from returnn_lite.config.numbers import finite
from returnn_lite.config_value import ConfigDict, ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.optim.scheduler_proxy import SchedulerProxy
from returnn_lite.optim.state import SavedState, State

Score = tuple[int, float]  # (the step at which it was known, the score: higher is better)


class Schedule:
    """A number by step. `per_epoch`: steps are epochs (from 0), else updates."""

    name: ClassVar[str] = ""
    per_epoch: bool = False

    def __call__(self, step: int, score: Score | None = None) -> float:
        if step < 0:
            raise ValueError(f"Step must be non-negative, was: {step}")
        return self.value(step, score)

    def value(self, step: int, score: Score | None) -> float:
        """The value at a step that is not negative."""
        raise NotImplementedError(f"{type(self).__name__}.value")

    def to_generator(self, start: int = 0, step_size: int = 1) -> Iterator[float]:
        """The values at start, start + step_size, …; without an end."""
        if start < 0 or step_size < 0:
            raise ValueError(f"start and step_size must not be negative, but are {start} and {step_size}")
        step = start
        while True:
            yield self(step)
            step += step_size

    def state(self) -> State:
        """What a schedule remembers besides the step; most nothing."""
        return {}

    def load(self, state: SavedState) -> None:
        """Takes over `state`."""


SCHEDULES: dict[str, type[Schedule]] = {}
S = TypeVar("S", bound=type[Schedule])


def schedule(name: str) -> Callable[[S], S]:
    """Registers a schedule under its config name."""

    def register(cls: S) -> S:
        cls.name = name
        SCHEDULES[name] = cls
        return cls

    return register


@schedule("constant.v1")
class Constant(Schedule):
    """rate."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def value(self, step: int, score: Score | None) -> float:
        return self.rate


@schedule("constant_then.v1")
class ConstantThen(Schedule):
    """rate for `steps` steps, then schedule(step): the step is not counted anew."""

    def __init__(self, rate: float, steps: int, schedule: Schedule) -> None:
        self.rate, self.steps, self.schedule = rate, steps, schedule

    def value(self, step: int, score: Score | None) -> float:
        return self.rate if step < self.steps else self.schedule(step, score)

    def state(self) -> State:
        return self.schedule.state()

    def load(self, state: SavedState) -> None:
        self.schedule.load(state)


@schedule("decaying.v1")
class Decaying(Schedule):
    """base_rate / (1 + decay (step + t))."""

    def __init__(self, base_rate: float, decay: float, t: float = 0.0) -> None:
        self.base_rate, self.decay, self.t = base_rate, decay, t

    def value(self, step: int, score: Score | None) -> float:
        return self.base_rate * (1.0 / (1.0 + self.decay * (step + self.t)))


@schedule("compounding.v1")
class Compounding(Schedule):
    """start compound^(step + t), not beyond stop."""

    def __init__(self, start: float, stop: float, compound: float, t: float = 0.0) -> None:
        self.start, self.stop, self.compound, self.t = start, stop, compound, t

    def value(self, step: int, score: Score | None) -> float:
        try:
            value = float(self.start * self.compound ** (step + self.t))
            return max(value, self.stop) if self.start > self.stop else min(value, self.stop)
        except OverflowError:
            return self.stop


@schedule("warmup_linear.v1")
class WarmupLinear(Schedule):
    """Linearly from 0 to initial_rate in warmup_steps, then linearly to 0 at total_steps."""

    def __init__(self, initial_rate: float, warmup_steps: int, total_steps: int) -> None:
        self.initial_rate, self.warmup, self.total = initial_rate, warmup_steps, total_steps

    def value(self, step: int, score: Score | None) -> float:
        if step < self.warmup:
            factor = step / max(1, self.warmup)
        else:
            factor = max(0.0, (self.total - step) / max(1.0, self.total - self.warmup))
        return factor * self.initial_rate


@schedule("slanted_triangular.v1")
class SlantedTriangular(Schedule):
    """Up to max_rate in cut_frac of num_steps, then slowly down to max_rate / ratio.  (Howard and Ruder 2018)"""

    def __init__(self, max_rate: float, num_steps: int, cut_frac: float = 0.1, ratio: int = 32, t: float = 0.0) -> None:
        self.max_rate, self.cut_frac, self.ratio, self.t = max_rate, cut_frac, ratio, t
        self.cut = int(num_steps * cut_frac)
        if self.cut < 1:
            raise ValueError(f"num_steps * cut_frac must be at least 1, but is {num_steps * cut_frac} instead")

    def value(self, step: int, score: Score | None) -> float:
        u = step + self.t + 1
        p = u / self.cut if u < self.cut else 1 - (u - self.cut) / (self.cut * (1 / self.cut_frac - 1))
        return self.max_rate * (1 + p * (self.ratio - 1)) * (1 / self.ratio)


@schedule("cyclic_triangular.v1")
class CyclicTriangular(Schedule):
    """From min_lr to max_lr in `period` steps, and back in as many.  (Smith 2017)"""

    def __init__(self, min_lr: float, max_lr: float, period: int) -> None:
        self.min_lr, self.max_lr, self.period = min_lr, max_lr, period

    def value(self, step: int, score: Score | None) -> float:
        i = step + 1
        cycle = math.floor(1 + i / (2 * self.period))
        x = abs(i / self.period - 2 * cycle + 1)
        return self.min_lr + (self.max_lr - self.min_lr) * max(0, 1 - x)


@schedule("plateau.v1")
class Plateau(Schedule):
    """scale^P schedule(step), P = number of times that max_patience scores in a row were no better than the best."""

    def __init__(self, max_patience: int, scale: float, schedule: Schedule) -> None:
        self.max_patience, self.scale, self.schedule = max_patience, scale, schedule
        self.plateaus = self.patience = 0
        self.best: float | None = None
        self.seen: int | None = None  # the step of the latest score

    def value(self, step: int, score: Score | None) -> float:
        if score is not None:
            self._look(*score)
        return self.scale**self.plateaus * self.schedule(step, score)

    def _look(self, at: int, score: float) -> None:
        if self.seen is not None and at < self.seen:
            raise ValueError(f"Expected score with step >= {self.seen}, was: {at}")
        if self.best is None or score > self.best:
            self.best, self.patience = score, 0
        elif self.seen is None or at > self.seen:
            self.patience += 1
            if self.patience == self.max_patience:
                self.plateaus, self.patience = self.plateaus + 1, 0
        self.seen = at

    def state(self) -> State:
        own = {"plateaus": self.plateaus, "patience": self.patience, "best": self.best, "seen": self.seen}
        return {**own, "schedule": self.schedule.state()}

    def load(self, state: SavedState) -> None:
        for name in ("plateaus", "patience", "best", "seen"):
            setattr(self, name, state.get(name, getattr(self, name)))
        self.schedule.load(state.get("schedule", {}))


class Replay:
    """The items of an iterator, any number of times."""

    def __init__(self, iterator: Iterator[float]) -> None:
        self.iterator, self.known = iterator, list[float]()

    def __iter__(self) -> Iterator[float]:
        at = 0
        while True:
            if at == len(self.known):
                try:
                    self.known.append(next(self.iterator))
                except StopIteration:
                    return
            yield self.known[at]
            at += 1


def replayed(value: ConfigValue) -> ConfigValue:
    """A config value with a `Replay` in place of every iterator, such that several schedules can be made of it."""
    if isinstance(value, Mapping):
        return {key: replayed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [replayed(item) for item in value]
    return Replay(value) if isinstance(value, Iterator) else value


class Listed(Schedule):
    """The step's item of a list or iterator; after its end the last one. Steps of an iterator may not go back."""

    def __init__(self, items: Iterable[float], path: str = "schedule") -> None:
        self.iterator, self.path = iter(items), path
        self.last, self.taken, self.latest = 0.0, 0, 0
        self._take()
        if not self.taken:
            raise ValueError("must have at least one value")

    def _number(self, item: ConfigValue) -> float:
        try:
            return finite(self.path, item)
        except ConfigError as error:
            raise ConfigError(self.path, f"must be a list of numbers, but entry {self.taken} {error.message}") from None

    def _take(self) -> bool:
        for item in self.iterator:
            self.last, self.taken = self._number(item), self.taken + 1
            return True
        return False

    def value(self, step: int, score: Score | None) -> float:
        if step < self.latest:
            raise ValueError(f"'step' value is always expected to increase, but is {step} after {self.latest}")
        self.latest = step
        while self.taken <= step and self._take():
            pass
        return self.last


class OfSteps(Schedule):
    """A function of the step."""

    def __init__(self, function: Callable[[int], float], path: str = "schedule") -> None:
        self.function, self.path = function, path

    def value(self, step: int, score: Score | None) -> float:
        found = self.function(step)
        try:
            return finite(self.path, float(found))
        except (ConfigError, TypeError, ValueError):
            text = "the function must return a finite number"
            raise ConfigError(self.path, f"{text}, but returned {found!r} for {step}") from None


class OfTorch(Schedule):
    """A torch scheduler on the number `start`, which is what its factors act upon."""

    def __init__(self, options: ConfigDict, path: str) -> None:
        self.given, self.path = dict(options), path
        self.start = float(self.given.pop("start", 1.0))
        self.proxy = self.new_proxy()

    def new_proxy(self) -> SchedulerProxy:
        """The scheduler as it begins."""
        return SchedulerProxy(self.given, [{"lr": self.start}], self.path)

    def value(self, step: int, score: Score | None) -> float:
        if step < self.proxy.count:
            self.proxy = self.new_proxy()
        while self.proxy.count < step and self.proxy.step():
            pass
        return self.proxy.values()[0]["lr"]


# --- from the config --------------------------------------------------------------------------------------------------

KEY = "@schedules"


def make_schedule(value: ConfigValue, path: str) -> Schedule:
    """The schedule that a config value describes. ConfigError with the path inside of it."""
    if isinstance(value, Schedule):
        return value
    if isinstance(value, bool | int | float):
        return Constant(finite(path, float(value)))
    if isinstance(value, Mapping):
        return _from_dict(dict(value), path)
    try:
        if isinstance(value, list | tuple | Iterator | Replay):
            return Listed(value, path)
    except (TypeError, ValueError) as error:
        raise ConfigError(path, f"must be a list of numbers, but {error}") from None
    if callable(value):
        return OfSteps(value, path)
    name = path.rpartition('["')[2].removesuffix('"]')
    raise ConfigError(path, f"Invalid schedule for {name!r} ({type(value)}): {value!r}")


def _from_dict(options: ConfigOptions, path: str) -> Schedule:
    interval = options.pop("interval", "step")
    if interval not in ("step", "epoch"):
        raise ConfigError(f'{path}["interval"]', f'must be "step" or "epoch", but is {interval!r} instead')
    made = OfTorch(options, path) if "class" in options else _registered(options, path)
    made.per_epoch = interval == "epoch"
    return made


def _registered(options: ConfigOptions, path: str) -> Schedule:
    cls = schedule_class(options, path)
    given = {key: value for key, value in options.items() if key != KEY}
    accepted = inspect.signature(cls).parameters
    for key in given:
        if key not in accepted:
            hint = did_you_mean(key, accepted)
            raise ConfigError(
                f'{path}["{key}"]', f"unknown option of {cls.name}{hint} (options: {', '.join(accepted)})"
            )
    for key, parameter in accepted.items():
        if key not in given and parameter.default is parameter.empty:
            raise ConfigError(path, f'{cls.name} needs the option "{key}"')
    made = {key: _argument(key, value, f'{path}["{key}"]') for key, value in given.items()}
    try:
        return cls(**made)
    except (TypeError, ValueError) as error:
        raise ConfigError(path, f"{cls.name}: {error}") from None


def _argument(key: str, value: ConfigValue, path: str) -> Any:
    if key == "schedule":
        return make_schedule(value, path)
    finite(path, value)
    return value


def schedule_class(options: ConfigDict, path: str) -> type[Schedule]:
    """The class behind "@schedules", with or without the version at its end."""
    keys = [key for key in options if isinstance(key, str) and key.startswith("@")]
    if keys != [KEY]:
        hint = did_you_mean(keys[0], [KEY]) if keys else ""
        raise ConfigError(path, f'a schedule needs one key "{KEY}", but has {keys or "none"}{hint}')
    name = options[KEY]
    known = SCHEDULES if name in SCHEDULES else {key.removesuffix(".v1"): cls for key, cls in SCHEDULES.items()}
    if name not in known:
        hint = did_you_mean(str(name), [*SCHEDULES, *known])
        raise ConfigError(f'{path}["{KEY}"]', f"unknown schedule {name!r}{hint} (known: {', '.join(SCHEDULES)})")
    return known[name]
