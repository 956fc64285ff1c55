"""Tables of the package datasets (Hugging Face): Arrow and Parquet files, folders saved by it, or hub names."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.datasets.order.tags import TagTable
from returnn_lite.datasets.registry import dataset
from returnn_lite.datasets.tables.rows import Rows
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log

SAVED = ("state.json", "dataset_dict.json")  # what save_to_disk writes beside its Arrow files


@dataset("HuggingFaceDataset")
class HuggingFaceDataset(Rows):
    """A table; `data_format` {column: {"dim", "shape" or "ndim", "dtype", "vocab" …}} selects the columns.

    `dataset_opts`: options of load_dataset; a folder of save_to_disk, or one with Arrow or Parquet files; a list of
    such files; or a function giving the table. `map_func`, `rename_columns` and `cast_columns` are applied to it. Texts
    become classes where there is a `vocab`. Tags are the column `seq_tag_column` (None: "seq-<i>").
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        dataset_opts: ConfigValue,
        data_format: Mapping[str, ConfigDict],
        use_file_cache: bool = False,
        map_func: Callable[[Any], Any] | None = None,
        rename_columns: Mapping[str, str] | None = None,
        cast_columns: ConfigDict | None = None,
        seq_tag_column: str | None = "id",
        sorting_seq_len_column_data: str | None = None,
        sorting_seq_len_column: str | None = None,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        self.table = self._opened(dataset_opts)
        if map_func is not None:
            self.table = map_func(self.table)
        if rename_columns:
            self.table = self.table.rename_columns(dict(rename_columns))
        for column, feature in (cast_columns or {}).items():
            self.table = self.table.cast_column(column, feature)
        for column in data_format:
            self._column(column, "data_format")
        self.set_format(data_format)
        self.tag_column = self._column(seq_tag_column, "seq_tag_column")
        self.length_column = self._column(sorting_seq_len_column, "sorting_seq_len_column")
        self.data_column = self._column(sorting_seq_len_column_data, "sorting_seq_len_column_data")
        self._lengths: np.ndarray | None = None
        self._tags: TagTable | None = None

    def _opened(self, options: ConfigValue) -> Any:
        path = f"{self.name}: dataset_opts"
        try:
            import datasets
        except ImportError:
            raise ConfigError(path, 'needs the package datasets: pip install "returnn-lite[huggingface]"') from None
        if not sys.stderr.isatty():
            datasets.disable_progress_bars()  # they are for terminals, not for log files
        options = options() if callable(options) else options
        try:
            if isinstance(options, Mapping):
                table = datasets.load_dataset(**options)
            elif isinstance(options, str):
                files = _loose_files(options)
                table = _of_files(datasets, files) if files else datasets.load_from_disk(options)
            elif isinstance(options, list | tuple):
                table = _of_files(datasets, [str(file) for file in options])
            else:
                table = options
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as exc:
            raise ConfigError(path, f"cannot be read: {type(exc).__name__}: {str(exc).splitlines()[0]}") from None
        if isinstance(table, datasets.DatasetDict):
            raise ConfigError(path, f'must name one split, such as split="{next(iter(table))}", of {sorted(table)}')
        if not isinstance(table, datasets.Dataset):
            raise ConfigError(path, f"must return a datasets.Dataset, but returned {type(table).__name__}")
        return table

    def _column(self, name: str | None, option: str) -> str | None:
        if name is not None and name not in self.table.column_names:
            hint = f"{did_you_mean(name, self.table.column_names)}; known: {self.table.column_names}"
            raise ConfigError(f"{self.name}: {option}", f'unknown column "{name}"{hint}')
        return name

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """Rows of the table."""
        return len(self.table)

    def get_all_tags(self) -> Sequence[str]:
        """The tags' column."""
        if self.tag_column is None:
            return super().get_all_tags()
        if self._tags is None:
            self._tags = TagTable.of(str(tag) for tag in self.table[self.tag_column])
        return self._tags

    def corpus_tag(self, index: int) -> str:
        """By the tags' column, or "seq-<i>"."""
        return f"seq-{index}" if self.tag_column is None else self.get_all_tags()[index]

    def sort_lengths(self) -> np.ndarray | None:
        """The column of lengths, or the lengths of a column's entries."""
        if self._lengths is None and self.length_column is not None:
            self._lengths = np.asarray(self.table[self.length_column][:])
        if self._lengths is None and self.data_column is not None:
            self._lengths = np.fromiter((len(entry) for entry in self.table[self.data_column]), np.int64)
        return self._lengths

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """The rows."""
        return [self.seq_of_row(self.corpus_tag(int(i)), self.table[int(i)]) for i in indices]


def _loose_files(path: str) -> list[str]:
    """The Arrow or Parquet files in a folder, by name; none if the package itself saved the folder."""
    folder = Path(path)
    if any((folder / name).exists() for name in SAVED):
        return []
    return sorted(str(file) for pattern in ("*.arrow", "*.parquet") for file in folder.glob(pattern))


def _of_files(datasets: ConfigValue, files: Sequence[str]) -> Any:
    """The table in Arrow files, or in Parquet files, one after another."""
    if files and all(file.endswith(".parquet") for file in files):
        return datasets.load_dataset("parquet", data_files=list(files), split="train")
    return datasets.concatenate_datasets([datasets.Dataset.from_file(file) for file in files])
