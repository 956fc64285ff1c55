"""The text forms of a config file: which one it is, and its parser. The Python form is in `python_form.py`."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import yaml

from returnn_lite.config.cfg_form import looks_like_cfg
from returnn_lite.errors import ConfigError

Form = Literal["python", "yaml", "json", "cfg", "lines"]

_STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)


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


def parse_json(filename: str, text: str) -> dict[str, Any]:
    """One JSON object, // and /* */ comments allowed."""
    try:
        content = json.loads(strip_json_comments(text))
    except json.JSONDecodeError as exc:
        raise ConfigError(
            f"{filename}:{exc.lineno}",
            f"config looks like JSON but invalid json content, {exc.msg} (column {exc.colno})",
        ) from exc
    return _check_mapping(filename, content)


class _Loader(yaml.SafeLoader):
    """yaml.safe_load's loader, which also takes 1e-8 (without a dot) for the number that everybody means."""


_FLOAT_WITHOUT_DOT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT_WITHOUT_DOT, list("-+0123456789"))


def parse_yaml(filename: str, text: str) -> dict[str, Any]:
    """One YAML mapping."""
    try:
        content = yaml.load(text, Loader=_Loader)  # a safe loader: plain values only
    except yaml.MarkedYAMLError as exc:
        line = f":{exc.problem_mark.line + 1}" if exc.problem_mark else ""
        raise ConfigError(f"{filename}{line}", f"invalid YAML content, {exc.problem or exc}") from exc
    except yaml.YAMLError as exc:
        raise ConfigError(filename, f"invalid YAML content, {' '.join(str(exc).split())}") from exc
    return _check_mapping(filename, {} if content is None else content)


def _check_mapping(filename: str, content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ConfigError(filename, f"must be one mapping of options, but is a {type(content).__name__} instead")
    for key in content:
        if not isinstance(key, str):
            raise ConfigError(filename, f"option names must be strings, but {key!r} is a {type(key).__name__} instead")
    return content
