"""Which parameter gets which gradient processing and which optimizer: global options, and `updater_opts` of layers."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.params import ParamOptions
from returnn_lite.log import Log

from .base import Optimizer
from .resolve import default_options, make_optimizer


@dataclass(frozen=True)
class GradientOptions:
    """The processing of a gradient, fields by their config names; 0, False or None is off."""

    maximize_grad_norm: float = 0.0
    accum_grad_multiple_step: int = 1  # N: one update every N steps, with the sum of their gradients
    gradient_noise: float = 0.0
    gradient_clip: float = 0.0
    gradient_clip_norm: float = 0.0
    gradient_clip_avg_norm: float = 0.0
    gradient_clip_global_norm: float = 0.0
    gradient_clip_global_norm_tag: str | None = None
    gradient_nan_inf_filter: bool = False
    grad_norm_to_clip_to_zero: float = 0.0
    global_norm_tag: str | None = None

    @property
    def clip_tag(self) -> str | None:
        return self.gradient_clip_global_norm_tag or self.global_norm_tag

    @classmethod
    def from_config(cls, config: Config) -> "GradientOptions":
        """The global options."""
        read = {float: config.float, int: config.int, bool: config.bool}
        values = {}
        for option in dataclasses.fields(cls):
            reader = read.get(option.type, config.opt_typed_value)
            values[option.name] = reader(option.name, option.default)
        return cls().replaced(values)

    def replaced(self, values: Mapping[str, Any]) -> "GradientOptions":
        """With other values, checked and converted; None is off."""
        types = {option.name: option.type for option in dataclasses.fields(self)}
        converted = {name: _converted(name, value, types[name]) for name, value in values.items()}
        return dataclasses.replace(self, **converted)

    def applies_at(self, step: int) -> bool:
        """Whether the optimizer runs after global step `step` (from 0)."""
        return step % self.accum_grad_multiple_step == self.accum_grad_multiple_step - 1


def _converted(name: str, value: Any, to: Any) -> Any:
    if to not in (float, int, bool):
        if value is not None and not isinstance(value, str):
            raise ConfigError(name, f"must be a tag, but is {value!r} instead")
        return value or None
    if callable(value) or isinstance(value, str | list | tuple | dict):
        raise ConfigError(name, f"must be a number, but is {value!r} instead")
    number = to(value or 0)
    if number < 0 and name != "maximize_grad_norm":
        raise ConfigError(name, f"must not be negative, but is {value!r} instead")
    return max(number, 1) if name == "accum_grad_multiple_step" else number


@dataclass
class ParamGroup:
    """Parameters with the same options."""

    options: GradientOptions
    optimizer: str  # key of `Groups.optimizers`
    names: list[str] = field(default_factory=list)


@dataclass
class Groups:
    """All trainable parameters, in groups; the optimizers; the names behind each tag."""

    groups: list[ParamGroup]
    optimizers: dict[str, Optimizer]
    tags: dict[str, set[str]]


OWN_KEYS = ("optimizer", "tags")


def make_groups(names: Sequence[str], param_options: Mapping[str, ParamOptions], config: Config, log: Log) -> Groups:
    """Groups the named parameters. One optimizer (with its own count of updates) per optimizer dict and N."""
    common, default = GradientOptions.from_config(config), default_options(config, log)
    result = Groups([], {}, {})
    groups: dict[tuple[str, GradientOptions], ParamGroup] = {}
    for name in names:
        own = _updater_opts(name, param_options)
        path = f'network["{name.rpartition("/")[0]}"]["updater_opts"]'
        options = _at(path, common.replaced, {key: value for key, value in own.items() if key not in OWN_KEYS})
        for tag in own.get("tags") or ():
            result.tags.setdefault(tag, set()).add(name)
        chosen, where = default, "optimizer"
        if own.get("optimizer") is not None:
            chosen, where = {"class": default["class"], **own["optimizer"]}, f'{path}["optimizer"]'
        key = f"{sorted(chosen.items(), key=lambda item: item[0])!r} / {options.accum_grad_multiple_step}"
        if key not in result.optimizers:
            result.optimizers[key] = make_optimizer(chosen, config, where)
        group = groups.setdefault((key, options), ParamGroup(options, key))
        group.names.append(name)
    result.groups = list(groups.values())
    return result


def _updater_opts(name: str, param_options: Mapping[str, ParamOptions]) -> Mapping[str, Any]:
    """The layer's `updater_opts`; every key must be known."""
    options = param_options.get(name)
    own = (options.updater_opts if options else None) or {}
    known = [option.name for option in dataclasses.fields(GradientOptions)] + list(OWN_KEYS)
    for key in own:
        if key not in known:
            path = f'network["{name.rpartition("/")[0]}"]["updater_opts"]["{key}"]'
            raise ConfigError(path, f"unknown option{did_you_mean(key, known)} (known: {', '.join(known)})")
    return own


def _at(path: str, function: Any, *args: Any) -> Any:
    """Calls, with `path` in front of the key that an error names."""
    try:
        return function(*args)
    except ConfigError as error:
        raise ConfigError(f'{path}["{error.path}"]', error.message) from None
