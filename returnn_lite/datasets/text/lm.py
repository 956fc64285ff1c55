"""Lines of text as sequences of symbols."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.datasets.audio.bliss_corpus import is_bliss, segments
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions, DataError
from returnn_lite.datasets.order.seq_list import read_seq_list
from returnn_lite.datasets.order.tags import NEWLINE, NumberedTags, Tags, TagTable
from returnn_lite.datasets.registry import dataset
from returnn_lite.datasets.text.lm_phones import PhoneSeqs
from returnn_lite.datasets.text.normalization import TextFunction, parse_orthography, symbols_of
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.reading import decoded, lines_of, read_bytes, read_text
from returnn_lite.vocab import Vocabulary, create_vocab
from returnn_lite.vocab.base import checked_table, named_classes, read_table

SYMBOL_OPTIONS = ("orth_vocab", "orth_symbols_file", "orth_symbols_map_file", "phone_info")


@dataset("LmDataset")
class LmDataset(Dataset):
    """The lines of text files (or the segments of a Bliss corpus) as symbols: characters, words, or a vocabulary's.

    One of `orth_vocab`, `orth_symbols_file` (a symbol a line), `orth_symbols_map_file` (symbol -> index) and
    `phone_info` (random phone sequences of a lexicon) says what the symbols are. Lines without a symbol for something
    are an error, or are left out if `error_on_invalid_seq` is false. The key "delayed" (`add_delayed_seq_data`) is
    "data" one symbol later.
    """

    constant_parts = ("lines", "tags", "table")

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        corpus_file: ConfigValue,
        use_cache_manager: bool = False,
        skip_empty_lines: bool = True,
        seq_list_file: ConfigValue = None,
        orth_vocab: ConfigValue = None,
        orth_symbols_file: ConfigValue = None,
        orth_symbols_map_file: ConfigValue = None,
        orth_replace_map_file: ConfigValue = None,
        orth_post_process: ConfigValue = None,
        word_based: bool = False,
        word_end_symbol: str | None = None,
        seq_end_symbol: str | None = "[END]",
        unknown_symbol: str | None = "[UNKNOWN]",
        parse_orth_opts: ConfigDict | None = None,
        phone_info: ConfigDict | None = None,
        add_random_phone_seqs: int = 0,
        auto_replace_unknown_symbol: bool = False,
        log_auto_replace_unknown_symbols: int = 10,
        log_skipped_seqs: int = 10,
        error_on_invalid_seq: bool = True,
        add_delayed_seq_data: bool = False,
        delayed_seq_data_start_symbol: str = "[START]",
        dtype: str | None = None,
        tag_prefix: str = "line-",
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        self.word_based, self.word_end, self.seq_end = word_based, word_end_symbol, seq_end_symbol
        self.unknown, self.auto_replace = unknown_symbol, auto_replace_unknown_symbol
        self.log_replaced, self.error_on_invalid = log_auto_replace_unknown_symbols, error_on_invalid_seq
        self.log_skipped = log_skipped_seqs
        given = dict(
            zip(SYMBOL_OPTIONS, (orth_vocab, orth_symbols_file, orth_symbols_map_file, phone_info), strict=True)
        )
        self._set_symbols({name: value for name, value in given.items() if value is not None})
        self.post_process = TextFunction(orth_post_process, f"{self.name}: orth_post_process")
        self.parse_opts = self._parse_opts(dict(parse_orth_opts or {}))
        self.replace_map = self._replace_map(_resolved(orth_replace_map_file))
        if self.vocab is not None and (self.auto_replace or add_delayed_seq_data):
            raise ConfigError(
                self.name, "auto_replace_unknown_symbol and add_delayed_seq_data are not possible with orth_vocab"
            )
        self.num_random = add_random_phone_seqs
        if self.num_random and self.phones is None:
            raise ConfigError(f"{self.name}: add_random_phone_seqs", "needs phone_info")
        self.delayed_start = None
        if add_delayed_seq_data:
            self.delayed_start = self._id_of_symbol(delayed_seq_data_start_symbol, "delayed_seq_data_start_symbol")
        self.dtype = dtype or smallest_dtype(len(self.symbols))
        self._describe()
        self.lines = self._read(corpus_file, skip_empty_lines)
        self.tags = self._tags_of(seq_list_file, tag_prefix)
        self.phones_seed: int | None = None

    # --- symbols ---

    def _set_symbols(self, given: dict[str, Any]) -> None:
        if not given:
            raise ConfigError(
                self.name, f"LmDataset: need orth_vocab or another one of {', '.join(SYMBOL_OPTIONS[1:])}"
            )
        if len(given) > 1:
            raise ConfigError(self.name, f"only one of {', '.join(given)} is possible")
        ((option, value),) = given.items()
        path = f"{self.name}: {option}"
        self.vocab: Vocabulary | None = None
        self.phones: PhoneSeqs | None = None
        self.table: dict[str, int] = {}
        if option == "orth_vocab":
            self.vocab = create_vocab(value, path)
            self.table, self.symbols = self.vocab.table, self.vocab.labels
        elif option == "phone_info":
            self.phones = PhoneSeqs(value, path)
            self.symbols = self.phones.labels
        elif option == "orth_symbols_file":
            self.symbols = lines_of(read_text(_resolved(value), path))
            self.table = {symbol: i for i, symbol in enumerate(self.symbols)}
            if len(self.table) < len(self.symbols):
                twice = next(symbol for i, symbol in enumerate(self.symbols) if self.table[symbol] != i)
                self.log.v2(f'{path}: warning: "{twice}" occurs twice; the later line counts')
        else:
            self.table, self.symbols = _read_symbol_map(_resolved(value), path)

    def _parse_opts(self, options: dict[str, Any]) -> dict[str, Any]:
        options.setdefault("word_based", self.word_based)
        ends = [self.seq_end] if self.seq_end is not None else []
        if self.word_end and not options["word_based"]:
            ends.insert(0, self.word_end)
        options.setdefault("postfix", ends)
        return options

    def _replace_map(self, filename: str | None) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        if filename:
            path = f"{self.name}: orth_replace_map_file"
            try:
                replacements = json.loads(read_text(filename, path))
                pairs = [(str(symbol), str(text)) for symbol, text in replacements.items()]
            except (ValueError, AttributeError) as exc:
                raise ConfigError(path, f"{filename} must be a JSON dict symbol -> text: {exc}") from None
            found = {symbol: symbols_of(text, word_based=self.word_based) for symbol, text in pairs}
        if self.word_end and not self.word_based:
            found[" "] = [self.word_end]
        return found

    def _id_of_symbol(self, symbol: str, option: str) -> int:
        if symbol not in self.table:
            raise ConfigError(f"{self.name}: {option}", f'"{symbol}" is not among the symbols')
        return self.table[symbol]

    def _describe(self) -> None:
        count = len(self.symbols)
        keys = (
            ["delayed"] * (self.delayed_start is not None) + ["data"] + [f"random{i}" for i in range(self.num_random)]
        )
        self.num_outputs = {key: (count, 1) for key in keys}
        self.num_inputs = count
        self.labels = {key: list(self.symbols) for key in keys if not key.startswith("random")}

    # --- the corpus ---

    def _read(self, value: ConfigValue, skip_empty: bool) -> TagTable:
        path = f"{self.name}: corpus_file"
        value = _resolved(value)
        files = [value] if isinstance(value, str) else list(value)
        tables = [read_lines(_resolved(filename), path, skip_empty) for filename in files]
        lines = tables[0] if len(tables) == 1 else TagTable.of(line for table in tables for line in table)
        if not len(lines):
            raise ConfigError(path, f"no lines in {', '.join(map(str, files))}")
        self.log.v4(f"{self.name}: {len(lines)} lines")
        return lines

    def _tags_of(self, seq_list_file: ConfigValue, prefix: str) -> Tags:
        if seq_list_file is None:
            return NumberedTags(len(self.lines), prefix)
        path = f"{self.name}: seq_list_file"
        files = [seq_list_file] if isinstance(seq_list_file, str) else seq_list_file
        tags = TagTable.of(tag for filename in files for tag in read_seq_list(filename, path))
        if len(tags) != len(self.lines):
            raise ConfigError(path, f"must have one tag for each of {len(self.lines)} lines, but has {len(tags)}")
        return tags

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """Number of lines."""
        return len(self.lines)

    def get_all_tags(self) -> Tags:
        """Tags of all lines."""
        return self.tags

    def corpus_tag(self, index: int) -> str:
        """ "line-<i>", or as in `seq_list_file`."""
        return self.tags[index]

    def sort_lengths(self) -> np.ndarray:
        """Bytes of each line."""
        return self.lines.byte_lengths

    def _new_order(
        self, epoch: int | None, seq_list: Sequence[str] | None, given: Sequence[int] | None
    ) -> np.ndarray | None:
        order = super()._new_order(epoch, seq_list, given)
        if self.phones is not None:
            self.phones.seed(self.order_options.seed(epoch))
        own = seq_list is None and given is None  # in a given order every line must be valid
        if order is not None and len(order) and not self.error_on_invalid and own and self.phones is None:
            order = order[self._valid[order]]
        return order

    @cached_property
    def _valid(self) -> np.ndarray:
        """Which lines can be written with the symbols, bool [N]: all lines are read once to know that."""
        valid = np.ones(len(self.lines), bool)
        for index, line in enumerate(self.lines):
            try:
                self._ids(line)
            except (KeyError, ConfigError) as exc:
                valid[index] = False
                if np.sum(~valid) <= self.log_skipped:
                    self.log.v3(f"{self.name}: skip {self.corpus_tag(index)}: {exc}")
        return valid

    # --- sequences ---

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """The symbols of the lines."""
        return [self._load(int(i)) for i in indices]

    def _load(self, index: int) -> Seq:
        line = self.lines[index]
        try:
            if self.phones is not None:
                ids: Sequence[int] = self.phones.ids_of(self.post_process(line.strip()))
            else:
                ids = self._ids(line)
        except KeyError as exc:
            what = "lexicon entry" if self.phones is not None else "orth symbol"
            raise DataError(
                f'{self.name}: sequence "{self.corpus_tag(index)}"',
                f"LmDataset: invalid seq {line[:200]!r}, missing {what} {exc}",
            ) from None
        except ConfigError as exc:
            raise DataError(f'{self.name}: sequence "{self.corpus_tag(index)}"', str(exc)) from None
        seq = {"data": np.array(ids, self.dtype)}
        if self.delayed_start is not None:
            seq = {"delayed": np.array([self.delayed_start, *ids[:-1]], self.dtype), **seq}
        if self.phones is not None:
            for i in range(self.num_random):
                seq[f"random{i}"] = np.array(self.phones.garbage(len(ids)), self.dtype)
        return seq

    def _ids(self, line: str) -> list[int]:
        """Indices of a line's symbols; KeyError with the symbol where there is none."""
        if self.vocab is not None:
            return self.vocab.get_seq(self.post_process(line))
        symbols = parse_orthography(self.post_process(line.strip()), **self.parse_opts)
        while True:
            replaced = self._collapsed([new for symbol in symbols for new in self.replace_map.get(symbol, [symbol])])
            missing = [symbol for symbol in replaced if symbol not in self.table]
            if not missing:
                return [self.table[symbol] for symbol in replaced]
            if not self.auto_replace or missing[0] in self.replace_map or missing[0] == self.unknown:
                raise KeyError(missing[0])
            self._replace_unknown(missing[0])

    def _collapsed(self, symbols: list[str]) -> list[str]:
        """Without a space after a space."""
        space = (" ", self.word_end) if self.word_end else (" ",)
        return [s for i, s in enumerate(symbols) if not (i and s in space and symbols[i - 1] in space)]

    def _replace_unknown(self, symbol: str) -> None:
        self.replace_map[symbol] = [] if self.unknown is None else [self.unknown]
        if self.log_replaced > 0:
            self.log_replaced -= 1
            self.log.v3(f'{self.name}: the unknown symbol "{symbol}" is replaced by {self.replace_map[symbol]}')

    def get_target_list(self) -> list[str]:
        """ "data" is the target; "delayed" is the input."""
        return ["data"]

    def get_data_dtype(self, key: str) -> str:
        """The option, or the smallest that holds all symbols."""
        self._dim_ndim(key)
        return self.dtype


def smallest_dtype(count: int) -> str:
    """Dtype for indices below `count`."""
    for bits, dtype in ((7, "int8"), (8, "uint8"), (31, "int32"), (32, "uint32")):
        if count <= 1 << bits:
            return dtype
    return "int64"


def _resolved(value: ConfigValue) -> Any:
    """The value, or what a function gives."""
    return value() if callable(value) else value


def _read_symbol_map(value: ConfigValue, path: str) -> tuple[dict[str, int], list[str]]:
    """({symbol: index}, symbols by index) of a dict, or of a file with a dict or with lines "symbol index"."""
    if isinstance(value, dict):
        return checked_table(value, "the dict", path), named_classes(value)
    filename = str(value)
    table = read_table(filename, path)
    if table is None:
        table = checked_table(_table_of_lines(filename, path), filename, path)
    return table, named_classes(table)


def _table_of_lines(filename: str, path: str) -> dict[str, int]:
    """{symbol: index} of lines "symbol index"."""
    table: dict[str, int] = {}
    for number, line in enumerate(read_text(filename, path).splitlines()):
        parts = line.split()
        if len(parts) < 2 or not parts[1].isdecimal():
            raise ConfigError(path, f'{filename}:{number + 1}: must be "symbol index", but is "{line}"')
        symbol, index = parts[0], int(parts[1])
        if table.setdefault(symbol, index) != index:
            before = f'"{symbol}" has the index {table[symbol]} already'
            raise ConfigError(path, f"{filename}:{number + 1}: {before}, so it cannot have {index}")
    return table


def read_lines(filename: str, path: str, skip_empty: bool) -> TagTable:
    """The lines of a text file, or the texts of a Bliss corpus; both possibly `.gz`.

    Of a file that is not compressed, a last line without line end is dropped, and lines keep their white space.
    """
    content = read_bytes(filename, path)
    if is_bliss(content):
        return TagTable.of(segment.text for segment in segments(content, f"{path}: {filename}"))
    if filename.endswith(".gz"):
        lines = TagTable.of(line.strip() for line in decoded(content, filename, path).split("\n"))
        if len(lines) and not lines[-1] and content.endswith(b"\n"):
            lines = lines.take(np.arange(len(lines) - 1))
    else:
        ends = np.flatnonzero(np.frombuffer(content, np.uint8) == NEWLINE)
        lines = TagTable.of_lines(content[: ends[-1] + 1] if len(ends) else b"")
        decoded(content, filename, path)
    return lines.take(np.flatnonzero(lines.byte_lengths)) if skip_empty else lines
