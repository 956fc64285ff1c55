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
    with _open(filename, option) as file:
        if filename.removesuffix(".gz").endswith(".pkl"):
            return _PlainUnpickler(file).load()
        return file.read().decode("utf8").splitlines()


def read_seq_lens(filename: str, tags: Iterable[str], option: str = "seq_order_seq_lens_file") -> np.ndarray:
    """Lengths in the order of the tags, from a file (plain or `.gz`) with a Python dict {tag: number}."""
    with _open(filename, option) as file:
        text = file.read().decode("utf8")
    try:
        lens = ast.literal_eval(text)
    except (SyntaxError, ValueError) as exc:
        raise ConfigError(option, f"{filename} must hold a Python dict from tag to length: {exc}") from None
    if not isinstance(lens, dict):
        raise ConfigError(option, f"{filename} must hold a dict from tag to length, but holds a {type(lens).__name__}")
    try:
        return np.array([lens[tag] for tag in tags])
    except KeyError as exc:
        raise ConfigError(option, f"{filename} has no length of sequence {exc}") from None


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
