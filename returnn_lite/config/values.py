"""From text and loosely typed values to the type of an option. Numbers are taken leniently, nonsense is an error."""

from __future__ import annotations

import ast

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError

TRUE_WORDS = frozenset({"true", "yes", "on", "1"})
FALSE_WORDS = frozenset({"false", "no", "off", "0"})


def split_text(text: str) -> list[str]:
    """An untyped value: split at commas, blanks kept; a comma in first place does not split.  "a,b " -> ["a", "b "]"""
    return text.split(",") if text.find(",") > 0 else [text]


def parse_bool(text: str) -> bool | None:
    """true/yes/on and false/no/off in any case, integers by != 0; None for any other text."""
    word = text.strip().lower()
    if word in TRUE_WORDS or word in FALSE_WORDS:
        return word in TRUE_WORDS
    try:
        return int(word) != 0
    except ValueError:
        return None


def parse_number(text: str) -> int | float | None:
    """An int if the text is one, else a float; None for any other text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return None


def parse_literal(key: str, text: str) -> ConfigValue:
    """A number, a dict, tuple or list in Python syntax, a quoted string, True, False, None; any other text as it is."""
    number = parse_number(text)
    if number is not None:
        return number
    stripped = text.strip()
    if not (stripped[:1] and stripped[0] in "{([\"'") and stripped not in ("True", "False", "None"):
        return text
    try:
        return ast.literal_eval(stripped)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as exc:
        raise wrong(key, "a Python literal", text) from exc


def wrong(key: str, expected: str, value: ConfigValue) -> ConfigError:
    """The error for an option whose value is not what was expected."""
    return ConfigError(key, f"must be {expected}, but is {value!r} instead")


def plain(value: ConfigValue) -> ConfigValue:
    """A scalar of numpy or torch as the Python number that it holds; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def to_int(key: str, value: ConfigValue) -> int:
    """An int from an int, a bool, a whole float, or the text of one."""
    value = plain(value)
    if isinstance(value, int):
        return int(value)
    number = parse_number(value) if isinstance(value, str) else value
    if isinstance(number, int) or isinstance(number, float) and number.is_integer():
        return int(number)
    raise wrong(key, "an int", value)


def to_float(key: str, value: ConfigValue) -> float:
    """A float from a number or the text of one (also "inf", "nan")."""
    value = plain(value)
    number = parse_number(value) if isinstance(value, str) else value
    if isinstance(number, (int, float)):
        return float(number)
    raise wrong(key, "a float", value)


def to_bool(key: str, value: ConfigValue) -> bool:
    """A bool from a bool, an int, or the text of one."""
    value = plain(value)
    if isinstance(value, int):
        return bool(value)
    parsed = parse_bool(value) if isinstance(value, str) else None
    if parsed is None:
        raise wrong(key, "a bool (true or false)", value)
    return parsed


def to_pair(key: str, values: list[ConfigValue]) -> tuple[int, int]:
    """A pair of ints from two entries, or from one, which is doubled unless it is the text "a:b"."""
    if len(values) == 1 and isinstance(values[0], str):
        values = values[0].split(":")
    if len(values) not in (1, 2):
        raise wrong(key, "one int or two", values)
    return to_int(key, values[0]), to_int(key, values[-1])


def evaluate_like(key: str, text: str, previous: object) -> tuple[ConfigValue, str]:
    """The new value of an option which the config already defines as `previous`, and a warning ("" if none).

    A str stays a str. Anything else: the text is evaluated as a Python expression, whose type need not be the previous
    one. Text that is no expression is kept as text, with a warning. A name that does not exist is an error; only where
    the previous value was None, which says nothing about the type, is such text kept as well.
    """
    if isinstance(previous, str):
        return text, ""
    try:
        return eval(text, {}), ""
    except Exception as exc:
        if not isinstance(exc, SyntaxError) and not (previous is None and isinstance(exc, (NameError, AttributeError))):
            hint = f"; write {parse_bool(text)}" if parse_bool(text) is not None else ""
            raise ConfigError(key, f"cannot evaluate {text!r}: {type(exc).__name__}: {exc}{hint}") from exc
        warning = (
            f"WARNING: can't evaluate config param {text!r} to previous type: {type(previous)}. Keeping as string."
        )
        return text, warning
