"""The register of layer classes: config word -> class, and the list of options read off the signature."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from returnn_lite.config.option_types import converted, option_kinds, wrong_values
from returnn_lite.config_value import ConfigDict, ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError, ConfigErrors, did_you_mean
from returnn_lite.layers.core import legacy
from returnn_lite.layers.core.options import CommonOptions
from returnn_lite.layers.core.refused import refusal

if TYPE_CHECKING:
    from returnn_lite.layers.core.base import Layer

T = TypeVar("T")
C = TypeVar("C", bound="type[Layer]")
_LAYERS: dict[str, type[Layer]] = {}
_SPELLING = {"from": "from_", "class": ""}  # config words that are no Python names
_COMMON = {f.name for f in fields(CommonOptions)}


def layer(*names: str) -> Callable[[C], C]:
    """Registers a Layer class under its config words: `@layer("linear", "hidden")`."""

    def register(cls: C) -> C:
        for name in names:
            _LAYERS[name] = cls
        if "class_name" not in cls.__dict__:
            cls.class_name = names[0]
        return cls

    return register


def layer_names() -> list[str]:
    """All config words, sorted."""
    return sorted(_LAYERS)


def layer_class(name: ConfigValue, path: str) -> type[Layer]:
    """The class of a config word. Raises ConfigError with what to use instead, or the nearest known word."""
    if not isinstance(name, str):
        raise ConfigError(path, f"`class` must be the name of a layer class, but is {name!r} instead")
    if name not in _LAYERS:
        if refusal(str(name)):
            raise ConfigError(path, refusal(str(name)))
        raise ConfigError(path, f"unknown layer class {name!r}{did_you_mean(str(name), layer_names())}")
    return _LAYERS[name]


def once_per_class(function: Callable[[type[Layer]], T]) -> Callable[[type[Layer]], T]:
    """The function, computed once for each class."""
    known: dict[type[Layer], T] = {}

    @functools.wraps(function)
    def memoized(cls: type[Layer]) -> T:
        if cls not in known:
            known[cls] = function(cls)
        return known[cls]

    return memoized


@once_per_class
def own_options(cls: type[Layer]) -> Mapping[str, inspect.Parameter]:
    """The options a class adds to the common ones: the keyword-only parameters of its `__init__`."""
    parameters = inspect.signature(cls.__init__).parameters
    return {n: p for n, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


@once_per_class
def layer_valued(cls: type[Layer]) -> tuple[str, ...]:
    """The options of a class whose values name layers: those annotated with `LayerRef`."""
    return tuple(n for n, p in own_options(cls).items() if "LayerRef" in str(p.annotation))


def split_options(cls: type[Layer], description: ConfigDict, path: str) -> tuple[CommonOptions, ConfigOptions]:
    """Splits a layer dict into the options every layer has and those of its class.

    Raises ConfigErrors for unknown and missing options, and for values that are not what the options are annotated
    with, all at once.
    """
    own = own_options(cls)
    common: dict[str, Any] = {}
    mine: dict[str, Any] = {}
    errors: list[ConfigError] = []
    kind = description.get("class")
    for key, value in legacy.present_day(kind, description, own).items():
        word = _SPELLING.get(key, key)
        if not word:
            continue
        if word in own:
            mine[word] = value
        if word in _COMMON:
            common[word] = value
        elif word not in own:
            known = (*sorted(own), *sorted((*_COMMON - {"from_"}, "from")))  # its own first: they win ties
            hint = f"; {legacy.REFUSED[key]}" if key in legacy.REFUSED else did_you_mean(str(key), known)
            text = f"layer class {kind!r} has no option {key!r}{hint}"
            errors.append(ConfigError(path, f"{text}; its own options: {', '.join(own) or 'none'}"))
    for name, parameter in own.items():
        if parameter.default is parameter.empty and name not in mine:
            text = f"layer class {kind!r} needs the option {name!r}, but it is missing"
            errors.append(ConfigError(path, text))
    alone = {n: v for n, v in common.items() if n not in own or n == "n_out"}  # the others mean what the class says
    common_kinds, kinds = option_kinds(CommonOptions), option_kinds(cls.__init__)
    errors += wrong_values(common_kinds, alone, path)
    errors += wrong_values(kinds, {n: v for n, v in mine.items() if n != "n_out"}, path)
    if errors:
        raise errors[0] if len(errors) == 1 else ConfigErrors(errors)
    return CommonOptions(**{**common, **converted(common_kinds, alone)}), converted(kinds, mine)
