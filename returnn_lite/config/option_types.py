"""Whether the values of options are what the annotations of a function's parameters say; one small checker for all.

Annotations may have ranges: `Annotated[int, Range(1)]`, or a name for it such as `PositiveInt`.
"""

from __future__ import annotations

import collections.abc
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from returnn_lite.config.values import plain
from returnn_lite.config_value import ConfigDict, ConfigFunction, ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean

HUGE = 2**63  # no integer of a tensor is larger
SEQUENCES = (list, tuple, set, frozenset, range)
Test = Callable[[ConfigValue], bool]


@dataclass(frozen=True)
class Range:
    """What a number must be, besides its type: at least `low`, above `above`, at most `high`, below `below`.

    `words`: how errors call such a number, where that is not made of the bounds.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    words: str = ""

    def __contains__(self, value: float) -> bool:
        return not (
            (self.low is not None and value < self.low)
            or (self.high is not None and value > self.high)
            or (self.above is not None and value <= self.above)
            or (self.below is not None and value >= self.below)
        )

    def name(self, kind: str) -> str:
        """How errors call numbers of this kind ("an int") within the range."""
        bounds = (("of at least", self.low), ("above", self.above), ("at most", self.high), ("below", self.below))
        made = " and ".join(f"{words} {bound}" for words, bound in bounds if bound is not None)
        return self.words or f"{kind} {made}"


MAX_SIZE = 2**31 - 1
PositiveInt = Annotated[int, Range(1, MAX_SIZE, words="an int from 1 to 2**31 - 1")]
NaturalInt = Annotated[int, Range(0, MAX_SIZE, words="an int from 0 to 2**31 - 1")]
PositiveFloat = Annotated[float, Range(above=0)]
NaturalFloat = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Rate = Annotated[float, Range(0, below=1)]  # of dropout: how much is left out


@dataclass(frozen=True)
class Kind:
    """A kind of values: its name in errors ("an int"), what tells whether a value is one, the words it knows, and
    what makes the Python value that functions expect (a bool of 0, an int of one of numpy)."""

    name: str
    test: Test
    words: tuple[str, ...] = ()
    convert: Callable[[ConfigValue], ConfigValue] = lambda value: value  # noqa: E731


ANYTHING = Kind("anything", lambda value: True)
NONE = Kind("None", lambda value: value is None)
PLURALS = {"a bool": "bools", "an int": "ints", "a number": "numbers", "a str": "strs", "a Dim": "Dims"}


def is_number(value: ConfigValue) -> bool:
    """Whether it is a number, of Python, numpy or torch, but no bool and not NaN."""
    value = plain(value)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return not math.isnan(float(value))


def _as_number(value: ConfigValue) -> ConfigValue:
    """The number; a float in the place of an int that tensors cannot hold."""
    value = plain(value)
    return float(value) if isinstance(value, int) and abs(value) >= HUGE else value


def is_int(value: ConfigValue) -> bool:
    """Whether it is an integer, of Python, numpy or torch, but no bool, and fits into a tensor."""
    value = plain(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < HUGE


def is_bool(value: ConfigValue) -> bool:
    """Whether it says yes or no: a bool, 0 or 1, or None."""
    value = plain(value)
    return value is None or isinstance(value, bool) or isinstance(value, int) and value in (0, 1)


SIMPLE: dict[Any, Kind] = {
    Any: ANYTHING,
    object: ANYTHING,
    None: NONE,
    type(None): NONE,
    bool: Kind("a bool", is_bool, convert=bool),
    int: Kind("an int", is_int, convert=plain),
    float: Kind("a number", is_number, convert=_as_number),
    str: Kind("a str", lambda value: isinstance(value, str)),
}


def kind_of(annotation: object) -> Kind:
    """The kind of values that an annotation stands for."""
    simple = SIMPLE.get(annotation) if isinstance(annotation, collections.abc.Hashable) else None
    if simple is not None:
        return simple
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _ranged(kind_of(arguments[0]), arguments[1:])
    if origin in (typing.Union, types.UnionType):
        return _any_of([kind_of(argument) for argument in arguments])
    if origin is Literal:
        return Kind(f"one of {', '.join(map(repr, arguments))}", lambda value: _among(value, arguments), arguments)
    return _container(origin or annotation, arguments)


def _among(value: ConfigValue, choices: Iterable[Any]) -> bool:
    return isinstance(value, collections.abc.Hashable) and value in set(choices)


def _ranged(kind: Kind, ranges: Iterable[Any]) -> Kind:
    for limit in ranges:
        kind = _within(kind, limit)
    return kind


def _within(kind: Kind, limit: Any) -> Kind:
    """The values of a kind that are in `limit`: a Range, or an object like it."""
    return Kind(limit.name(kind.name), lambda value: kind.test(value) and plain(value) in limit, convert=kind.convert)


def _any_of(kinds: list[Kind]) -> Kind:
    names = list(dict.fromkeys(kind.name for kind in kinds))
    words = tuple(word for kind in kinds for word in kind.words)
    name = f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]

    def convert(value: ConfigValue) -> ConfigValue:
        """What the first kind that knows the value makes of it; None stays."""
        return next((kind.convert(value) for kind in kinds if value is not None and kind.test(value)), value)

    return Kind(name, lambda value: any(kind.test(value) for kind in kinds), words, convert)


def _container(origin: Any, arguments: tuple[Any, ...]) -> Kind:
    """Lists, dicts, functions, and instances of classes."""
    if origin is collections.abc.Callable:
        return Kind("a function", callable)
    if origin in (list, tuple, collections.abc.Sequence, collections.abc.Iterable):
        entry = kind_of(arguments[0]) if arguments else ANYTHING
        of = "" if entry is ANYTHING else f" of {PLURALS.get(entry.name, f'({entry.name})')}"
        return Kind(f"a list{of}", lambda value: _is_list(value) and all(entry.test(item) for item in value))
    if origin in (dict, collections.abc.Mapping):
        key, entry = [kind_of(argument) for argument in arguments] if len(arguments) == 2 else [ANYTHING, ANYTHING]
        named = key.name in PLURALS and entry.name in PLURALS
        of = f" of {PLURALS[key.name]} to {PLURALS[entry.name]}" if named else ""
        return Kind(
            f"a dict{of}",
            lambda value: isinstance(value, Mapping) and all(key.test(k) and entry.test(v) for k, v in value.items()),
        )
    if inspect.isclass(origin):
        return Kind(f"a {origin.__name__}", lambda value: isinstance(value, origin))
    return ANYTHING


def _is_list(value: ConfigValue) -> bool:
    return isinstance(value, SEQUENCES) or getattr(value, "ndim", 0) == 1


@cache
def option_kinds(function: ConfigFunction) -> Mapping[str, Kind]:
    """The kinds of a function's parameters (or of the fields of a dataclass) by name; {} where the annotations cannot
    be read. A parameter whose default is None may be None."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):  # classes of configs: what they name need not exist
        return {}
    kinds = {name: kind_of(annotation) for name, annotation in hints.items() if name != "return"}
    defaults = {name: p.default for name, p in inspect.signature(function).parameters.items()}
    return {
        name: _any_of([kind, NONE]) if defaults.get(name, ...) is None and not kind.test(None) else kind
        for name, kind in kinds.items()
    }


def wrong_values(kinds: Mapping[str, Kind], options: ConfigDict, path: str) -> list[ConfigError]:
    """An error for each option whose value is not of its kind; `path` is where the options stand."""
    return [
        wrong_value(path, name, kinds[name], value)
        for name, value in options.items()
        if name in kinds and not _passes(kinds[name], value)
    ]


def converted(kinds: Mapping[str, Kind], options: ConfigDict) -> ConfigOptions:
    """The options, which have passed `wrong_values`, as the Python values that functions expect."""
    return {name: kinds[name].convert(value) if name in kinds else value for name, value in options.items()}


def _passes(kind: Kind, value: ConfigValue) -> bool:
    try:
        return kind.test(value)
    except (TypeError, ValueError, OverflowError, RecursionError):  # arrays, and whatever compares strangely
        return False


def wrong_value(path: str, name: str, kind: Kind, value: ConfigValue) -> ConfigError:
    """The error for one option."""
    hint = did_you_mean(value, kind.words) if isinstance(value, str) else ""
    return ConfigError(path, f"`{name}` must be {kind.name}, but is {shortened(value)} instead{hint}")


def shortened(value: ConfigValue, length: int = 120) -> str:
    """The value as Python writes it, on one line, the middle of a long one left out."""
    text = " ".join(repr(value).split())
    return text if len(text) <= length else f"{text[: length // 2]} … {text[-length // 4 :]}"
