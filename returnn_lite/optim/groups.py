"""Which parameter gets which gradient processing and which optimizer: global options, and `updater_opts` of layers."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from returnn_lite.config import Config
from returnn_lite.config.numbers import finite, whole
from returnn_lite.config_value import ConfigDict, ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.core.params import ParamOptions
from returnn_lite.log import Log
from returnn_lite.optim.decay_choice import Special, custom_groups, without_decay
from returnn_lite.optim.optimizer import Optimizer
from returnn_lite.optim.param_groups import Rule, options_by_param, param_infos, read_rules
from returnn_lite.optim.registry_form import REGISTRY, class_of_registry
from returnn_lite.optim.resolve import default_options, make_optimizer

COUNT = "accum_grad_multiple_step"


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
        read: dict[Any, Callable[[str, Any], Any]] = {float: config.float, int: config.int, bool: config.bool}
        values = {}
        for option in dataclasses.fields(cls):
            reader = read.get(option.type, config.opt_typed_value)
            if option.name != COUNT or not counted_by_function(config):
                values[option.name] = reader(option.name, option.default)
        return cls().replaced(values)

    def replaced(self, values: ConfigDict) -> "GradientOptions":
        """With other values, checked and converted; None is off."""
        types = {option.name: option.type for option in dataclasses.fields(self)}
        converted = {name: _converted(name, value, types[name]) for name, value in values.items()}
        return dataclasses.replace(self, **converted)

    def applies_at(self, step: int) -> bool:
        """Whether the optimizer runs after global step `step` (from 0)."""
        return step % self.accum_grad_multiple_step == self.accum_grad_multiple_step - 1


def counted_by_function(config: Config) -> bool:
    """Whether a function of the config gives the number of steps of an update, the same for all parameters."""
    return callable(config.typed_value(COUNT))


def _converted(name: str, value: ConfigValue, to: Any) -> Any:
    if to not in (float, int, bool):
        if value is not None and not isinstance(value, str):
            raise ConfigError(name, f"must be a tag, but is {value!r} instead")
        return value or None
    if callable(value) or isinstance(value, str | list | tuple | dict):
        raise ConfigError(name, f"must be a number, but is {value!r} instead")
    number = to(value or 0)
    if not math.isfinite(number):
        raise ConfigError(name, f"must be a finite number, but is {value!r} instead")
    if number < 0 and name != "maximize_grad_norm":
        raise ConfigError(name, f"must not be negative, but is {value!r} instead")
    return max(number, 1) if name == COUNT else number


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


@dataclass(frozen=True)
class GroupOptions:
    """Keys of `param_groups` that are about the parameters, not of the optimizer."""

    name: str = ""  # for what acts on single groups
    lr: float | None = None  # at the start; a fixed ratio to `learning_rate` all the time
    lr_multiplier: float | None = None
    lr_absolute: float | None = None  # untouched by everything else
    grad_clip_norm: float = 0.0
    freeze: bool = False
    freeze_until_epoch: int = 0

    @classmethod
    def split(cls, options: ConfigDict, path: str) -> tuple["GroupOptions", ConfigOptions]:
        """(these keys, the others)."""
        own = {key: value for key, value in options.items() if key in cls.__dataclass_fields__}
        for key, value in own.items():
            if key == "name":
                if not isinstance(value, str) or not value:
                    raise ConfigError(f'{path}["name"]', f"must be a text, but is {value!r} instead")
            elif key == "freeze_until_epoch":
                whole(f'{path}["{key}"]', value)
            elif value is not None and not isinstance(value, bool):
                low = 0 if key in ("lr", "lr_absolute", "grad_clip_norm") else None
                finite(f'{path}["{key}"]', value, low=low)
        return cls(**own), {key: value for key, value in options.items() if key not in own}

    def put_on(self, optimizer: Optimizer, config: Config, path: str) -> None:
        """Tells the optimizer of these parameters."""
        if self.lr is not None:
            base = config.float("learning_rate", 1.0)
            if not base:
                raise ConfigError(f'{path}["lr"]', f"needs a `learning_rate` other than {base}; use lr_absolute")
            optimizer.learning_rate_multiplier = self.lr / base
        if self.lr_multiplier is not None:
            optimizer.learning_rate_multiplier = float(self.lr_multiplier)
        optimizer.learning_rate_absolute, optimizer.group_name = self.lr_absolute, self.name
        optimizer.clip_norm, optimizer.frozen_until = float(self.grad_clip_norm), int(self.freeze_until_epoch)


OWN_KEYS = ("optimizer", "tags")


def make_groups(
    params: Mapping[str, Tensor],
    param_options: Mapping[str, ParamOptions],
    config: Config,
    log: Log,
    network: object = None,
) -> Groups:
    """Groups the parameters. One optimizer (with its own count of updates) per optimizer dict, group options and N."""
    common, default = GradientOptions.from_config(config), default_options(config, log)
    rules = read_rules(default.pop("param_groups", []), 'optimizer["param_groups"]')
    special = _special(params, default, rules, config, network)
    result = Groups([], {}, {})
    groups: dict[tuple[str, GradientOptions], ParamGroup] = {}
    for name in params:
        own = _updater_opts(name, param_options, config)
        path = f'network["{name.rpartition("/")[0]}"]["updater_opts"]'
        options = _at(path, common.replaced, {key: value for key, value in own.items() if key not in OWN_KEYS})
        for tag in own.get("tags") or ():
            result.tags.setdefault(tag, set()).add(name)
        chosen, where, around = _of_group(default, *special.get(name, ({}, "optimizer")))
        if around.freeze:
            continue
        if own.get("optimizer") is not None:
            chosen, where = {"class": default["class"], **own["optimizer"]}, f'{path}["optimizer"]'
            if REGISTRY in chosen:
                chosen = class_of_registry(own["optimizer"], where)
        key = f"{sorted(chosen.items(), key=lambda item: item[0])!r} / {options.accum_grad_multiple_step}"
        key += f" / {around}" if around != GroupOptions() else ""
        if key not in result.optimizers:
            result.optimizers[key] = make_optimizer(chosen, config, where)
            around.put_on(result.optimizers[key], config, where)
        group = groups.setdefault((key, options), ParamGroup(options, key))
        group.names.append(name)
    result.groups = list(groups.values())
    return result


def _special(
    params: Mapping[str, Tensor], default: ConfigOptions, rules: Sequence[Rule], config: Config, network: object
) -> Special:
    """The options of single parameters: by a function of the config, or by rules, and what is not decayed."""
    special = custom_groups(default, params, network, config.float("learning_rate", 1.0) or 0.0)
    if rules and special:
        raise ConfigError("optimizer", "`param_groups` and `param_groups_custom` cannot be used together")
    infos = param_infos(params, network)
    torch_backend = config.value("backend", None) == "torch"
    decayed = without_decay(default, infos, options_by_param(rules, infos), torch_backend=torch_backend)
    return special or decayed


def optimizer_lines(groups: Groups, params: Mapping[str, Tensor]) -> list[str]:
    """Which parameters have which optimizer, a line each if there are several."""
    lines = []
    for key, optimizer in groups.optimizers.items() if len(groups.optimizers) > 1 else ():
        names = [name for group in groups.groups if group.optimizer == key for name in group.names]
        plain = {name: value for name, value in optimizer.options().items() if isinstance(value, int | float)}
        rate = f"learning rate x {optimizer.learning_rate_multiplier:g}"
        count = sum(params[name].numel() for name in names)
        text = f"{len(names)} parameters, {count} numbers ({shortened(', '.join(names), 60)})"
        lines.append(f"optimizer {optimizer.name}: {text}, {rate}, {plain}")
    return lines


def shortened(text: str, length: int = 30) -> str:
    """The text, or its beginning."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _of_group(default: ConfigDict, given: ConfigDict, path: str) -> tuple[ConfigOptions, str, GroupOptions]:
    """(optimizer dict, where it is from, the rest) of parameters with these options of `param_groups`."""
    around, options = GroupOptions.split(given, path)
    if "optimizer" in options:
        other = options.pop("optimizer")
        if not isinstance(other, Mapping):
            raise ConfigError(f'{path}["optimizer"]', f"must be a dict, but is {other!r} instead")
        if any(str(key).startswith("@") for key in other):
            other = class_of_registry(other, f'{path}["optimizer"]')
        return {"class": default["class"], **other, **options}, f'{path}["optimizer"]', around
    schedules = {key: value for key, value in (default.get("schedules") or {}).items() if key not in options}
    schedules |= options.pop("schedules", {})
    chosen = {**default, **options}
    if schedules or "schedules" in chosen:
        chosen["schedules"] = schedules
    return chosen, path, around


def _updater_opts(name: str, param_options: Mapping[str, ParamOptions], config: Config) -> ConfigDict:
    """The layer's `updater_opts`; every key must be known, and must not contradict a function of the config."""
    options = param_options.get(name)
    own = (options.updater_opts if options else None) or {}
    known = [option.name for option in dataclasses.fields(GradientOptions)] + list(OWN_KEYS)
    for key in own:
        path = f'network["{name.rpartition("/")[0]}"]["updater_opts"]["{key}"]'
        if key == COUNT and counted_by_function(config):
            raise ConfigError(path, f"must not be set, since `{COUNT}` of the config is a function")
        if key not in known:
            raise ConfigError(path, f"unknown option{did_you_mean(key, known)} (known: {', '.join(known)})")
    return own


def _at(path: str, function: Any, *args: Any) -> Any:
    """Calls, with `path` in front of the key that an error names."""
    try:
        return function(*args)
    except ConfigError as error:
        raise ConfigError(f'{path}["{error.path}"]', error.message) from None
