"""The table of global options as text: `rnn.py --help-option NAME`, docs/options.md, and a JSON schema for editors."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from returnn_lite.config.options import GROUPS, IGNORED_KEYS, OPTIONS, REFUSED_KEYS, GlobalOption
from returnn_lite.config.options.option import NONE
from returnn_lite.errors import ConfigError, did_you_mean

SCHEMA = "https://json-schema.org/draft/2020-12/schema"
JSON_TYPES = {
    "str": "string", "list": "array", "dict": "object", "bool": "boolean", "int": "integer", "float": "number",
    "number": "number",
}  # fmt: skip


def describe_option(name: str) -> str:
    """What one option is. Raises ConfigError with the nearest name for an unknown one."""
    if name in OPTIONS:
        option = OPTIONS[name]
        return f"{name}\n    type     {option.type}\n    default  {option.default}\n    {_plain(option.meaning)}\n"
    if name in REFUSED_KEYS:
        return f"{name}\n    not supported: {REFUSED_KEYS[name]}\n"
    if name in IGNORED_KEYS:
        return f"{name}\n    accepted, without effect\n"
    hint = did_you_mean(name, [*OPTIONS, *REFUSED_KEYS, *IGNORED_KEYS])
    raise ConfigError("--help-option", f"unknown option {name!r}{hint}; docs/options.md lists all")


def _plain(text: str) -> str:
    return text.replace("`", "")


def page() -> str:
    """The reference in Markdown."""
    parts = [
        "# Global options\n",
        "Written by `make docs` from the table that also checks them (`returnn_lite/config/options/`). "
        "`rnn.py --help-option NAME` prints one.\n",
        "Any other name in a config is a variable of the user. `++NAME VALUE` on the command line overrides an option, "
        "and so does a further config file after the first one ([configs.md](configs.md)).\n",
    ]
    for group in GROUPS:
        rows = [(f"`{o.name}`", o.type, _default(o), o.meaning) for o in group.options]
        parts += [f"## {group.title}\n", f"{group.text}\n", _table(("option", "type", "default", ""), rows)]
    refused = [(f"`{name}`", reason) for name, reason in sorted(REFUSED_KEYS.items())]
    ignored = ", ".join(f"`{name}`" for name in sorted(IGNORED_KEYS))
    parts += ["## Not supported\n", _table(("option", "instead"), refused)]
    parts += ["## Without effect\n", f"Accepted, since configs have them: {ignored}.\n"]
    return "\n".join(parts)


def _default(option: GlobalOption) -> str:
    return option.default if option.default == NONE else f"`{option.default}`"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines).replace("|  |", "| |")


def schema() -> dict[str, Any]:
    """A JSON schema of configs in JSON or YAML, for editors. Options of one's own are allowed."""
    properties = {name: _property(option) for name, option in OPTIONS.items()}
    return {
        "$schema": SCHEMA,
        "title": "returnn_lite config",
        "type": "object",
        "properties": dict(sorted(properties.items())),
    }


def _property(option: GlobalOption) -> dict[str, Any]:
    """The entry of one option; functions cannot stand in JSON, but a text may name one."""
    found: dict[str, Any] = {"description": _plain(option.meaning)}
    if option.default != NONE:
        found["description"] += f" Default: {option.default}."
    kind = option.kind
    if get_origin(kind) is Annotated:
        annotated, limit = get_args(kind)
        found["type"] = [JSON_TYPES[annotated.__name__], "null"]
        found |= {key: value for key, value in (("minimum", limit.low), ("maximum", limit.high)) if value is not None}
    elif isinstance(kind, type):
        found["type"] = [JSON_TYPES[kind.__name__], "null"]
    else:
        words = option.type.replace(", ", " or ").split(" or ")
        if all(word in JSON_TYPES for word in words):
            found["type"] = [*dict.fromkeys(JSON_TYPES[word] for word in words), "null"]
    return found


def main(argv: Sequence[str]) -> int:
    """Writes the page and the schema to the files that are named."""
    parser = argparse.ArgumentParser(
        prog="option_reference.py", description="Writes the reference of all global options, and a JSON schema."
    )
    parser.add_argument("page", type=Path, help="Markdown")
    parser.add_argument("schema", type=Path, help="JSON")
    arguments = parser.parse_args(argv)
    arguments.page.write_text(page(), encoding="utf-8")
    arguments.schema.write_text(json.dumps(schema(), indent=1) + "\n")
    return 0
