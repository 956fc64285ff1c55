"""`Util` = `returnn.util.basic` and other modules that need no torch."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from returnn_lite.engine.models.pretrain import WrapEpochValue


def cleanup_env_var_path(env_var: str, path_prefix: str) -> None:
    """Removes the entries at or below `path_prefix` from a colon-separated variable of the environment."""
    if env_var not in os.environ:
        return
    prefix = path_prefix.rstrip("/")
    kept = [p for p in os.environ[env_var].split(":") if p.rstrip("/") != prefix and not p.startswith(prefix + "/")]
    os.environ[env_var] = ":".join(kept)


def generic_import_module(filename: str) -> ModuleType:
    """A module by its name, or by its file; then the topmost folder without `__init__.py` is put on sys.path."""
    if "/" not in filename:
        return importlib.import_module(filename)
    path = os.path.abspath(filename).rstrip("/")
    folder, names = os.path.dirname(path), [os.path.splitext(os.path.basename(path))[0]]
    while os.path.exists(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        names.insert(0, package)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(".".join(names))


def py2_utf8_str_to_unicode(s: str) -> str:
    """The text as it is."""
    return s


class NumbersDict(dict[str, Any]):
    """Numbers by key, with a value for all other keys; arithmetic and comparison key by key."""

    def __init__(self, auto_convert: Any = None, numbers_dict: Any = None, broadcast_value: Any = None) -> None:
        source = auto_convert if auto_convert is not None else numbers_dict
        self.value = broadcast_value
        if isinstance(source, NumbersDict):
            self.value = source.value
        elif source is not None and not isinstance(source, dict):
            self.value, source = source, None
        super().__init__(source or {})

    @classmethod
    def constant_like(cls, const_number: Any, numbers_dict: NumbersDict) -> NumbersDict:
        """The same number for the keys of another."""
        value = None if numbers_dict.value is None else const_number
        return cls(numbers_dict=dict.fromkeys(numbers_dict, const_number), broadcast_value=value)

    @property
    def dict(self) -> dict[str, Any]:  # type: ignore[valid-type]
        """The numbers that belong to keys."""
        return {**self}

    def __missing__(self, key: str) -> Any:
        if self.value is None:
            raise KeyError(key)
        return self.value

    def get(self, key: str, default: Any = None) -> Any:
        """The number of a key."""
        return self[key] if key in self or self.value is not None else default

    def _with(self, other: Any, function: Callable[[Any, Any], Any]) -> NumbersDict:
        there = other if isinstance(other, NumbersDict) else NumbersDict(other)
        keys = [*self, *(key for key in there if key not in self)]

        def joined(a: Any, b: Any) -> Any:
            return b if a is None else a if b is None else function(a, b)

        numbers = {key: joined(self.get(key), there.get(key)) for key in keys}
        return NumbersDict(numbers_dict=numbers, broadcast_value=joined(self.value, there.value))

    def __add__(self, other: Any) -> NumbersDict:
        return self._with(other, lambda a, b: a + b)

    __radd__ = __add__

    def __sub__(self, other: Any) -> NumbersDict:
        return self._with(other, lambda a, b: a - b)

    def __mul__(self, other: Any) -> NumbersDict:
        return self._with(other, lambda a, b: a * b)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> NumbersDict:
        return self._with(other, lambda a, b: a / b)

    def __floordiv__(self, other: Any) -> NumbersDict:
        return self._with(other, lambda a, b: a // b)

    def elem_eq(self, other: Any, result_with_default: Any = True) -> NumbersDict:
        """Key by key whether they are equal."""
        return self._with(other, lambda a, b: a == b)

    def max_value(self) -> Any:
        """The largest number."""
        return max(self._all())

    def min_value(self) -> Any:
        """The smallest number."""
        return min(self._all())

    def _all(self) -> list[Any]:
        return [*self.values(), *([] if self.value is None else [self.value])]

    def any_compare(self, other: Any, cmp: Callable[[Any, Any], bool]) -> bool:
        """Whether a comparison holds for any key."""
        return any(self._with(other, cmp)._all())


def names() -> dict[str, Any]:
    """The names of the module."""
    return {
        "cleanup_env_var_path": cleanup_env_var_path,
        "generic_import_module": generic_import_module,
        "py2_utf8_str_to_unicode": py2_utf8_str_to_unicode,
        "NumbersDict": NumbersDict,
        "PY3": True,
        "unicode": str,
        "long": int,
    }


def pretrain() -> dict[str, Any]:
    """`Pretrain`."""
    return {"WrapEpochValue": WrapEpochValue}


def exchook() -> dict[str, Any]:
    """`better_exchook`: exceptions are shown as they are."""
    return {"install": lambda: None}
