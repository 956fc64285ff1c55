"""The text forms of a config file: which one it is, and its parser. The Python form is in `python_form.py`."""

from __future__ import annotations

import ast
import json
import re
from typing import Literal

import yaml

from returnn_lite.config.cfg_form import looks_like_cfg
from returnn_lite.config_value import ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError

Form = Literal["python", "yaml", "json", "cfg", "lines"]

_STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)


def read_config(filename: str) -> bytes:
    """The content of a config file. ConfigError if it cannot be read."""
    try:
        with open(filename, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise ConfigError("", f"config file not found: {filename!r}") from exc
    except IsADirectoryError as exc:
        raise ConfigError("", f"config file not found: {filename!r} is a directory") from exc
    except (OSError, ValueError) as exc:
        raise ConfigError("", f"config file {filename!r} cannot be read: {getattr(exc, 'strerror', exc)}") from exc


def decode_config(filename: str, source: bytes) -> str:
    """The text of a config file. ConfigError unless it is UTF-8."""
    try:
        return source.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ConfigError(filename, f"must be UTF-8 text, but has {exc.reason} at byte {exc.start}") from exc


def refuse_python(filename: str, text: str) -> None:
    """ConfigError for a Python config that would be read as lines `key value`, since nothing says that it is Python."""
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    spaced = [n for n in statements if isinstance(n, ast.Assign)]
    if any(isinstance(n, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)) for n in statements) or (
        len(spaced) > 1 and len(spaced) == len(statements)
    ):
        line = f"{filename}:{statements[0].lineno}"
        raise ConfigError(
            line, "looks like Python, but is not marked as such: begin the file with the line #!rnn.py, or call it .py"
        )


def detect_form(filename: str, text: str) -> Form:
    """`#!` first or a name in .py: Python; .yml or .yaml: YAML; .cfg and `[` first: cfg; `{` first: JSON; else lines of
    `key value`."""
    text = text.strip()
    if text.startswith("#!") or filename.endswith(".py"):
        return "python"
    if filename.endswith((".yml", ".yaml")):
        return "yaml"
    if looks_like_cfg(filename, text):
        return "cfg"
    return "json" if text.startswith("{") else "lines"


def parse_lines(filename: str, text: str) -> list[tuple[str, str]]:
    """(key, text) per line `key text`; `#` starts a comment; no quoting, no continuation."""
    items = []
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split("#", 1)[0].strip().split(None, 1)
        if len(parts) == 1:
            raise ConfigError(
                f"{filename}:{number}",
                f"unable to parse config line: {parts!r}; expected `key value`"
                " (a Python config starts with the line #!rnn.py)",
            )
        if parts:
            items.append((parts[0], parts[1]))
    return items


def strip_json_comments(text: str) -> str:
    """JSON text without // and /* */ comments; strings are left alone, line numbers stay."""

    def blank(match: re.Match[str]) -> str:
        found = match.group()
        return found if found.startswith('"') else "\n" * found.count("\n") or " "

    return _STRING_OR_COMMENT.sub(blank, text)


def parse_json(filename: str, text: str) -> ConfigOptions:
    """One JSON object, // and /* */ comments allowed."""
    try:
        content = json.loads(strip_json_comments(text))
    except json.JSONDecodeError as exc:
        raise ConfigError(
            f"{filename}:{exc.lineno}",
            f"config looks like JSON but invalid json content, {exc.msg} (column {exc.colno})",
        ) from exc
    except (RecursionError, ValueError) as exc:  # nested too deep; a number of too many digits
        raise ConfigError(filename, _too_much("JSON", exc)) from exc
    return _check_mapping(filename, content)


class _Loader(yaml.SafeLoader):
    """yaml.safe_load's loader, which also takes 1e-8 (without a dot) for the number that everybody means."""


_FLOAT_WITHOUT_DOT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT_WITHOUT_DOT, list("-+0123456789"))


def parse_yaml(filename: str, text: str) -> ConfigOptions:
    """One YAML mapping."""
    try:
        content = yaml.load(text, Loader=_Loader)  # a safe loader: plain values only
    except yaml.MarkedYAMLError as exc:
        line = f":{exc.problem_mark.line + 1}" if exc.problem_mark else ""
        raise ConfigError(f"{filename}{line}", f"invalid YAML content, {exc.problem or exc}") from exc
    except yaml.YAMLError as exc:
        raise ConfigError(filename, f"invalid YAML content, {' '.join(str(exc).split())}") from exc
    except (RecursionError, ValueError, TypeError) as exc:  # nested too deep; a date that is none; a key that is a list
        raise ConfigError(filename, _too_much("YAML", exc)) from exc
    return _check_mapping(filename, {} if content is None else content)


def _too_much(form: str, exc: Exception) -> str:
    what = "it is nested too deeply" if isinstance(exc, RecursionError) else " ".join(str(exc).split())
    return f"invalid {form} content, {what}"


def _check_mapping(filename: str, content: ConfigValue) -> ConfigOptions:
    if not isinstance(content, dict):
        raise ConfigError(filename, f"must be one mapping of options, but is a {type(content).__name__} instead")
    for key in content:
        if not isinstance(key, str):
            raise ConfigError(filename, f"option names must be strings, but {key!r} is a {type(key).__name__} instead")
    return content
