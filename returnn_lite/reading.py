"""Small files beside a corpus: texts, Python literals, pickles of plain values; plain or compressed by gzip."""

from __future__ import annotations

import ast
import gzip
import pickle
import zlib
from pathlib import Path
from typing import IO, Any

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError


def read_text(filename: str, option: str) -> str:
    """The UTF-8 text of a file, plain or `.gz`, without the mark that some editors begin files with."""
    return decoded(read_bytes(filename, option), filename, option).removeprefix("\ufeff")


def decoded(content: bytes, filename: str, option: str) -> str:
    """UTF-8 as text; raises ConfigError naming the first line that is none."""
    try:
        return content.decode("utf8")
    except UnicodeDecodeError as exc:
        line = content[: exc.start].count(b"\n") + 1
        found = f"{exc.reason} {content[exc.start]:#04x}"
        raise ConfigError(option, f"{filename}:{line}: must be UTF-8 text, but has an {found}") from None


def lines_of(text: str) -> list[str]:
    """The lines, which end in "\\n" or "\\r\\n" alone: U+2028 and its like may be labels."""
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def read_bytes(filename: str, option: str) -> bytes:
    """The content of a file, plain or `.gz`."""
    try:
        with _open(filename, option) as file:
            return file.read()
    except (OSError, EOFError, zlib.error) as exc:
        raise ConfigError(option, f"{filename} cannot be read: {exc}") from None


def read_literal(filename: str, option: str, kind: type = dict) -> ConfigValue:
    """The Python literal in a file, plain or `.gz`; raises ConfigError if it is not of the kind."""
    found = parse_literal(read_text(filename, option), filename, option, f"a Python {kind.__name__}")
    if not isinstance(found, kind):
        raise ConfigError(option, f"{filename} must hold a {kind.__name__}, but holds a {type(found).__name__}")
    return found


def parse_literal(text: str, filename: str, option: str, what: str) -> ConfigValue:
    """The value of a Python literal, the content of a file; raises ConfigError (must hold `what`) if it is none."""
    try:
        return ast.literal_eval(text.strip())
    except SyntaxError as exc:
        raise ConfigError(option, f"{filename}:{exc.lineno or 1}: must hold {what}: {exc.msg}") from None
    except (ValueError, TypeError, MemoryError, RecursionError) as exc:
        raise ConfigError(option, f"{filename} must hold {what}: {str(exc).splitlines()[0]}") from None


def read_pickle(filename: str, option: str) -> ConfigValue:
    """What a pickle file with plain values holds (lists, dicts, strings, numbers)."""
    with _open(filename, option) as file:
        try:
            return _PlainUnpickler(file).load()
        except Exception as exc:  # damaged pickles raise all kinds of errors
            text = str(exc) or type(exc).__name__
            raise ConfigError(option, f"{filename} cannot be read as a pickle file: {text}") from None


def _open(filename: str, option: str) -> IO[bytes]:
    """The file for reading bytes, decompressed if its name ends in `.gz`."""
    path = Path(filename)
    if not path.is_file():
        raise ConfigError(option, f"file {filename} does not exist")
    return gzip.open(path) if filename.endswith(".gz") else path.open("rb")  # type: ignore[return-value]


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dicts, strings and numbers; refuses anything that would run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("builtins", "set"), ("builtins", "frozenset"), ("__builtin__", "set")}:
            return set
        raise pickle.UnpicklingError(f"it must hold plain lists, dicts, texts and numbers, but holds {module}.{name}")
