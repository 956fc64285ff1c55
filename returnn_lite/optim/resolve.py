"""From the config's `optimizer` (or the older switches) to an `Optimizer`."""

import inspect
import numbers
from collections.abc import Mapping
from typing import Any

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log

from .base import RULES, Optimizer, Rule

NO_EFFECT = ("use_locking", "name")  # accepted, they change no number


def default_options(config: Config, log: Log) -> dict[str, Any]:
    """The `optimizer` option as a dict with "class"."""
    value = config.literal("optimizer", None)
    if not value:
        return legacy_options(config, log)
    if not isinstance(value, Mapping):
        return {"class": value}
    if "class" not in value:
        raise ConfigError("optimizer", f'the dict must have "class", but is {dict(value)!r} instead')
    return dict(value)


def legacy_options(config: Config, log: Log) -> dict[str, Any]:
    """The switches from before `optimizer`: adam, nadam, adadelta, adagrad, rmsprop, momentum; else plain SGD."""
    momentum = float(config.float("momentum", 0.0) or 0.0)
    options = _legacy_switch(config, momentum)
    if options is None:
        return {"class": "gradientdescent"}
    name = options["class"]
    if (config.int("behavior_version", 0) or 0) >= 2:
        raise ConfigError(name, f'is not allowed with behavior_version >= 2; use optimizer = {{"class": "{name}"}}')
    log.v2(f'Warning: the option {name!r} is deprecated, use optimizer = {{"class": "{name}"}}.')
    return options


def _legacy_switch(config: Config, momentum: float) -> dict[str, Any] | None:
    for name in ("adam", "nadam", "adadelta", "adagrad"):
        if config.bool(name, False):
            if momentum:
                raise ConfigError("momentum", f"must be 0 with {name}, but is {momentum} instead")
            return {"class": name}
    rmsprop = config.bool_or_other("rmsprop", False)
    if isinstance(rmsprop, float | str):
        return {"class": "rmsprop", "decay": float(rmsprop)}
    if rmsprop:
        return {"class": "rmsprop"}
    return {"class": "momentum", "momentum": momentum} if momentum else None


def rule_class(value: Any, path: str) -> type[Rule]:
    """A class by name, a class, or a function that returns either."""
    if isinstance(value, type) and issubclass(value, Rule):
        return value
    if callable(value) and not isinstance(value, type):
        return rule_class(value(), path)
    if not isinstance(value, str):
        raise ConfigError(path, f"must be the name of an optimizer, but is {value!r} instead")
    name = value.lower().removesuffix("optimizer")
    if name not in RULES:
        hint = did_you_mean(name, RULES)
        raise ConfigError(path, f'unknown optimizer "{value}"{hint} (known: {", ".join(sorted(RULES))})')
    return RULES[name]


def make_optimizer(options: Mapping[str, Any], config: Config, path: str) -> Optimizer:
    """Builds the optimizer of a dict with "class"; epsilon and momentum are filled in from the global options."""
    given = {key: value for key, value in options.items() if key not in ("class", *NO_EFFECT)}
    if "learning_rate" in given:
        raise ConfigError(f'{path}["learning_rate"]', "set learning_rate outside of the optimizer dict")
    multiplier = given.pop("learning_rate_multiplier", 1.0)
    _check_number(multiplier, f'{path}["learning_rate_multiplier"]')
    rule = rule_class(options["class"], f'{path}["class"]')
    accepted = inspect.signature(rule).parameters
    if "epsilon" in accepted:
        given.setdefault("epsilon", float(config.float("optimizer_epsilon", 1e-16)))
    momentum = config.float("momentum", 0.0)
    if "momentum" in accepted and momentum:
        given.setdefault("momentum", float(momentum))
    _check_options(rule, given, accepted, path)
    return Optimizer(rule(**given), learning_rate_multiplier=float(multiplier))


def _check_options(
    rule: type[Rule], given: Mapping[str, Any], accepted: Mapping[str, inspect.Parameter], path: str
) -> None:
    """The constructor's signature is the list of options."""
    for key, value in given.items():
        if key not in accepted:
            options = ", ".join(accepted) or "none"
            hint = did_you_mean(key, accepted)
            raise ConfigError(f'{path}["{key}"]', f"unknown option of {rule.name}{hint} (options: {options})")
        if accepted[key].annotation is float:
            _check_number(value, f'{path}["{key}"]')
    for key, parameter in accepted.items():
        if parameter.default is parameter.empty and key not in given:
            raise ConfigError(path, f'{rule.name} needs the option "{key}"')


def _check_number(value: Any, path: str) -> None:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ConfigError(path, f"must be a number, but is {value!r} instead")
