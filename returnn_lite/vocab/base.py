"""Vocabularies of words, characters and bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import EllipsisType
from typing import Any

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.reading import lines_of, parse_literal, read_literal, read_pickle, read_text

NUM_BYTES = 256
Label = str | int | None


class Vocabulary:
    """Words separated by white space, with labels from a file or list.

    `vocab_file`: a pickled or written Python dict label -> index, or one label a line; may be `.gz`. The labels in
    `unknown_label`, `bos_label`, `eos_label`, `pad_label` are texts or indices, None where there is none; a file in
    `special_symbols_via_file` may set them. `seq_postfix` are indices that end every sequence. With
    `single_whitespace_split` words are separated by single spaces, and labels may contain spaces.
    """

    joiner = " "
    default_unknown: str | None = "UNK"

    def __init__(
        self,
        *,
        vocab_file: str | None = None,
        labels: Sequence[str] | Callable[[], Sequence[str]] | None = None,
        special_symbols_via_file: str | None = None,
        unknown_label: ConfigValue = ...,
        bos_label: Label = None,
        eos_label: Label = None,
        pad_label: Label = None,
        control_symbols: Mapping[str, Label] | None = None,
        user_defined_symbols: Mapping[str, Label] | None = None,
        num_labels: int | None = None,
        seq_postfix: Sequence[int] | None = None,
        single_whitespace_split: bool = False,
        path: str = "vocab",
    ):
        self.path = path
        self._set_labels(vocab_file, labels)
        special = {
            "unknown_label": unknown_label,
            "bos_label": bos_label,
            "eos_label": eos_label,
            "pad_label": pad_label,
        }
        special |= {"control_symbols": control_symbols, "user_defined_symbols": user_defined_symbols}
        if special_symbols_via_file is not None:
            special |= read_literal(special_symbols_via_file, f"{path}: special_symbols_via_file")
        self._set_special(special)
        if num_labels is not None and num_labels != self.num_labels:
            raise ConfigError(f"{path}: num_labels", f"must be {self.num_labels} as in the file, but is {num_labels}")
        self.seq_postfix = list(seq_postfix or [])
        self.single_whitespace_split = single_whitespace_split

    def _set_special(self, special: dict[str, Any]) -> None:
        if special["unknown_label"] is ...:
            special["unknown_label"] = self.default_unknown
        self.unknown_id = self.label_id(special["unknown_label"], "unknown_label")
        self.bos_id = self.label_id(special["bos_label"], "bos_label")
        self.eos_id = self.label_id(special["eos_label"], "eos_label")
        self.pad_id = self.label_id(special["pad_label"], "pad_label")
        for option in ("control_symbols", "user_defined_symbols"):
            for name, label in (special.get(option) or {}).items():
                self.label_id(label, f'{option}["{name}"]')

    def _set_labels(self, vocab_file: str | None, labels: ConfigValue) -> None:
        if labels is not None:
            found = list(labels() if callable(labels) else labels)
            table = {label: i for i, label in enumerate(found)}
        elif vocab_file is not None:
            table, found = read_vocab_file(vocab_file, self.path)
        else:
            raise ConfigError(self.path, "needs `vocab_file` or `labels`")
        self.labels: list[str] = found
        self.table: dict[str, int] = table

    @property
    def num_labels(self) -> int:
        """Number of classes."""
        return len(self.labels)

    def label_id(self, label: Label, option: str) -> int | None:
        """Index of a label given as text or index; None for None and -1. Raises ConfigError if there is none."""
        if label is None or label == -1:
            return None
        if isinstance(label, int):
            if not 0 <= label < self.num_labels:
                raise ConfigError(f"{self.path}: {option}", f"must be less than {self.num_labels}, but is {label}")
            return label
        if label not in self.table:
            hint = did_you_mean(label, self.labels)
            raise ConfigError(f"{self.path}: {option}", f'"{label}" is not in the vocabulary{hint}')
        return self.table[label]

    # --- as configs written with `returnn.frontend` ask ---

    @property
    def bos_label_id(self) -> int | None:
        """The class that begins a sequence."""
        return self.bos_id

    @property
    def eos_label_id(self) -> int | None:
        """The class that ends a sequence."""
        return self.eos_id

    @property
    def pad_label_id(self) -> int | None:
        """The class of padding."""
        return self.pad_id

    @property
    def unknown_label_id(self) -> int | None:
        """The class of what is no label."""
        return self.unknown_id

    def id_to_label(self, idx: int, default: str | None | EllipsisType = ...) -> str | None:
        """The label of a class; without a default IndexError if there is none."""
        if 0 <= idx < self.num_labels:
            return self.labels[idx]
        if isinstance(default, EllipsisType):
            raise IndexError(f"the vocabulary has {self.num_labels} labels, but the class is {idx}")
        return default

    def label_to_id(self, label: str, default: int | None | EllipsisType = ...) -> int | None:
        """The class of a label; without a default KeyError if there is none."""
        if label in self.table:
            return self.table[label]
        if isinstance(default, EllipsisType):
            raise KeyError(label)
        return default

    def set_random_seed(self, seed: int) -> None:
        """Begins anew with whatever is random."""

    # --- texts ---

    def get_seq(self, text: str) -> list[int]:
        """Class indices of a text. Raises ConfigError for unknown words where there is no unknown label."""
        return [self._id_of(symbol) for symbol in self.symbols(text)] + self.seq_postfix

    def symbols(self, text: str) -> Iterable[str]:
        """The labels that a text consists of, known or not."""
        return self._tokens(text) if self.single_whitespace_split else text.split()

    def _tokens(self, text: str) -> Iterable[str]:
        """The longest label each time, a single space between two."""
        position = 0
        while position < len(text):
            ends = [len(text), *(i for i in range(len(text) - 1, position, -1) if text[i] == " ")]
            end = next((end for end in ends if text[position:end] in self.table), ends[-1])
            yield text[position:end]
            position = end + 1

    def _id_of(self, symbol: str) -> int:
        found = self.table.get(symbol, self.unknown_id)
        if found is None:
            hint = did_you_mean(symbol, self.labels[:10000])
            raise ConfigError(self.path, f'"{symbol}" is not in the vocabulary, and unknown_label is not set{hint}')
        return found

    def get_seq_labels(self, ids: Iterable[int]) -> str:
        """The text of class indices; raises ConfigError for an index that is no label."""
        return self.joiner.join(self._labels_of(ids))

    def _labels_of(self, ids: Iterable[int]) -> list[str]:
        ids = [int(i) for i in ids]
        if ids and not 0 <= min(ids) <= max(ids) < self.num_labels:
            raise ConfigError(self.path, f"{self.num_labels} labels, but a class index is {max(ids)}")
        return [self.labels[i] for i in ids]


class CharacterTargets(Vocabulary):
    """Each character is a symbol, spaces included."""

    joiner = ""
    default_unknown = "@"

    def symbols(self, text: str) -> Iterable[str]:
        """The characters."""
        return text


class Utf8ByteTargets(Vocabulary):
    """The bytes of the text in UTF-8: 256 classes."""

    def __init__(self, *, seq_postfix: Sequence[int] | None = None, path: str = "vocab"):
        super().__init__(
            labels=[chr(i) for i in range(NUM_BYTES)], unknown_label=None, seq_postfix=seq_postfix, path=path
        )

    def get_seq(self, text: str) -> list[int]:
        """The bytes."""
        return [*text.encode("utf8"), *self.seq_postfix]

    def get_seq_labels(self, ids: Iterable[int]) -> str:
        """The text of the bytes; what is no UTF-8 becomes U+FFFD."""
        self._labels_of(ids := [int(i) for i in ids])
        return bytes(ids).decode("utf8", errors="replace")


def read_vocab_file(filename: str, path: str) -> tuple[dict[str, int], list[str]]:
    """({label: index}, labels by index) of a vocabulary file. Raises ConfigError if an index is not used."""
    path = f"{path}: vocab_file"
    table = read_table(filename, path)
    if table is None:
        lines = lines_of(read_text(filename, path))
        if not lines:
            raise ConfigError(path, f"{filename} holds no labels")
        return {line: i for i, line in enumerate(lines)}, lines
    labels = labels_by_index(table)
    if None in labels:
        missing = f"number {labels.index(None)} of {len(labels)} has no label"
        raise ConfigError(path, f"{filename}: not all indices used, {missing} (or a label occurs twice)")
    return table, [str(label) for label in labels]


def read_table(filename: str, path: str) -> dict[str, int] | None:
    """{label: index} of a pickled or written Python dict; None for a text that is no dict."""
    if filename.removesuffix(".gz").endswith(".pkl"):
        return checked_table(read_pickle(filename, path), filename, path)
    text = read_text(filename, path)
    if not text.lstrip().startswith("{"):
        return None
    return checked_table(parse_literal(text, filename, path, "a Python dict label -> index"), filename, path)


def checked_table(table: ConfigValue, filename: str, path: str) -> dict[str, int]:
    """The table; raises ConfigError for anything but a dict text -> number from 0 on."""
    if not isinstance(table, dict):
        raise ConfigError(path, f"{filename} must hold a dict label -> index, but holds a {type(table).__name__}")
    for label, index in table.items():
        if not isinstance(label, str):
            raise ConfigError(path, f"{filename}: labels must be texts, but one is {label!r}")
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise ConfigError(path, f"{filename}: the index of {label!r} must be a number >= 0, but is {index!r}")
    if not table:
        raise ConfigError(path, f"{filename} holds no labels")
    if min(table.values()) > 0:
        raise ConfigError(path, f"{filename}: the lowest index must be 0, but is {min(table.values())}")
    return table


def labels_by_index(table: Mapping[str, int]) -> list[str | None]:
    """The label of each class from 0 to the highest, None where there is none; of several the last in the alphabet."""
    by_index = {index: label for label, index in sorted(table.items())}
    return [by_index.get(i) for i in range(max(by_index, default=-1) + 1)]


def named_classes(table: Mapping[str, int]) -> list[str]:
    """As `labels_by_index`, with "<5>" for class 5 where it has no label."""
    return [f"<{i}>" if label is None else label for i, label in enumerate(labels_by_index(table))]
