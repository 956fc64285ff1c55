"""Files beside a corpus: lists of sequence tags, and lengths per tag."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError
from returnn_lite.reading import read_literal, read_pickle, read_text


def read_seq_list(filename: str, option: str = "seq_list_filter_file") -> ConfigValue:
    """What a seq-list file holds: `.pkl` a pickled list (or dict of lists), else a tag a line; both possibly `.gz`."""
    if filename.removesuffix(".gz").endswith(".pkl"):
        return read_pickle(filename, option)
    return read_text(filename, option).splitlines()


def read_seq_lens(filename: str, tags: Iterable[str], option: str = "seq_order_seq_lens_file") -> np.ndarray:
    """Lengths in the order of the tags, from a file (plain or `.gz`) with a Python dict {tag: number}."""
    lens = read_literal(filename, option)
    try:
        found = [lens[tag] for tag in tags]
    except KeyError as exc:
        raise ConfigError(option, f"{filename} has no length of sequence {exc}") from None
    for tag, length in lens.items():
        if not isinstance(length, int | float) or not length >= 0:  # NaN is not
            raise ConfigError(option, f'{filename}: the length of "{tag}" must be a number >= 0, but is {length!r}')
    return np.array(found)
