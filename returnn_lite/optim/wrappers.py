"""Optimizers around another one: `Lookahead`, and hyper-parameters with schedules."""

from collections.abc import Mapping

from torch import Tensor

from returnn_lite.config_value import ConfigOptions
from returnn_lite.optim.optimizer import RATE_NAMES, Evaluate, Optimizer
from returnn_lite.optim.schedules import Schedule
from returnn_lite.optim.state import SavedState, State


class Wrapper(Optimizer):
    """An optimizer around another one, to which it leaves everything but what a sub-class overrides."""

    def __init__(self, inner: Optimizer) -> None:
        self.inner = inner
        self.name = inner.name
        self.needs_closure = inner.needs_closure

    def bind(self, params: Mapping[str, Tensor]) -> None:
        self.inner.bind(params)

    def start_epoch(self, epoch: int, score: float | None) -> None:
        self.inner.start_epoch(epoch, score)

    def own_rate(self) -> float | None:
        return self.inner.own_rate()

    def options(self) -> ConfigOptions:
        return self.inner.options()

    def set_option(self, name: str, value: float) -> None:
        self.inner.set_option(name, value)

    def before(self) -> None:
        """Before each update."""

    def after(self, params: Mapping[str, Tensor]) -> None:
        """After each update."""

    def apply(self, params: Mapping[str, Tensor], grads: Mapping[str, Tensor], lr: float) -> None:
        if grads:
            self.before()
            self.inner.apply(params, grads, lr)
            self.after(params)

    def apply_closure(self, params: Mapping[str, Tensor], evaluate: Evaluate, lr: float) -> None:
        self.before()
        self.inner.apply_closure(params, evaluate, lr)
        self.after(params)

    def skip(self) -> None:
        self.inner.skip()

    def scheduled(self) -> dict[str, float]:
        return self.inner.scheduled()

    def averages(self) -> dict[str, Tensor]:
        return self.inner.averages()

    def position(self) -> State:
        return self.inner.position()

    def load_position(self, position: SavedState) -> None:
        self.inner.load_position(position)

    def own_state(self) -> State:
        """The wrapper's part of the state."""
        return {}

    def load_own_state(self, state: SavedState, params: Mapping[str, Tensor]) -> None:
        """Takes over `own_state`."""

    def reset(self) -> None:
        self.inner.reset()

    def state_dict(self) -> State:
        return {"class": self.name, "inner": self.inner.state_dict(), **self.own_state()}

    def load_state_dict(self, state: SavedState, params: Mapping[str, Tensor]) -> list[str]:
        self.reset()
        found = self.inner.load_state_dict(state.get("inner", state), params)
        if "inner" in state:
            self.load_own_state(state, params)
        return found


class Lookahead(Wrapper):
    """Every k updates: slow += alpha (w - slow); w = slow. The slow weights start as a copy.  (Zhang et al. 2019)"""

    def __init__(self, inner: Optimizer, k: int, alpha: float = 0.5) -> None:
        super().__init__(inner)
        self.k, self.alpha = k, alpha
        self.params: dict[str, Tensor] = {}
        self._copy()

    def bind(self, params: Mapping[str, Tensor]) -> None:
        super().bind(params)
        self.params = dict(params)
        self._copy()

    def _copy(self) -> None:
        self.count = 0
        self.slow = {name: param.detach().clone() for name, param in self.params.items()}

    def after(self, params: Mapping[str, Tensor]) -> None:
        self.count += 1
        if self.count % self.k == 0:
            for name, slow in self.slow.items():
                slow.lerp_(params[name].detach(), self.alpha)
                params[name].detach().copy_(slow)

    def reset(self) -> None:
        super().reset()
        self._copy()

    def own_state(self) -> State:
        return {"count": self.count, "slow": dict(self.slow)}

    def load_own_state(self, state: SavedState, params: Mapping[str, Tensor]) -> None:
        self.count = state.get("count", 0)
        for name, param in params.items():
            saved = state.get("slow", {}).get(name)
            fits = saved is not None and saved.shape == param.shape
            self.slow[name] = param.detach().clone().copy_(saved if fits else param.detach())


class Scheduled(Wrapper):
    """Sets hyper-parameters by their schedules before each update: to their value at the number of updates so far.

    Schedules with `per_epoch` count epochs. One of the learning rate is the optimizer's `own_rate`.
    """

    def __init__(self, inner: Optimizer, schedules: Mapping[str, Schedule]) -> None:
        super().__init__(inner)
        self.schedules = {name: schedule for name, schedule in schedules.items() if name not in RATE_NAMES}
        self.rate_schedule = next((s for name, s in schedules.items() if name in RATE_NAMES), None)
        self.count, self.epochs = 0, 0
        self.score: tuple[int, float] | None = None
        self.before()

    def value(self, schedule: Schedule) -> float:
        """The schedule's value for the next update."""
        return schedule(self.epochs if schedule.per_epoch else self.count, self.score)

    def start_epoch(self, epoch: int, score: float | None) -> None:
        super().start_epoch(epoch, score)
        self.epochs = epoch - 1
        if score is not None:
            self.score = (self.count, -score if self.plateau_score == "min" else score)

    def own_rate(self) -> float | None:
        return super().own_rate() if self.rate_schedule is None else self.value(self.rate_schedule)

    def before(self) -> None:
        for name, schedule in self.schedules.items():
            self.inner.set_option(name, self.value(schedule))

    def after(self, params: Mapping[str, Tensor]) -> None:
        self.count += 1

    def skip(self) -> None:
        super().skip()
        self.count += 1

    def scheduled(self) -> dict[str, float]:
        return {**super().scheduled(), **{name: self.value(schedule) for name, schedule in self.schedules.items()}}

    def options(self) -> ConfigOptions:
        return {**super().options(), **{name: self.value(schedule) for name, schedule in self.schedules.items()}}

    def set_option(self, name: str, value: float) -> None:
        """An option with a schedule keeps to it."""
        if name not in self.schedules:
            super().set_option(name, value)

    def _all(self) -> dict[str, Schedule]:
        rate = {} if self.rate_schedule is None else {"lr": self.rate_schedule}
        return {**self.schedules, **rate}

    def own_state(self) -> State:
        states = {name: schedule.state() for name, schedule in self._all().items()}
        return {"updates": self.count, "epochs": self.epochs, "score": self.score, "schedules": states}

    def load_own_state(self, state: SavedState, params: Mapping[str, Tensor]) -> None:
        self.count, self.epochs = state.get("updates", 0), state.get("epochs", 0)
        self.score = state.get("score")
        for name, schedule in self._all().items():
            if name in state.get("schedules", {}):
                schedule.load(state["schedules"][name])

    def position(self) -> State:
        return {**super().position(), "scheduled": self.own_state()}

    def load_position(self, position: SavedState) -> None:
        super().load_position(position)
        self.load_own_state(position.get("scheduled", {}), {})
