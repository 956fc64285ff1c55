"""`Config`: the options of a run, with typed access."""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from returnn_lite.config import values
from returnn_lite.config.cfg_form import parse_cfg
from returnn_lite.config.python_form import run_python
from returnn_lite.config.syntax import (
    Form,
    decode_config,
    detect_form,
    parse_json,
    parse_lines,
    parse_yaml,
    read_config,
    refuse_python,
)
from returnn_lite.config_value import ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError

D = TypeVar("D")
R = TypeVar("R")

# Config has methods called like the built-in types, therefore these names.
Options = ConfigOptions
Untyped = dict[str, list[str]]
IntPair = tuple[int, int]

# Names that a Python config has among its globals but that are no options. (`config` may be rebound by the file.)
NO_OPTIONS = frozenset({"config", "__builtins__"})
# Options that the reference ignores in line-based files: published results were made without them.
NOT_FROM_LINES = frozenset({"batch_size"})
LISTS = (list, tuple)
_ABSENT = object()


class Config:
    """All options of a run.

    An option is *typed* (from a Python, JSON or YAML file: any value) or *untyped* (from lines or the command line:
    a list of strings, split at commas). Typed ones win. `typed` is the very dict that is the globals of a Python
    config: a change here is seen by the config's functions, and the other way round. A dict given to the constructor
    is used as is, not copied. `eval_names`, set by who runs a task, makes the names that eval strings of layers may use
    for the context of a network.

    The accessors (`int`, `float`, …) take the key and a default, which is returned where the option is absent; they
    raise ConfigError naming the option if its value cannot be read as that type.
    """

    def __init__(self, typed: Options | None = None) -> None:
        self.typed: Options = {} if typed is None else typed
        self.untyped: Untyped = {}
        self.warnings: list[str] = []  # found before there is a log; the command line logs them at verbosity 1
        self.eval_names: Callable[[Any], Mapping[str, ConfigValue]] | None = None
        self._from_lines: set[str] = set()  # untyped options that a line-based file gave, not the command line
        self._given: dict[str, str] = {}  # texts of the command line that no file defines otherwise; see `settle`
        self._loading: list[str] = []  # the files that are being read, each by the one before
        self.files: list[str] = []  # all that were read
        self.modules_before = frozenset(sys.modules)  # what is loaded later was imported by the config
        self._read: set[str] = set()

    def __repr__(self) -> str:
        return f"<Config with {len(self.keys())} options>"

    # Definition

    def set(self, key: str, value: ConfigValue) -> None:
        """Defines a typed option."""
        self.typed[key] = value

    def update(self, options: Options) -> None:
        """Defines several typed options."""
        self.typed.update(options)

    def set_text(self, key: str, text: str) -> None:
        """One `key text` of a line-based file or of the command line.

        If the option is typed already, the text is read by the kind of its present value (`values.evaluate_like`);
        else it is stored untyped. The key `include` loads the files it lists (relative to the working directory).
        """
        if key == "include":
            for filename in values.split_text(text):
                self.load_file(filename.strip())
        elif key in self.typed and key not in NO_OPTIONS:
            self.typed[key], warning = values.evaluate_like(key, text, self.typed[key])
            if warning:
                self.warnings.append(warning)
        else:
            self.untyped[key] = values.split_text(text)
            self._from_lines.discard(key)

    def settle(self, overrides: Sequence[tuple[str, str]]) -> None:
        """Says that all files are read, and what the command line has given: from now on `typed_value` knows the
        options which only the command line gives, as the Python literals that their texts are."""
        self._given = {key: text for key, text in overrides if key in self.untyped and key not in self._from_lines}

    def load_file(self, filename: str | os.PathLike[str]) -> None:
        """Reads a config file of any form into these options, at once. ConfigError if there is none or it is wrong, or
        if it includes itself."""
        filename = os.fspath(filename)
        try:
            source = read_config(filename)
        except ConfigError as exc:
            asked = f" ({self.files[-1]} includes it)" if self._loading else ""
            raise ConfigError(exc.path, exc.message + asked) from exc
        path = os.path.realpath(filename)
        if path in self._loading:
            chain = [os.path.basename(name) for name in (*self._loading[self._loading.index(path) :], path)]
            raise ConfigError(filename, f"a config must not include itself: {' -> '.join(chain)}")
        self.files.append(filename)
        self._loading.append(path)
        try:
            form = detect_form(filename, source.decode("utf-8-sig", "replace"))
            if form == "python":
                run_python(filename, source, self.typed, self)
            else:
                self._load_text(filename, form, source)
        finally:
            self._loading.pop()

    def _load_text(self, filename: str, form: Form, source: bytes) -> None:
        text = decode_config(filename, source)
        if form == "lines":
            self._load_lines(filename, text)
        else:
            parse = {"json": parse_json, "yaml": parse_yaml, "cfg": parse_cfg}[form]
            self.update(parse(filename, text))

    def _load_lines(self, filename: str, text: str) -> None:
        refuse_python(filename, text)
        for key, rest in parse_lines(filename, text):
            if rest.startswith("="):
                hint = "the file is read as lines `key value` (a Python config starts with the line #!rnn.py)"
                self.warnings.append(f"WARNING: {filename}: option {key!r} gets the text {rest!r}; {hint}")
            self.set_text(key, rest)
            if key in self.untyped:
                self._from_lines.add(key)

    # Access

    def has(self, key: str) -> builtins.bool:
        """Whether the option is given, typed or untyped."""
        self._read.add(key)
        return key not in NO_OPTIONS and (key in self.typed or key in self.untyped)

    def is_typed(self, key: str) -> builtins.bool:
        return key in self.typed and key not in NO_OPTIONS

    def value(self, key: str, default: D, index: builtins.int | None = None) -> str | D:
        """The option as text; lists joined by "," (or entry `index`); default for a typed None."""
        value = self._get(key)
        if value is _ABSENT or value is None:
            return default
        if isinstance(value, LISTS):
            return ",".join(str(item) for item in value) if index is None else str(value[index])
        return str(value)

    def typed_value(self, key: str, default: ConfigValue = None) -> ConfigValue:
        """The typed value as is; the default if there is none, even if a line-based file gives the option; what only
        the command line gives, as the Python literal that it is (see `settle`)."""
        self._read.add(key)
        if self.is_typed(key):
            return self.typed[key]
        return values.parse_literal(key, self._given[key]) if key in self._given else default

    def opt_typed_value(self, key: str, default: ConfigValue = None) -> ConfigValue:
        """The typed value as is, or the untyped text."""
        return self.typed_value(key) if self.is_typed(key) else self.value(key, default)

    def literal(self, key: str, default: ConfigValue = None) -> ConfigValue:
        """The typed value as is; untyped text as the Python number, dict, list, tuple, bool, None or quoted string that
        it is, any other text as str. For options of several types, such as `search_output_layer` or `train`."""
        if self.is_typed(key) or not self.has(key):
            return self.typed_value(key, default)
        return values.parse_literal(key, self.value(key, ""))

    def number_or_dict(self, key: str, default: ConfigValue) -> ConfigValue:
        """As `literal`, for options which are a number or a dict, list, tuple of numbers, such as `batch_size`: text
        that is none of these is an error. The default for options that count for nothing in line-based files
        (`ignored_keys`)."""
        value = default if key in self.ignored_keys() else self.literal(key, default)
        if isinstance(value, str) and self.has(key):
            value = values.parse_literal(key, value)
            if isinstance(value, str):
                raise values.wrong(key, "a number or a dict", value)
        return value

    def int(self, key: str, default: D, index: builtins.int = 0) -> builtins.int | D:
        """An int; of a list, entry `index`. A typed None is returned."""
        return self._convert(key, default, index, values.to_int)

    def float(self, key: str, default: D, index: builtins.int = 0) -> builtins.float | D:
        """A float; of a list, entry `index`. A typed None is returned."""
        return self._convert(key, default, index, values.to_float)

    def bool(self, key: str, default: D, index: builtins.int = 0) -> builtins.bool | D:
        """A bool, as bool, int or word (true/yes/on/1, false/no/off/0). A typed None is returned."""
        return self._convert(key, default, index, values.to_bool)

    def is_true(self, key: str, default: builtins.bool = False) -> builtins.bool:
        """Whether the option is on: the truth of any typed value, untyped text as in `bool`."""
        return builtins.bool(self.typed_value(key)) if self.is_typed(key) else self.bool(key, default)

    def bool_or_other(self, key: str, default: ConfigValue = None) -> ConfigValue:
        """The typed value as is; untyped text as a bool if it is one, else as str."""
        if self.is_typed(key) or not self.has(key):
            return self.typed_value(key, default)
        text = self.value(key, "")
        parsed = values.parse_bool(text)
        return text if parsed is None else parsed

    def list(self, key: str, default: D | None = None) -> builtins.list[ConfigValue] | D:
        """A list; a single value is a list of one. The default ([] if None) where the option is absent or None."""
        found = self._list(key)
        return ([] if default is None else default) if found is None else found

    def int_list(self, key: str, default: D | None = None) -> builtins.list[builtins.int] | D:
        """A list of ints, else as `list`."""
        found = self._list(key)
        return self.list(key, default) if found is None else [values.to_int(key, item) for item in found]

    def float_list(self, key: str, default: D | None = None) -> builtins.list[builtins.float] | D:
        """A list of floats, else as `list`."""
        found = self._list(key)
        return self.list(key, default) if found is None else [values.to_float(key, item) for item in found]

    def int_pair(self, key: str, default: IntPair = (0, 0)) -> IntPair:
        """Two ints: a list of two, a text "a:b", or one int, which is doubled."""
        found = self._list(key)
        return default if found is None else values.to_pair(key, found)

    # The whole

    @property
    def typed_dict(self) -> Options:
        """`typed`, under the name that configs use."""
        return self.typed

    @property
    def dict(self) -> Options:
        """The untyped options, under the name that configs use."""
        return cast(Options, self.untyped)

    def keys(self) -> builtins.list[str]:
        """The names of all options; without those which Python itself puts into a config's globals."""
        names = [*self.typed, *(key for key in self.untyped if key not in self.typed)]
        return [key for key in names if key not in NO_OPTIONS and not (key.startswith("__") and key.endswith("__"))]

    def ignored_keys(self) -> builtins.list[str]:
        """Options that count for nothing, since a line-based file gives them and nothing else does: `batch_size`, as
        in the reference. The command line's `++batch_size` and the typed options of other files do count."""
        return sorted(NOT_FROM_LINES & self._from_lines - self.typed.keys())

    def unread_keys(self) -> builtins.list[str]:
        """The options that nobody has asked for so far. Helper names of a Python config are among them."""
        return [key for key in self.keys() if key not in self._read]

    def was_read(self, key: str) -> builtins.bool:
        """Whether somebody has asked for the option so far."""
        return key in self._read

    def _get(self, key: str) -> ConfigValue:
        """The typed value, else the untyped list of strings, else _ABSENT."""
        self._read.add(key)
        if key in NO_OPTIONS:
            return _ABSENT
        return self.typed[key] if key in self.typed else self.untyped.get(key, _ABSENT)

    def _list(self, key: str) -> builtins.list[ConfigValue] | None:
        value = self._get(key)
        if value is _ABSENT or value is None:
            return None
        return builtins.list(value) if isinstance(value, LISTS) else [value]

    def _convert(self, key: str, default: D, index: builtins.int, convert: Callable[[str, ConfigValue], R]) -> R | D:
        value = self._get(key)
        if value is _ABSENT:
            return default
        if isinstance(value, LISTS):
            if not -len(value) <= index < len(value):
                raise values.wrong(key, f"a list with an entry {index}", value)
            value = value[index]
        return cast(R, None) if value is None else convert(key, value)
