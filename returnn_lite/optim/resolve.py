"""From the config's `optimizer` (or the older switches) to an optimizer of rules, of torch or of Thinc.

Bare names mean the rules of `algorithms.py`, then torch.optim; "torch.X" and "thinc.X" are explicit, "package.Class" is
imported. With `backend = "torch"` bare names are torch's.
"""

import inspect
import numbers
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch

from returnn_lite.config import Config
from returnn_lite.config.numbers import finite
from returnn_lite.config_value import ConfigDict, ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log
from returnn_lite.optim.optimizer import RATE_NAMES, Optimizer
from returnn_lite.optim.registry_form import REGISTRY, class_of_registry, optimizer_section
from returnn_lite.optim.rule_optimizer import RULES, Rule, RuleOptimizer
from returnn_lite.optim.schedules import make_schedule, replayed
from returnn_lite.optim.thinc_optimizers import CLASSES, make_thinc, thinc_name
from returnn_lite.optim.torch_optimizers import EXTRA, PREFIXES, TORCH, imported_class, make_torch, torch_class
from returnn_lite.optim.wrappers import Lookahead, Scheduled

NO_EFFECT = ("use_locking", "name")  # accepted, they change no number
LOOKAHEAD_ALPHA = ("lookahead_alpha", "lookeahead_alpha")  # the second is a common misspelling in configs


def default_options(config: Config, log: Log) -> ConfigOptions:
    """The `optimizer` option as a dict with "class"; one with "@optimizers", or in a .cfg file, is turned into that."""
    value = config.literal("optimizer", None)
    if isinstance(value, str):
        value = optimizer_section(value, config) or value
    if not value:
        return legacy_options(config, log)
    if not isinstance(value, Mapping):
        return {"class": value}
    options = replayed(value)
    config.set("optimizer", options)  # an iterator is used up once, optimizers may be made anew
    options = dict(options)
    if any(isinstance(key, str) and key.startswith("@") for key in options):
        options = class_of_registry(options, "optimizer")
    if "class" not in options:
        raise ConfigError("optimizer", f'the dict must have "class" or "{REGISTRY}", but is {options!r} instead')
    return options


def legacy_options(config: Config, log: Log) -> ConfigOptions:
    """The switches from before `optimizer`: adam, nadam, adadelta, adagrad, rmsprop, momentum; else plain SGD."""
    momentum = finite("momentum", config.float("momentum", 0.0) or 0.0, low=0)
    options = _legacy_switch(config, momentum)
    if options is None:
        return {"class": "gradientdescent"}
    name = options["class"]
    if (config.int("behavior_version", 0) or 0) >= 2:
        raise ConfigError(name, f'is not allowed with behavior_version >= 2; use optimizer = {{"class": "{name}"}}')
    log.v2(f'Warning: the option {name!r} is deprecated, use optimizer = {{"class": "{name}"}}.')
    return options


def _legacy_switch(config: Config, momentum: float) -> ConfigOptions | None:
    for name in ("adam", "nadam", "adadelta", "adagrad"):
        if config.bool(name, False):
            if momentum:
                raise ConfigError("momentum", f"must be 0 with {name}, but is {momentum} instead")
            return {"class": name}
    rmsprop = config.bool_or_other("rmsprop", False)
    if isinstance(rmsprop, float | str):
        return {"class": "rmsprop", "decay": finite("rmsprop", config.float("rmsprop", 0.0), low=0, high=1)}
    if rmsprop:
        return {"class": "rmsprop"}
    return {"class": "momentum", "momentum": momentum} if momentum else None


# --- classes by name --------------------------------------------------------------------------------------------------


# A rule of the library, a class of torch, or the name of one of Thinc's.
OptimizerClass: TypeAlias = type[Rule] | type[torch.optim.Optimizer] | str


def find_class(value: ConfigValue, path: str, *, prefer_torch: bool = False) -> OptimizerClass:
    """A `Rule`, a torch optimizer class, or the name ("thinc.Adam") of one of Thinc's, for a config value.

    The value is a name, a class, or a function that returns either.
    """
    if isinstance(value, type):
        if not issubclass(value, Rule | torch.optim.Optimizer):
            raise ConfigError(path, f"must be a sub-class of torch.optim.Optimizer, but is {value!r} instead")
        return value
    if callable(value):
        return find_class(value(), path, prefer_torch=prefer_torch)
    if not isinstance(value, str):
        raise ConfigError(path, f"must be the name of an optimizer, but is {value!r} instead")
    found = _by_prefix(value, path) if "." in value else _bare(value, prefer_torch)
    if found is None:
        raise ConfigError(path, _unknown(value))
    return found


def _bare(text: str, prefer_torch: bool) -> OptimizerClass | None:
    name = text.lower().removesuffix("optimizer")
    own, torchs = RULES.get(name), torch_class(text) or torch_class(name)
    return torchs or own if prefer_torch else own or torchs


def _by_prefix(text: str, path: str) -> OptimizerClass | None:
    if text.lower().startswith("thinc."):
        name = thinc_name(text[len("thinc.") :])
        return name and f"thinc.{name}"
    for prefix in PREFIXES:
        rest = text[len(prefix) :]
        if text.startswith(prefix) and "." not in rest:
            return torch_class(rest)
    return imported_class(text, path)


def _unknown(text: str) -> str:
    known = [*RULES, *(f"torch.{name}" for name in TORCH), *(f"thinc.{name}" for name in CLASSES)]
    bare = [name.lower() for name in TORCH if name.lower() not in RULES]
    hint = did_you_mean(text, known) if "." in text else did_you_mean(text.lower(), [*RULES, *bare])
    other = "" if hint else f'; other libraries by dotted path, such as "{EXTRA}.Lion"'
    return (
        f'unknown optimizer "{text}"{hint}{other} (known: {", ".join([*sorted(RULES), *bare, *known[len(RULES) :]])})'
    )


# --- making -----------------------------------------------------------------------------------------------------------


def make_optimizer(options: ConfigDict, config: Config, path: str) -> Optimizer:
    """Builds the optimizer of a dict with "class"; epsilon and momentum are filled in from the global options."""
    given = {key: value for key, value in options.items() if key not in ("class", "param_groups", *NO_EFFECT)}
    cls = find_class(options["class"], f'{path}["class"]', prefer_torch=config.value("backend", None) == "torch")
    _refuse_rate(cls, given, config, path)
    multiplier = given.pop("learning_rate_multiplier", 1.0)
    finite(f'{path}["learning_rate_multiplier"]', multiplier)
    around = {
        key: given.pop(key) for key in ("schedules", "lookahead_k", "plateau_score", *LOOKAHEAD_ALPHA) if key in given
    }
    made = _wrapped(_of_library(cls, given, config, path), around, path)
    made.learning_rate_multiplier = float(multiplier)
    return made


def _refuse_rate(cls: OptimizerClass, given: ConfigDict, config: Config, path: str) -> None:
    key = next((key for key in RATE_NAMES if key in given), None)
    if key is None:
        return
    if not isinstance(cls, str):
        raise ConfigError(f'{path}["{key}"]', "set learning_rate outside of the optimizer dict")
    if config.has("learning_rate"):
        raise ConfigError(f'{path}["{key}"]', "sets the learning rate, but so does `learning_rate`; drop one of them")


def _of_library(cls: OptimizerClass, given: ConfigOptions, config: Config, path: str) -> Optimizer:
    if isinstance(cls, str):
        return make_thinc(cls.removeprefix("thinc."), given, path)
    if issubclass(cls, Rule):
        return _make_rule(cls, given, config, path)
    return make_torch(cls, given, path)


def _make_rule(rule: type[Rule], given: ConfigOptions, config: Config, path: str) -> RuleOptimizer:
    accepted = inspect.signature(rule.__init__).parameters
    accepted = {name: p for name, p in accepted.items() if p.kind is p.KEYWORD_ONLY}
    if "epsilon" in accepted:
        if "eps" in given:
            given["epsilon"] = given.pop("eps")
        given.setdefault("epsilon", finite("optimizer_epsilon", config.float("optimizer_epsilon", 1e-16), low=0))
    if "beta2" in accepted and "betas" in given:
        given["beta1"], given["beta2"] = _pair(given.pop("betas"), f'{path}["betas"]')
    momentum = config.float("momentum", 0.0)
    if "momentum" in accepted and momentum:
        given.setdefault("momentum", float(momentum))
    _check_options(rule, given, accepted, path)
    return RuleOptimizer(rule(**given))


def _check_options(rule: type[Rule], given: ConfigDict, accepted: Mapping[str, inspect.Parameter], path: str) -> None:
    """The constructor's signature is the list of options."""
    for key, value in given.items():
        if key not in accepted:
            options = ", ".join(accepted) or "none"
            hint = did_you_mean(key, accepted)
            raise ConfigError(f'{path}["{key}"]', f"unknown option of {rule.name}{hint} (options: {options})")
        if accepted[key].annotation is float:
            default = accepted[key].default
            low = None if isinstance(default, float) and default < 0 else 0
            finite(f'{path}["{key}"]', value, low=low, below=1 if key in ("beta1", "beta2") else None)
    for key, parameter in accepted.items():
        if parameter.default is parameter.empty and key not in given:
            raise ConfigError(path, f'{rule.name} needs the option "{key}"')


def _pair(value: ConfigValue, path: str) -> tuple[Any, Any]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ConfigError(path, f"must be two numbers, but is {value!r} instead")
    return value[0], value[1]


# --- what every optimizer can have ------------------------------------------------------------------------------------


def _wrapped(optimizer: Optimizer, around: ConfigDict, path: str) -> Optimizer:
    """With schedules, and lookahead around all."""
    score = around.get("plateau_score", "min")
    if score not in ("min", "max"):
        raise ConfigError(f'{path}["plateau_score"]', f'must be "min" or "max", but is {score!r} instead')
    optimizer.plateau_score = score
    if around.get("schedules"):
        optimizer = _scheduled(optimizer, around["schedules"], f'{path}["schedules"]')
        optimizer.plateau_score = score
    if around.get("lookahead_k"):
        k = around["lookahead_k"]
        alpha = next((around[key] for key in LOOKAHEAD_ALPHA if key in around), 0.5)
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ConfigError(f'{path}["lookahead_k"]', f"must be a number of updates, but is {k!r} instead")
        finite(f'{path}["lookahead_alpha"]', alpha, above=0, high=1)
        optimizer = Lookahead(optimizer, k, float(alpha))
    return optimizer


def _scheduled(optimizer: Optimizer, value: ConfigValue, path: str) -> Optimizer:
    if not isinstance(value, Mapping):
        raise ConfigError(path, f"must be a dict of schedules by option, but is {value!r} instead")
    known = [key for key, option in optimizer.options().items() if isinstance(option, numbers.Real)]
    known += [name for name in RATE_NAMES if optimizer.own_rate() is None]
    for name in value:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(
                f'{path}["{name}"]', f"{optimizer.name} has no number of this name{hint} ({', '.join(known)})"
            )
    return Scheduled(optimizer, {name: make_schedule(item, f'{path}["{name}"]') for name, item in value.items()})
