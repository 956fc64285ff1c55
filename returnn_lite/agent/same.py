"""Options that may be functions, in a form for JSON: equal for functions that do the same, in every process."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
OLD_FORM = re.compile(r"<(?:function|bound method) (\S+)")  # in files of earlier versions


def described(value: Any) -> Any:
    """A function as its name and a digest of its code and of what it holds; other objects by class and attributes."""
    if isinstance(value, FunctionType):
        closure = [_text(cell.cell_contents) for cell in value.__closure__ or ()]
        parts = [_code(value.__code__), _text(value.__defaults__), _text(value.__kwdefaults__), closure]
        return {"function": value.__qualname__, "code": _digest(parts), "python": _python()}
    if isinstance(value, MethodType):
        return {"function": value.__func__.__qualname__, "of": described(value.__self__)}
    if isinstance(value, partial):
        return {"function": "partial", "of": [_text(value.func), _text(value.args), _text(value.keywords)]}
    if isinstance(value, type) or not hasattr(value, "__dict__"):
        return ADDRESS.sub("", repr(value))
    return {"object": type(value).__qualname__, "state": _digest([_text(vars(value))])}


def alike(before: Any, now: Any) -> bool:
    """Whether two values in this form are the same option, as far as files of other versions say."""
    if before == now:
        return True
    if isinstance(before, str) and isinstance(now, Mapping):
        found = OLD_FORM.match(before)
        return found is not None and found[1] == now.get("function")
    if isinstance(before, Mapping) and isinstance(now, Mapping) and before.keys() == now.keys():
        other_python = before.get("python") != now.get("python")  # whose code for the same function differs
        keys = set(before) - {"python"} - ({"code"} if other_python else set())
        return all(alike(before[key], now[key]) for key in keys)
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return all(map(alike, before, now))
    return False


def _text(value: Any) -> str:
    """A value within a function or an object as text."""
    if isinstance(value, Mapping):
        return repr({str(key): _text(value[key]) for key in sorted(value, key=str)})
    if isinstance(value, list | tuple):
        return repr([_text(item) for item in value])
    if isinstance(value, FunctionType | MethodType | partial):
        return repr(described(value))
    return ADDRESS.sub("", repr(value))


def _code(code: CodeType) -> list[str]:
    """What a function does, without where it stands."""
    constants = [_code(item) if isinstance(item, CodeType) else _text(item) for item in code.co_consts]
    return [code.co_code.hex(), repr(code.co_names), repr(code.co_varnames), repr(constants)]


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])
