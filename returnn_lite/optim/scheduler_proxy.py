"""A torch scheduler on a stand-in: an optimizer of dummies whose groups have the learning rates of the real ones."""

import importlib
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.swa_utils import SWALR

from returnn_lite.config.numbers import finite, whole
from returnn_lite.config_value import ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.optim.state import SavedState, State

Values = dict[str, float]  # of a group: "lr", and "momentum" or "beta1" if it has one

MOMENTUMS = {"momentum", "beta1"}
PER_STEP = ("CyclicLR", "OneCycleLR")  # counted in steps unless the config says otherwise
NOT_OPTIONS = ("self", "optimizer", "last_epoch", "verbose", "schedulers")
NESTED = ("SequentialLR", "ChainedScheduler")
FUNCTIONS = ("lr_lambda", "scale_fn")
KNOWN: dict[str, type] = {
    name: value
    for name, value in vars(torch_schedulers).items()
    if isinstance(value, type) and issubclass(value, torch_schedulers.LRScheduler) and not name.endswith("LRScheduler")
} | {"SWALR": SWALR}


def scheduler_class(value: ConfigValue, path: str) -> type:
    """A scheduler class by its name in torch.optim.lr_scheduler, by a dotted path, or a class."""
    if isinstance(value, type):
        return value
    if not isinstance(value, str):
        raise ConfigError(path, f"must be the name of a scheduler, but is {value!r} instead")
    module, _, name = value.rpartition(".")
    if module in ("", "torch.optim.lr_scheduler", "torch.optim.swa_utils", "lr_scheduler"):
        found = next((cls for known, cls in KNOWN.items() if known.lower() == name.lower()), None)
        if found is None:
            raise ConfigError(
                path, f'unknown scheduler "{value}"{did_you_mean(name, KNOWN)} (known: {", ".join(KNOWN)})'
            )
        return found
    try:
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        raise ConfigError(path, f"cannot import {value!r}: {error}") from None


class SchedulerProxy:
    """The scheduler of a dict {"class": …, options}, or of a list of them (chained), on groups with these values."""

    def __init__(self, value: ConfigValue, groups: Sequence[Values], path: str) -> None:
        self.path, self.groups = path, [dict(group) for group in groups]
        self.optimizer = _dummies(groups)
        options = {"class": "ChainedScheduler", "schedulers": list(value)} if isinstance(value, list | tuple) else value
        self.scheduler = _make(dict(options), self.optimizer, path)
        self.end = _end(self.scheduler)
        self.count = 0
        parts = [self.scheduler, *getattr(self.scheduler, "_schedulers", [])]
        self.cycles_momentum = any(getattr(part, "cycle_momentum", False) for part in parts)
        if self.cycles_momentum and not any(MOMENTUMS & group.keys() for group in groups):
            text = 'cycles the momentum, but the optimizer has none; write "cycle_momentum": False'
            raise ConfigError(path, f"{type(self.scheduler).__name__} {text}")

    @property
    def needs_metric(self) -> bool:
        """Whether `step` wants a score."""
        return isinstance(self.scheduler, torch_schedulers.ReduceLROnPlateau)

    def values(self) -> list[Values]:
        """What is in force now, by group."""
        found = []
        for names, group in zip(self.groups, self.optimizer.param_groups, strict=True):
            everything = {"beta1": group["betas"][0]} if "betas" in group else {}
            found.append({name: float({**group, **everything}[name]) for name in names})
        return found

    def step(self, metric: float | None = None) -> bool:
        """On to the next values; False if they have ended (OneCycleLR), the last ones then stay."""
        if self.end is not None and self.count + 1 >= self.end:
            return False
        self.optimizer.step()  # on no gradients; torch warns without it
        self.scheduler.step(*([metric] if self.needs_metric else []))
        self.count += 1
        return True

    def state_dict(self) -> State:
        """Count, scheduler and groups."""
        groups = [{k: v for k, v in g.items() if k != "params"} for g in self.optimizer.param_groups]
        return {"count": self.count, "scheduler": _plain(self.scheduler.state_dict()), "groups": groups}

    def load_state_dict(self, state: SavedState) -> None:
        """Takes over `state_dict` of a proxy with the same options and as many groups."""
        self.count = state["count"]
        self.scheduler.load_state_dict(dict(state["scheduler"]))
        for group, saved in zip(self.optimizer.param_groups, state["groups"], strict=True):
            group.update(saved)


def _end(scheduler: Any) -> int | None:
    """The number of values there are: a OneCycleLR, also inside of others, has no more than its steps."""
    if not hasattr(scheduler, "_schedulers"):
        return getattr(scheduler, "total_steps", None)
    starts = [0, *getattr(scheduler, "_milestones", [])]
    starts = starts if len(starts) > 1 else [0] * len(scheduler._schedulers)
    ends = [*getattr(scheduler, "_milestones", []), math.inf]
    ends = ends if len(ends) > 1 else [math.inf] * len(starts)
    found = [_end(part) for part in scheduler._schedulers]
    totals = [a + n for a, b, n in zip(starts, ends, found, strict=True) if n is not None and a + n < b]
    return min(totals, default=None)


def _plain(state: Any) -> Any:
    """The state without what only the config can give: functions."""
    if isinstance(state, dict):
        cls = type(state) if type(state) is not dict else dict
        return cls({key: _plain(value) for key, value in state.items()})
    if isinstance(state, list | tuple):
        return type(state)(_plain(value) for value in state)
    return None if callable(state) else state


def _dummies(groups: Sequence[Values]) -> torch.optim.Optimizer:
    params = [{"params": [torch.zeros(0, requires_grad=True)], **_torch_options(group)} for group in groups]
    if any("beta1" in group for group in groups):
        return torch.optim.Adam(params, foreach=False)
    return torch.optim.SGD(params, foreach=False)


def _torch_options(group: Values) -> ConfigOptions:
    beta = {"betas": (group["beta1"], 0.999)} if "beta1" in group else {}
    momentum = {"momentum": group["momentum"]} if "momentum" in group else {}
    return {"lr": group["lr"], **beta, **momentum}


def _make(options: ConfigOptions, optimizer: torch.optim.Optimizer, path: str) -> Any:
    if "class" not in options:
        raise ConfigError(path, f'must have "class", but is {options!r} instead')
    cls = scheduler_class(options.pop("class"), f'{path}["class"]')
    parts = options.pop("schedulers", None)
    accepted = {k: p for k, p in inspect.signature(cls).parameters.items() if k not in NOT_OPTIONS}
    for key in options:
        if key not in accepted:
            hint = did_you_mean(key, accepted)
            raise ConfigError(
                f'{path}["{key}"]', f"{cls.__name__} has no such option{hint} (options: {', '.join(accepted)})"
            )
    for key, parameter in accepted.items():
        if key not in options and parameter.default is parameter.empty:
            raise ConfigError(path, f'{cls.__name__} needs the option "{key}"')
    for key in options:
        if options[key] == "auto":
            text = '"auto" is for the outermost scheduler (or those of a list) of `lr_scheduler`; write a number here'
            raise ConfigError(f'{path}["{key}"]', text)
        _check_value(f'{path}["{key}"]', key, options[key])
    given = {k: _functions(v, f'{path}["{k}"]') if k in FUNCTIONS else v for k, v in options.items()}
    try:
        if cls.__name__ not in NESTED:
            return cls(optimizer, **given)
        made = [
            _make(_inner(part, path), optimizer, f'{path}["schedulers"][{i}]') for i, part in enumerate(parts or [])
        ]
        _check_parts(cls, made, path)
        return cls(optimizer, made, **given) if cls.__name__ == "SequentialLR" else cls(made, optimizer=optimizer)
    except ConfigError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(path, _told(cls, str(error).splitlines()[0])) from None


WHOLE = {"step_size": 1, "T_0": 1, "T_mult": 1, "total_steps": 1, "epochs": 1, "steps_per_epoch": 1} | dict.fromkeys(
    ("total_iters", "patience", "cooldown", "anneal_epochs"), 0
)  # numbers of intervals -> the smallest
POSITIVE = ("T_max", "step_size_up", "step_size_down")
FINITE = (
    "gamma", "factor", "start_factor", "end_factor", "power", "eta_min", "base_lr", "max_lr", "swa_lr", "min_lr", "eps",
    "base_momentum", "max_momentum", "pct_start", "div_factor", "final_div_factor", "threshold",
)  # fmt: skip


def _check_value(path: str, key: str, value: ConfigValue) -> None:
    """ConfigError if an option of a scheduler is no number of its kind; a list has one for each group."""
    for item in value if isinstance(value, list | tuple) else [value]:
        if item is None:
            continue
        if key in WHOLE:
            whole(path, item, WHOLE[key])
        elif key in POSITIVE:
            finite(path, item, above=0)
        elif key in FINITE:
            finite(path, item, low=0)
    if key == "milestones":
        if not isinstance(value, list | tuple):
            raise ConfigError(path, f"must be a list of numbers, but is {value!r} instead")
        for item in value:
            whole(path, item)


def _inner(part: ConfigValue, path: str) -> ConfigOptions:
    """A part without the keys that are said once, outside."""
    if not isinstance(part, Mapping):
        raise ConfigError(f'{path}["schedulers"]', f"must be a list of dicts, but has {part!r}")
    return {key: value for key, value in part.items() if key != "interval"}


def _check_parts(cls: type, made: Sequence[Any], path: str) -> None:
    if not made:
        raise ConfigError(f'{path}["schedulers"]', f"{cls.__name__} needs a list of at least one scheduler")
    if any(isinstance(part, torch_schedulers.ReduceLROnPlateau) for part in made):
        raise ConfigError(
            f'{path}["schedulers"]', f"{cls.__name__} cannot hold ReduceLROnPlateau, which waits for scores"
        )


def _told(cls: type, message: str) -> str:
    if "momentum" in message and "cycle_momentum" in message:
        message += '; write "cycle_momentum": False'
    return f"{cls.__name__}: {message}"


def _functions(value: ConfigValue, path: str) -> Any:
    """Functions as they are, or as text: "lambda e: 0.95**e" (`math`, `numpy` and `np` are known)."""
    if isinstance(value, list | tuple):
        return [_functions(item, path) for item in value]
    if not isinstance(value, str):
        return value
    try:
        function = eval(value, {"math": math, "numpy": np, "np": np})  # a config is trusted code
    except Exception as error:
        raise ConfigError(path, f"cannot evaluate {value!r}: {type(error).__name__}: {error}") from None
    if not callable(function):
        raise ConfigError(path, f"must be a function, but {value!r} is not")
    return function
