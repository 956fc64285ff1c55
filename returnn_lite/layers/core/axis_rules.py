"""Which ways to name an axis a behaviour version allows. Options that name axes are annotated with `AxisText`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from returnn_lite.config_value import ConfigDict
from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.registry import own_options

if TYPE_CHECKING:
    from returnn_lite.layers.core.base import Layer

NO_INTS, NO_ORDER = 5, 7  # behaviour versions from which these are errors
_ORDERED = re.compile(r"(s|spatial|d|dyn|dynamic|static|except_batch):-?\d+", re.IGNORECASE)


def check_axis_texts(cls: type[Layer], options: ConfigDict, behavior: int, path: str) -> None:
    """Raises ConfigError for axes given by number, or by their place among others, where the version forbids it."""
    if behavior < NO_INTS:
        return
    for name, parameter in own_options(cls).items():
        if "AxisText" not in str(parameter.annotation) or name not in options:
            continue
        for text in _texts(options[name]):
            if isinstance(text, int):
                what, version = "must not be a number", NO_INTS
            elif behavior >= NO_ORDER and _ORDERED.fullmatch(text):
                what, version = "must not depend on the order of the axes", NO_ORDER
            else:
                continue
            hint = 'name the axis: "T", "F", "dim:5", "stag:…" or a Dim'
            text = f"`{name}` {what} (since behavior_version >= {version}), but is {text!r} instead; {hint}"
            raise ConfigError(path, text)


def _texts(value: Any) -> Iterator[str | int]:
    """The texts and numbers in an option that names axes: one, several, or those in the keys and values of a dict."""
    if isinstance(value, Mapping):
        yield from (t for part in value for t in _texts(part))
        yield from (v for v in value.values() if isinstance(v, str))
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from (t for part in value for t in _texts(part))
    elif isinstance(value, (str, int)) and not isinstance(value, bool):
        yield value
