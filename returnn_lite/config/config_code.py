"""Exceptions of code that stands in a config: told in one line, with the file's line number and what it compared."""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import os
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, TracebackType
from typing import TypeVar

from returnn_lite.config.call_errors import told_name
from returnn_lite.config.option_types import shortened
from returnn_lite.errors import ConfigError, did_you_mean, package_folder

T = TypeVar("T")
Place = tuple[FrameType, int]  # a frame and its line number

_PYTHON = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_LIBRARIES = tuple(os.path.join(folder, "") for folder in {package_folder(), *_PYTHON})


@contextmanager
def code_errors() -> Iterator[None]:
    """Turns exceptions that come out of a config's functions into ConfigErrors with file and line; others pass."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as exc:
        place = code_place(exc.__traceback__)
        if place is None:
            raise
        raise code_error(exc, place) from exc


def is_library(filename: str) -> bool:
    """Whether a file of code belongs to this library, to Python, or to an installed package."""
    return filename.startswith((*_LIBRARIES, "<"))


def call(function: Callable[..., T], name: str, **arguments: object) -> T:
    """`function(**arguments)` for the function that the config defines as `name`. ConfigError if it does not take
    these arguments."""
    check_arguments(function, name, arguments)
    return function(**arguments)


def check_arguments(function: Callable[..., object], name: str, arguments: Iterable[str]) -> None:
    """ConfigError if a function that the config defines as `name` does not take these arguments by name."""
    try:
        inspect.signature(function).bind(**dict.fromkeys(arguments))
    except TypeError as exc:
        taken = f"that takes {', '.join(arguments)}" if arguments else "without arguments"
        raise ConfigError(name, f"must be a function {taken}, but: {exc}") from exc
    except ValueError:  # built into Python, without a signature
        pass


def code_place(trace: TracebackType | None) -> Place | None:
    """The innermost frame of a traceback that runs code of neither this library nor Python's; below the frame that
    caught the exception."""
    found = None
    for frame, line in list(traceback.walk_tb(trace))[1:]:
        if not is_library(frame.f_code.co_filename):
            found = frame, line
    return found


def code_error(exc: BaseException, place: Place) -> ConfigError:
    """The ConfigError for an exception that came out of this line of a config."""
    frame, line = place
    if isinstance(exc, SyntaxError) and exc.filename and exc.lineno:  # of a module that the line imports
        return syntax_error(exc, exc.filename)
    return ConfigError(f"{frame.f_code.co_filename}:{line}", f"{type(exc).__name__}: {_text(exc, place)}")


def syntax_error(exc: SyntaxError, filename: str) -> ConfigError:
    """The ConfigError for a file that is no Python."""
    where = f"{exc.filename or filename}:{exc.lineno}" if exc.lineno else filename
    return ConfigError(where, f"{type(exc).__name__}: {exc.msg}: {(exc.text or '').strip()}".rstrip(": "))


def _text(exc: BaseException, place: Place) -> str:
    told = told_name(exc, place[0]) or " ".join(str(exc).split())
    if isinstance(exc, AssertionError):
        compared = _assertion(place)
        return f"{told} ({compared})" if told and compared else told or compared
    return told or _source(place)


def _source(place: Place) -> str:
    return linecache.getline(place[0].f_code.co_filename, place[1]).strip()


def _assertion(place: Place) -> str:
    """The source of an `assert`, and the values of the variables in it: "assert n == 3, where n = 4"."""
    frame, line = place
    linecache.checkcache(frame.f_code.co_filename)
    lines = linecache.getlines(frame.f_code.co_filename)
    try:
        nodes = [n for n in ast.walk(ast.parse("".join(lines))) if isinstance(n, ast.Assert)]
    except (SyntaxError, ValueError, RecursionError):
        return _source(place)
    found = next((n for n in nodes if n.lineno <= line <= (n.end_lineno or n.lineno)), None)
    if found is None:
        return _source(place)
    names = dict.fromkeys(n.id for n in ast.walk(found.test) if isinstance(n, ast.Name))
    known = {**frame.f_globals, **frame.f_locals}
    values = [f"{name} = {shortened(known[name], 60)}" for name in names if _is_value(known.get(name, len))]
    return f"assert {ast.unparse(found.test)}" + (f", where {', '.join(values)}" if values else "")


def _is_value(value: object) -> bool:
    return not callable(value) and not hasattr(value, "__loader__")


# --- expressions in texts ---------------------------------------------------------------------------------------------


def expression(text: str, what: str) -> CodeType:
    """The compiled expression; ConfigError if it is none. `what`: the option that it stands in."""
    try:
        return compile(text.strip(), f"<{what}>", "eval")
    except SyntaxError as exc:
        where = f" at {(exc.text or '').strip()[max((exc.offset or 1) - 1, 0) :]!r}" if exc.text and exc.offset else ""
        raise ConfigError(
            "", f"`{what}` must be a Python expression, but {text!r} is not one: {exc.msg}{where}"
        ) from exc
    except (ValueError, RecursionError, MemoryError) as exc:
        shown = shortened(text)
        raise ConfigError("", f"`{what}` must be a Python expression, but {shown} is not one: {exc}") from exc


def check_names(text: str, what: str, known: Iterable[str]) -> None:
    """ConfigError for a name in the expression that is neither known nor built into Python."""
    tree = ast.parse(text.strip(), mode="eval")
    nodes = list(ast.walk(tree))
    bound = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    bound |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    names = {*known, *dir(builtins)} | bound
    for node in nodes:
        if isinstance(node, ast.Name) and node.id not in names:
            hint = did_you_mean(node.id, names)
            raise ConfigError("", f"the name {node.id!r} in `{what}` {shortened(text)} is not defined{hint}")
