"""Modules as dicts, for options: `build_dict` makes them, `build_from_dict` what they stand for."""

from __future__ import annotations

import functools
import importlib
import types
from collections.abc import Mapping
from typing import Any

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import did_you_mean
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.types import UserFunction

PACKAGE = __name__.rpartition(".")[0]
PUBLIC = "returnn.frontend"  # how configs call the package


def build_dict(__class_or_func: UserFunction, **kwargs: ConfigValue) -> dict[str, ConfigValue]:
    """{"class": name, **kwargs} of a class or function."""
    if not isinstance(__class_or_func, type | types.FunctionType | types.BuiltinFunctionType):
        raise WrongUse(f"build_dict needs a class or a function, but got {__class_or_func!r} instead")
    return {"class": _get_cls_name(__class_or_func), **kwargs}


def build_from_dict(__d: Mapping[str, ConfigValue], *args: ConfigValue, **kwargs: ConfigValue) -> ConfigValue:
    """The object of a class with the options of the dict and these arguments; a function with them bound."""
    options = dict(__d)
    if "class" not in options:
        raise WrongUse(f'a dict to build from must have a "class", but has {list(options)}')
    name = options.pop("class")
    found = _get_cls(name) if isinstance(name, str) else name
    twice = [key for key in options if key in kwargs]
    if twice:
        raise WrongUse(f"{name}: the option {twice[0]!r} is given in the dict and as an argument")
    if isinstance(found, type):
        return found(*args, **options, **kwargs)
    if isinstance(found, types.FunctionType | types.BuiltinFunctionType):
        return functools.partial(found, *args, **options, **kwargs) if args or options or kwargs else found
    raise WrongUse(f"{name!r} must be a class or a function, but is {found!r} instead")


def _get_cls_name(cls: Any) -> str:
    name = getattr(cls, "__name__", "")
    if getattr(importlib.import_module(PACKAGE), name, None) is cls:
        return f"rf.{name}"
    module = cls.__module__
    if module == PACKAGE or module.startswith(f"{PACKAGE}."):
        module = PUBLIC + module[len(PACKAGE) :]
    return f"{module}.{cls.__qualname__}"


def _get_cls(name: str) -> Any:
    if "." not in name:
        raise WrongUse(f'a class must be named "rf.NAME" or "MODULE.NAME", but is {name!r}')
    if name.startswith("rf."):
        return _member(importlib.import_module(PACKAGE), name[3:], name)
    parts = name.split(".")
    for i in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:i])
        if module_name == PUBLIC or module_name.startswith(f"{PUBLIC}."):
            module_name = PACKAGE + module_name[len(PUBLIC) :]
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
                raise
            continue
        return _member(module, ".".join(parts[i:]), name)
    raise WrongUse(f"no module defines the class {name!r}")


def _member(found: Any, path: str, name: str) -> Any:
    for part in path.split("."):
        if not hasattr(found, part):
            raise WrongUse(f"{name!r} does not exist: {part!r} is missing{did_you_mean(part, dir(found))}")
        found = getattr(found, part)
    return found
