"""Pairs of lines in two languages."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from returnn_lite.config_value import ConfigValue
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions, DataError
from returnn_lite.datasets.order.seq_list import read_seq_list
from returnn_lite.datasets.order.tags import NumberedTags, TagTable
from returnn_lite.datasets.registry import dataset
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log
from returnn_lite.reading import read_bytes, read_pickle
from returnn_lite.vocab.base import checked_table, named_classes

SIDES = {"data": "source", "classes": "target"}


class Words:
    """A vocabulary file {word: class} with a label for unknown words; several words may have one class."""

    def __init__(self, table: dict[str, int], unknown: str | None, path: str):
        self.table, self.path = table, path
        if unknown is not None and unknown not in table:
            raise ConfigError(path, f'unknown_label "{unknown}" is not in the vocabulary')
        self.unknown = None if unknown is None else table[unknown]
        self.labels = named_classes(table)
        self.size = len(self.labels)

    def ids(self, words: Sequence[str]) -> np.ndarray:
        """Classes, int32 [N]. Raises ConfigError for an unknown word where there is no label for these."""
        return np.array([self._id(word) for word in words], "int32")

    def _id(self, word: str) -> int:
        found = self.table.get(word, self.unknown)
        if found is None:
            raise ConfigError(self.path, f'can not handle unknown token without unknown_label: "{word}"')
        return found


@dataset("TranslationDataset")
class TranslationDataset(Dataset):
    """Lines of the files source.<postfix> ("data") and target.<postfix> ("classes") in the folder `path`.

    The files may be `.gz`; source.vocab.pkl and target.vocab.pkl hold dicts word -> class. `source_postfix` and
    `target_postfix` are appended to each line, such as " </S>". Raises ConfigError for missing or unequal files.
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        path: str,
        file_postfix: str,
        source_postfix: str = "",
        target_postfix: str = "",
        source_only: bool = False,
        search_without_reference: bool = False,
        unknown_label: str | Mapping[str, str | None] | None = None,
        seq_list_file: str | None = None,
        use_cache_manager: bool = False,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        if not os.path.isdir(path):
            raise ConfigError(f"{self.name}: path", f"folder {path} does not exist")
        self.path, self.postfixes = path, {"data": source_postfix, "classes": target_postfix}
        keys = ["data"] if source_only else ["classes", "data"]
        self.unknown = (
            dict(unknown_label) if isinstance(unknown_label, Mapping) else dict.fromkeys(SIDES, unknown_label)
        )
        self.vocabs = {key: self._vocab(SIDES.get(key, key), key) for key in self._vocab_keys(keys)}
        read = ["data"] if source_only or search_without_reference else keys
        self.lines = {key: TagTable.of_lines(self._content(f"{SIDES[key]}.{file_postfix}")) for key in read}
        sizes = {key: len(lines) for key, lines in self.lines.items()}
        if len(set(sizes.values())) > 1:
            raise ConfigError(
                self.name, f"source and target must have as many lines, but have {sizes['data']} and {sizes['classes']}"
            )
        self._describe()
        self.fixed_order = self._fixed_order(seq_list_file)

    def _vocab_keys(self, keys: list[str]) -> list[str]:
        return keys

    def _describe(self) -> None:
        for key in self.vocabs:
            self.num_outputs[key] = (self.vocabs[key].size, 1)
            self.labels[key] = self.vocabs[key].labels
        self.num_inputs = self.num_outputs["data"][0]

    def _vocab(self, name: str, key: str) -> Words:
        path = os.path.join(self.path, f"{name}.vocab.pkl")
        if not os.path.exists(path):
            raise ConfigError(self.name, f"Vocab file not found: '{path}'")
        table = checked_table(read_pickle(path, self.name), path, self.name)
        return Words(table, self.unknown.get(key), f"{self.name}: {path}")

    def _content(self, name: str) -> bytes:
        path = os.path.join(self.path, name)
        found = next((p for p in (path, path + ".gz") if os.path.exists(p)), None)
        if found is None:
            folder = os.listdir(self.path)
            raise ConfigError(self.name, f"Data file not found: '{path}' (.gz)?{did_you_mean(name, folder)}")
        return read_bytes(found, self.name)

    def _fixed_order(self, filename: str | None) -> np.ndarray | None:
        if filename is None:
            return None
        path = f"{self.name}: seq_list_file"
        try:
            order = np.array([int(number) for number in read_seq_list(filename, path)], np.int64)
        except ValueError as exc:
            raise ConfigError(path, f"{filename} must hold numbers of lines: {exc}") from None
        if len(order) and not 0 <= order.min() <= order.max() < self.get_total_num_seqs():
            raise ConfigError(path, f"{filename} must hold numbers from 0 to {self.get_total_num_seqs() - 1}")
        return order

    def _new_order(
        self, epoch: int | None, seq_list: Sequence[str] | None, given: Sequence[int] | None
    ) -> np.ndarray | None:
        if self.fixed_order is not None and epoch is not None and seq_list is None and given is None:
            return self.fixed_order
        return super()._new_order(epoch, seq_list, given)

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """Number of lines."""
        return len(self.lines["data"])

    def get_all_tags(self) -> NumberedTags:
        """ "line-0", "line-1", …"""
        return NumberedTags(len(self.lines["data"]), "line-")

    def corpus_tag(self, index: int) -> str:
        """ "line-<i>"."""
        return f"line-{index}"

    @cached_property
    def _source_lengths(self) -> np.ndarray:
        extra = len(self.postfixes["data"].split())
        return np.fromiter((len(line.split()) + extra for line in self.lines["data"]), np.int64)

    def sort_lengths(self) -> np.ndarray:
        """Words of the source with its postfix."""
        return self._source_lengths

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """The classes of both lines."""
        return [self._seq_of_line(int(i)) for i in indices]

    def _seq_of_line(self, index: int) -> Seq:
        try:
            seq: Seq = {}
            for key, lines in self.lines.items():
                seq.update(self._arrays(key, (lines[index].strip() + self.postfixes[key]).split()))
            return seq
        except UnicodeDecodeError as exc:
            raise DataError(f'{self.name}: sequence "line-{index}"', f"must be UTF-8 text: {exc}") from None
        except ConfigError as exc:
            raise DataError(f'{self.name}: sequence "line-{index}"', str(exc)) from None

    def _arrays(self, key: str, words: list[str]) -> Seq:
        return {key: self.vocabs[key].ids(words)}

    def get_data_keys(self) -> list[str]:
        """The keys that have data, sorted."""
        return sorted(self.lines)


@dataset("TranslationFactorsDataset")
class TranslationFactorsDataset(TranslationDataset):
    """As TranslationDataset, with factors: words are "word|factor|…", each factor is a key of its own.

    `source_factors` and `target_factors` name them; factor f has the vocabulary f.vocab.pkl.
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        source_factors: str | Sequence[str] = (),
        target_factors: str | Sequence[str] = (),
        factor_separator: str = "|",
        log: Log | None = None,
        **options: ConfigValue,
    ):
        given = {"data": source_factors, "classes": target_factors}
        self.factors = {key: [value] if isinstance(value, str) else list(value) for key, value in given.items()}
        self.separator = factor_separator
        super().__init__(base, log=log, **options)

    def _vocab_keys(self, keys: list[str]) -> list[str]:
        return [*keys, *(factor for key in keys for factor in self.factors[key])]

    def _arrays(self, key: str, words: list[str]) -> Seq:
        names = [key, *self.factors[key]]
        postfix = self.postfixes[key].split()
        split = [[word] * len(names) if word in postfix else word.split(self.separator) for word in words]
        wrong = next((word for word, parts in zip(words, split, strict=True) if len(parts) != len(names)), None)
        if wrong is not None:
            raise ConfigError(key, f'"{wrong}" must have {len(names)} parts with "{self.separator}" in between')
        return {name: self.vocabs[name].ids([parts[i] for parts in split]) for i, name in enumerate(names)}

    def get_data_keys(self) -> list[str]:
        """The keys that have data and their factors, sorted."""
        return sorted([*self.lines, *(factor for key in self.lines for factor in self.factors[key])])

    def get_target_list(self) -> list[str]:
        """ "classes" and its factors."""
        return [key for key in self.get_data_keys() if key in ("classes", *self.factors["classes"])]
