"""Names that are not there, of options, attributes, variables and imports, told with the closest one that is."""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import re
import sys
import traceback
from types import FrameType
from typing import Any

from returnn_lite.errors import closest, did_you_mean

_CALL = re.compile(r"([\w.<>]+)\(\) (.+)")
_UNKNOWN = re.compile(r"got an unexpected keyword argument '(\w+)'")
_TOO_MANY = re.compile(r"takes .*positional arguments? but .* given")


_IMPORT = re.compile(r"cannot import name '(\w+)' from '([\w.]+)'")


def told_name(exc: BaseException, frame: FrameType) -> str:
    """The text of an exception about a name, with the closest one; "" for others. `frame`: where a config caused it."""
    text = " ".join(str(exc).split())
    if isinstance(exc, TypeError):
        return told_call(exc)
    if isinstance(exc, AttributeError) and exc.obj is not None and exc.name:
        return text + did_you_mean(exc.name, _public(exc.obj))
    if isinstance(exc, NameError) and exc.name:
        found = closest(exc.name, {**vars(builtins), **frame.f_globals, **frame.f_locals}, 0.75)  # of many names
        return text + (f'; did you mean "{found}"?' if found else "")
    if isinstance(exc, ImportError) and (found := _IMPORT.match(text)):
        name, module = found.groups()
        public = re.sub(r"^returnn_lite\.frontend\b", "returnn.frontend", module)  # as configs call it
        return f"cannot import name {name!r} from {public!r}{did_you_mean(name, _public(sys.modules.get(module)))}"
    return ""


def _public(found: object) -> list[str]:
    return [name for name in dir(found) if not name.startswith("_")]


def told_call(exc: TypeError) -> str:
    """The text of a TypeError; of one for wrong arguments with the closest option, or with those that have names."""
    text = " ".join(str(exc).split())
    if "must be Tensor, not Tensor" in text:
        return f"{text}; a torch function needs the `raw_tensor` of a Tensor with axes, or use the function of rf"
    parts, places = _CALL.match(text), list(traceback.walk_tb(exc.__traceback__))
    found = _called(parts[1], *places[-1]) if parts and places else None
    if parts is None or found is None:
        return text
    name, function = found
    named = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    if unknown := _UNKNOWN.match(parts[2]):
        known = [p.name for p in named if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        hint = did_you_mean(unknown[1], known) or f"; known: {', '.join(known) or 'none'}"
        return f"{name}() {unknown[0]}{hint}"
    if _TOO_MANY.match(parts[2]):
        only = [p.name for p in named if p.kind is p.KEYWORD_ONLY]
        return f"{name}() {parts[2]}" + (f"; these must be given by name: {', '.join(only)}" if only else "")
    return f"{name}() {parts[2]}"


def _called(qualified: str, frame: FrameType, line: int) -> tuple[str, Any] | None:  # Any: a function of any kind
    """(its name for the caller, the function) of the call in this line whose function Python calls `qualified`."""
    try:
        tree = ast.parse("".join(linecache.getlines(frame.f_code.co_filename)))
    except (SyntaxError, ValueError, RecursionError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.lineno <= line <= (node.end_lineno or node.lineno):
            found = _value(node.func, frame)
            name, function = _function(found)
            if getattr(function, "__qualname__", None) == qualified and inspect.isroutine(function):
                return name or qualified, function
    return None


def _function(found: Any) -> tuple[str, Any]:
    """What a call of this runs, with the name of the class if it is one, or an object of it."""
    if isinstance(found, type):
        return found.__name__, found.__init__  # type: ignore[misc]  # only looked at
    if inspect.isroutine(found):
        return "", found
    return f"{type(found).__name__}.__call__", type(found).__call__ if callable(found) else None


def _value(node: ast.expr, frame: FrameType) -> Any:
    """What a name, or a name with attributes, stands for in a frame; None for other expressions."""
    if isinstance(node, ast.Name):
        return {**vars(builtins), **frame.f_globals, **frame.f_locals}.get(node.id)
    if isinstance(node, ast.Attribute):
        try:
            return getattr(_value(node.value, frame), node.attr, None)
        except Exception:  # noqa: BLE001 - of a property of the user's
            return None
    return None
