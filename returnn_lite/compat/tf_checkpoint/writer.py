"""Writing TensorFlow's checkpoints: one data file, the index, an empty graph file, and the list of checkpoints."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

from returnn_lite.compat.tf_checkpoint import strings
from returnn_lite.compat.tf_checkpoint.crc32c import crc32c, masked
from returnn_lite.compat.tf_checkpoint.entries import CODES, STRING, Entry, Header
from returnn_lite.compat.tf_checkpoint.reader import data_file
from returnn_lite.compat.tf_checkpoint.table import write_table
from returnn_lite.errors import ConfigError
from returnn_lite.files import write_atomically


def write_checkpoint(prefix: str, arrays: Mapping[str, Any], before_index: Callable[[], None] = lambda: None) -> None:
    """Writes {name: array} as `P.data-00000-of-00001` and `P.index`, byte by byte as TensorFlow does.

    The index comes last, as the sign that all is there; `before_index` is called before it.
    Arrays of bytes or text become string tensors.  Raises ConfigError for other objects and for unknown types.
    """
    encoded = {name.encode(): _Stored(name, array) for name, array in arrays.items()}
    if any(not key or key.startswith(b"\0") for key in encoded):
        raise ConfigError(prefix, "the names of tensors must not be empty, nor begin with a zero byte")
    table = [(b"", Header().serialized())]

    def write_data(file: BinaryIO) -> None:
        for key in sorted(encoded):
            table.append((key, encoded[key].write(file).serialized()))

    write_atomically(data_file(prefix, 0, 1), write_data)
    before_index()
    _write(prefix + ".index", lambda: write_table(table))


def write_with_companions(prefix: str, arrays: Mapping[str, Any]) -> None:
    """As `write_checkpoint`, and what other programs look for: the list `checkpoint` in the folder, and `P.meta`, empty
    because nobody reads the graph."""

    def companions() -> None:
        _write(prefix + ".meta", lambda: b"")
        write_list(prefix)

    write_checkpoint(prefix, arrays, companions)


def write_list(latest: str) -> None:
    """The file `checkpoint`: absolute names of all checkpoints in the folder, the oldest first, `latest` at the end."""
    latest = os.path.abspath(latest)
    folder = os.path.dirname(latest)
    indices = sorted(glob.glob(os.path.join(glob.escape(folder), "*.index")), key=lambda p: (os.path.getmtime(p), p))
    known = [path[: -len(".index")] for path in indices if not os.path.islink(path)]
    names = [*(name for name in known if name != latest), latest]
    lines = [f"model_checkpoint_path: {_quoted(latest)}"]
    lines += [f"all_model_checkpoint_paths: {_quoted(name)}" for name in names]
    content = "".join(f"{line}\n" for line in lines).encode()
    _write(os.path.join(folder, "checkpoint"), lambda: content)


def _write(path: str, content: Callable[[], bytes]) -> None:
    def write(file: BinaryIO) -> None:
        file.write(content())

    write_atomically(path, write)


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


class _Stored:
    """An array that is to be written."""

    def __init__(self, name: str, value: Any) -> None:
        array = np.asarray(value, order="C")
        self.shape = array.shape
        try:
            if array.dtype.kind in "OSU":
                self.dtype = STRING
                self.data: Any = array
                strings.as_strings(array)
            else:
                self.dtype = CODES[array.dtype.name]
                self.data = array.astype(array.dtype.newbyteorder("little"), copy=False)
        except KeyError:
            raise ConfigError(
                name, f"arrays of type {array.dtype} cannot be stored in a TensorFlow checkpoint"
            ) from None
        except TypeError as exc:
            raise ConfigError(name, str(exc)) from None

    def write(self, file: BinaryIO) -> Entry:
        """Appends the bytes to the data file."""
        offset = file.tell()
        if self.dtype == STRING:
            content, checksum = strings.encode(strings.as_strings(self.data))
        else:
            content = self.data.reshape(-1).view(np.uint8)
            checksum = crc32c(content)
        file.write(content)
        size = len(content)
        return Entry(self.dtype, self.shape, 0, offset, size, masked(checksum))
