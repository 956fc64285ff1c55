"""Names of very many sequences in little memory: blocks of bytes and numbers instead of one object each."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, overload

import numpy as np

TAGS_AT_ONCE = 1 << 16
NEWLINE = 10


class Tags(Sequence[str]):
    """A list of texts which can also be asked where a text stands."""

    __hash__ = None  # type: ignore[assignment]

    @abstractmethod
    def find(self, tag: str) -> int:
        """Index of the last occurrence; -1 if there is none."""

    @abstractmethod
    def _get(self, index: int) -> str:
        """The text at 0 <= index < len."""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._get(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._get(index % len(self))

    def __iter__(self) -> Iterator[str]:
        return map(self._get, range(len(self)))

    def __contains__(self, tag: object) -> bool:
        return isinstance(tag, str) and self.find(tag) >= 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(a == b for a, b in zip(self, other, strict=True))

    def find_all(self, tags: Iterable[str]) -> np.ndarray:
        """Index of the last occurrence of each, int64 [N]; -1 where there is none."""
        return np.fromiter(map(self.find, tags), np.int64)


class NumberedTags(Tags):
    """ "seq-0", "seq-1", … up to a total."""

    def __init__(self, total: int, prefix: str = "seq-"):
        self.total, self.prefix = total, prefix

    def __len__(self) -> int:
        return self.total

    def _get(self, index: int) -> str:
        return f"{self.prefix}{index}"

    def find(self, tag: str) -> int:
        """The number behind the prefix."""
        number = tag.removeprefix(self.prefix)
        found = number.isdecimal() and f"{self.prefix}{int(number)}" == tag and int(number) < self.total
        return int(number) if found else -1

    def __eq__(self, other: object) -> bool:
        if isinstance(other, NumberedTags):
            return (self.total, self.prefix) == (other.total, other.prefix)
        return super().__eq__(other)


class TagTable(Tags):
    """Texts as one block of UTF-8 bytes, and where each begins and ends, int64 [N]."""

    def __init__(self, parts: Iterable[list[bytes]]):
        texts, ends, total = [], [np.zeros(1, np.int64)], 0
        for part in parts:
            texts.append(b"".join(part))
            ends.append(total + np.cumsum([len(tag) for tag in part], dtype=np.int64))
            total += len(texts[-1])
        borders = np.concatenate(ends)
        self._set(b"".join(texts), borders[:-1], borders[1:])

    def _set(self, text: bytes, starts: np.ndarray, ends: np.ndarray) -> None:
        self.text, self.starts, self.ends = text, starts, ends

    @classmethod
    def of(cls, tags: Iterable[str]) -> TagTable:
        """A table of any texts."""
        return tags if isinstance(tags, TagTable) else cls(_blocks(tags))

    @classmethod
    def of_lines(cls, text: bytes) -> TagTable:
        """The lines of a text file; a last line without an end counts, too."""
        ends = np.flatnonzero(np.frombuffer(text, np.uint8) == NEWLINE)
        if text and not text.endswith(b"\n"):
            ends = np.append(ends, len(text))
        starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)[: len(ends)]
        if b"\r\n" in text:
            codes = np.frombuffer(text, np.uint8)
            ends = ends - ((ends > starts) & (codes[np.maximum(ends - 1, 0)] == ord("\r")))
        table = cls(())
        table._set(text, starts, ends)
        return table

    def take(self, indices: np.ndarray) -> TagTable:
        """Some of the texts, in this order; the bytes are shared."""
        table = TagTable(())
        table._set(self.text, self.starts[indices], self.ends[indices])
        return table

    @property
    def byte_lengths(self) -> np.ndarray:
        """Bytes of each text, int64 [N]."""
        made: np.ndarray = self.ends - self.starts
        return made

    def __len__(self) -> int:
        return len(self.ends)

    def _get(self, index: int) -> str:
        return self.raw(index).decode("utf8")

    def raw(self, index: int) -> bytes:
        """The UTF-8 bytes of a text."""
        return self.text[self.starts[index] : self.ends[index]]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TagTable):
            if not np.array_equal(self.byte_lengths, other.byte_lengths):
                return False
            return all(self.raw(i) == other.raw(i) for i in range(len(self)))
        return super().__eq__(other)

    @cached_property
    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        """(hashes in ascending order, the index of each; of equal ones the last comes last)."""
        hashes = _hashes(self.raw(i) for i in range(len(self)))
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_index"}  # hashes differ per process

    def find(self, tag: str) -> int:
        """Index of the last occurrence; -1 if there is none."""
        raw = tag.encode("utf8")
        hashes, order = self._index
        position = int(np.searchsorted(hashes, hash(raw), "right")) - 1
        while position >= 0 and hashes[position] == hash(raw):
            if self.raw(order[position]) == raw:
                return int(order[position])
            position -= 1
        return -1

    def find_all(self, tags: Iterable[str]) -> np.ndarray:
        """Index of the last occurrence of each, int64 [N]; -1 where there is none."""
        table, (hashes, order) = TagTable.of(tags), self._index
        if not len(hashes) or not len(table):
            return np.full(len(table), -1)
        wanted = _hashes(table.raw(i) for i in range(len(table)))
        position = np.maximum(np.searchsorted(hashes, wanted, "right") - 1, 0)
        found = np.where(hashes[position] == wanted, order[position], -1)
        for i in np.flatnonzero(found >= 0).tolist():
            if self.raw(int(found[i])) != table.raw(i):  # another text with the same hash
                found[i] = self.find(table[i])
        return found


def _hashes(texts: Iterable[bytes]) -> np.ndarray:
    return np.fromiter(map(hash, texts), np.int64)


def _blocks(tags: Iterable[str]) -> Iterator[list[bytes]]:
    iterator = iter(tags)
    while block := list(islice(iterator, TAGS_AT_ONCE)):
        yield [tag.encode("utf8") for tag in block]


class TableBuilder:
    """Collects the texts of a TagTable, as bytes without an object each."""

    def __init__(self) -> None:
        self.text, self.ends = bytearray(), array("q")

    def append(self, text: str) -> None:
        """Adds one."""
        self.text += text.encode("utf8")
        self.ends.append(len(self.text))

    def table(self) -> TagTable:
        """What was collected."""
        borders = np.concatenate([[0], np.array(self.ends, np.int64)])
        table = TagTable(())
        table._set(bytes(self.text), borders[:-1], borders[1:])
        return table


class TagView(Tags):
    """Some of a list of texts, by their indices."""

    def __init__(self, tags: Sequence[str], indices: np.ndarray):
        self.tags, self.indices = tags, indices

    def __len__(self) -> int:
        return len(self.indices)

    def _get(self, index: int) -> str:
        return self.tags[int(self.indices[index])]

    def find(self, tag: str) -> int:
        """Index of the last occurrence; -1 if there is none."""
        return max((i for i, own in enumerate(self) if own == tag), default=-1)
