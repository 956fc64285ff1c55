"""Variable scope names of layers, as the reference writes them into checkpoints."""

from __future__ import annotations

_TO_UNDERSCORES = set(":(){}&+-*'\", ")


def scope_name(layer: str) -> str:
    """The scope of a layer name: ASCII only, special characters as "__", a leading _ - backslash or / as ".<code>."."""
    ascii_only = "".join(c for c in layer if ord(c) < 128)
    text = "".join("__" if c in _TO_UNDERSCORES else c for c in ascii_only)
    if text and text[0] in "_-\\/":
        return f".{ord(text[0])}.{text[1:]}"
    return text


def join(prefix: str, scope: str | None, layer: str) -> str:
    """The full scope of a layer: its `name_scope` ("" = none, leading "/" = absolute) or its name, below `prefix`."""
    if scope is None:
        scope = scope_name(layer)
    elif scope.startswith("/"):
        return scope[1:]
    return "/".join(part for part in (prefix, scope) if part)
