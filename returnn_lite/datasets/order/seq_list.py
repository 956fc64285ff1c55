"""Files beside a corpus: lists of sequence tags, and lengths per tag."""

from __future__ import annotations

import ast
import gzip
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from returnn_lite.errors import ConfigError


def read_seq_list(filename: str, option: str = "seq_list_filter_file") -> Any:
    """What a seq-list file holds: `.pkl` a pickled list (or dict of lists), else a tag a line; both possibly `.gz`."""
    if filename.removesuffix(".gz").endswith(".pkl"):
        return read_pickle(filename, option)
    return read_text(filename, option).splitlines()


def read_seq_lens(filename: str, tags: Iterable[str], option: str = "seq_order_seq_lens_file") -> np.ndarray:
    """Lengths in the order of the tags, from a file (plain or `.gz`) with a Python dict {tag: number}."""
    lens = read_literal(filename, option)
    try:
        return np.array([lens[tag] for tag in tags])
    except KeyError as exc:
        raise ConfigError(option, f"{filename} has no length of sequence {exc}") from None


def read_text(filename: str, option: str) -> str:
    """The UTF-8 text of a file, plain or `.gz`."""
    try:
        return read_bytes(filename, option).decode("utf8")
    except UnicodeDecodeError as exc:
        raise ConfigError(option, f"{filename} must be UTF-8 text: {exc}") from None


def read_bytes(filename: str, option: str) -> bytes:
    """The content of a file, plain or `.gz`."""
    try:
        with _open(filename, option) as file:
            return file.read()
    except (OSError, EOFError) as exc:
        raise ConfigError(option, f"{filename} cannot be read: {exc}") from None


def read_literal(filename: str, option: str, kind: type = dict) -> Any:
    """The Python literal in a file, plain or `.gz`; raises ConfigError if it is not of the kind."""
    try:
        found = ast.literal_eval(read_text(filename, option))
    except (SyntaxError, ValueError) as exc:
        raise ConfigError(option, f"{filename} must hold a Python {kind.__name__}: {exc}") from None
    if not isinstance(found, kind):
        raise ConfigError(option, f"{filename} must hold a {kind.__name__}, but holds a {type(found).__name__}")
    return found


def read_pickle(filename: str, option: str) -> Any:
    """What a pickle file with plain values holds (lists, dicts, strings, numbers)."""
    try:
        with _open(filename, option) as file:
            return _PlainUnpickler(file).load()
    except (pickle.UnpicklingError, EOFError, OSError, AttributeError, UnicodeDecodeError) as exc:
        raise ConfigError(option, f"{filename} cannot be read as a pickle file: {exc}") from None


def _open(filename: str, option: str) -> IO[bytes]:
    """The file for reading bytes, decompressed if its name ends in `.gz`."""
    path = Path(filename)
    if not path.is_file():
        raise ConfigError(option, f"there is no file {filename}")
    return gzip.open(path) if filename.endswith(".gz") else path.open("rb")  # type: ignore[return-value]


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dicts, strings and numbers; refuses anything that would run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("builtins", "set"), ("builtins", "frozenset"), ("__builtin__", "set")}:
            return set
        raise pickle.UnpicklingError(f"a list of sequences must not contain {module}.{name}")
