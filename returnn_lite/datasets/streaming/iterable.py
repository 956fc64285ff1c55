"""Sequences from anything that can be iterated: functions of a config, torch's IterableDataset, streams of the hub."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.datasets.options import BaseOptions, DataError
from returnn_lite.datasets.registry import dataset
from returnn_lite.datasets.streaming.stream import Entry, Reading, StreamDataset
from returnn_lite.datasets.tables.rows import Rows
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log


@dataset("IterableDataset")
class IterableDataset(StreamDataset, Rows):
    """Dicts, one per sequence, with the entries described by `data_format`, as for HuggingFaceDataset.

    `source`: something to iterate, as torch.utils.data.IterableDataset and streamed datasets of Hugging Face are; a
    function without arguments that gives such a thing, or is a generator; or a dict of options for
    datasets.load_dataset, which then streams. It is iterated anew for each pass. Where it has a method `skip` that is
    used to go on, else what came before is read once more. Tags are the entry `seq_tag_key`, or "seq-<number>".
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        source: ConfigValue,
        data_format: Mapping[str, ConfigDict],
        seq_tag_key: str | None = None,
        seqs_per_epoch: int | None = None,
        shuffle_window: int = 0,
        sort_window: int = 0,
        length_key: str | None = None,
        log: Log | None = None,
    ):
        StreamDataset.__init__(
            self,
            base,
            seqs_per_epoch=seqs_per_epoch,
            shuffle_window=shuffle_window,
            sort_window=sort_window,
            length_key=length_key,
            log=log,
        )
        self.source, self.tag_key = source, seq_tag_key
        self.set_format(data_format)
        self.check_length_key()

    def entries(self, skip: int) -> Iterator[Reading]:
        """One pass."""
        rows = self._rows()
        if skip and hasattr(rows, "skip"):
            numbered = enumerate(rows.skip(skip), skip)
        else:
            numbered = islice(enumerate(rows), skip, None)
        for number, row in numbered:
            yield partial(self._entry_of, number, row)

    def _entry_of(self, number: int, row: ConfigValue) -> Entry:
        tag = f"seq-{number}"
        if not isinstance(row, Mapping):
            raise DataError(f'{self.name}: sequence "{tag}"', f"must be a dict, but is {type(row).__name__} instead")
        tag = tag if self.tag_key is None else str(row.get(self.tag_key, tag))
        return tag, partial(self.seq_of_row, tag, row)

    def _rows(self) -> Any:
        path, source = f"{self.name}: source", self.source
        if isinstance(source, Mapping):
            return streamed(source, path)
        if callable(source) and not hasattr(source, "__iter__"):
            source = source()
            if isinstance(source, Mapping):
                return streamed(source, path)
        if inspect.isgenerator(source) and source is self.source:
            raise ConfigError(
                path, "must be a function that returns a generator: a generator itself can be read only once"
            )
        if not isinstance(source, Iterable) or isinstance(source, str):
            raise ConfigError(path, f"must be an iterable, a function that returns one, or a dict, but is {source!r}")
        return source


def streamed(options: ConfigDict, path: str) -> Any:  # Any: of an optional package
    """A streamed dataset of Hugging Face, by the options of load_dataset."""
    try:
        import datasets
    except ImportError:
        raise ConfigError(path, 'needs the package datasets: pip install "returnn-lite[huggingface]"') from None
    try:
        found = datasets.load_dataset(**{**options, "streaming": True})
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as exc:
        raise ConfigError(path, f"cannot be read: {type(exc).__name__}: {str(exc).splitlines()[0]}") from None
    if isinstance(found, Mapping):
        raise ConfigError(path, f'must name one split, such as "split": "{next(iter(found))}", of {sorted(found)}')
    return found
