"""Byte pair encoding: words cut into pieces by a list of merges.

Sennrich et al., Neural machine translation of rare words with subword units, 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError
from returnn_lite.reading import read_text
from returnn_lite.vocab.base import Vocabulary

END = "</w>"
SEPARATOR = "@@"
VERSIONS = ("0.1", "0.2")
MAX_CACHED_WORDS = 1 << 18

Pair = tuple[str, str]


class BytePairEncoding(Vocabulary):
    """Pieces of words by the merges in `bpe_file`, as subword-nmt writes it; pieces inside a word end in "@@".

    Pieces that are not in the vocabulary are split further, by undoing merges.
    """

    def __init__(self, *, bpe_file: str, path: str = "vocab", **options: ConfigValue):
        super().__init__(path=path, **options)
        self.ranks, self.version = read_merges(bpe_file, path)
        self.parts = {
            "".join(pair): pair for pair in reversed(list(self.ranks))
        }  # of equal texts the first pair counts
        self.cache: dict[str, list[str]] = {}

    def symbols(self, text: str) -> Iterator[str]:
        """The pieces; "$name" and what follows between words "{" and "}" is left as it is."""
        special, inside = False, False
        for word in text.split():
            inside = inside or (special and word.startswith("{"))
            special = special if inside else word.startswith("$") and len(word) > 1
            if inside or special:
                yield word
                inside = inside and not word.startswith("}")
            else:
                yield from self.pieces(word)

    def pieces(self, word: str) -> list[str]:
        """The pieces of a word, with "@@" where others follow."""
        if word not in self.cache:
            if len(self.cache) >= MAX_CACHED_WORDS:
                self.cache.clear()
            *first, last = self._known(self._merged(word))
            self.cache[word] = [piece + SEPARATOR for piece in first] + [last]
        return self.cache[word]

    def _merged(self, word: str) -> list[str]:
        """The parts of a word after all merges, the most frequent pair first."""
        if self.version == "0.2" and len(word) == 1:
            return [word]
        parts = [*word, END] if self.version == "0.1" else [*word[:-1], word[-1] + END]
        while len(parts) > 1:
            pair = min(zip(parts, parts[1:], strict=False), key=lambda pair: self.ranks.get(pair, math.inf))
            if pair not in self.ranks:
                break
            parts = merge(parts, pair)
        if parts[-1] == END:
            return parts[:-1]
        return [*parts[:-1], parts[-1].removesuffix(END)]

    def _known(self, parts: list[str]) -> list[str]:
        """The parts, split until they are in the vocabulary or cannot be split."""
        last = len(parts) - 1
        return [piece for i, part in enumerate(parts) for piece in self._split(part, i == last)]

    def _split(self, part: str, final: bool) -> Iterable[str]:
        if (part if final else part + SEPARATOR) in self.table:
            return [part]
        pair = self.parts.get(part + END if final else part)
        if pair is None:
            return [part]
        left, right = pair[0], pair[1].removesuffix(END) if final else pair[1]
        return [*self._split(left, False), *(self._split(right, final) if right else [])]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "cache": {}}


def merge(parts: list[str], pair: Pair) -> list[str]:
    """The parts with all occurrences of the pair joined, from left to right."""
    merged: list[str] = []
    i = 0
    while i < len(parts):
        found = (parts[i], parts[i + 1] if i + 1 < len(parts) else None) == pair
        merged.append("".join(pair) if found else parts[i])
        i += 1 + found
    return merged


def read_merges(filename: str, path: str) -> tuple[dict[Pair, int], str]:
    """({pair: rank}, version) of a file of merges; raises ConfigError for an unknown version or a bad line."""
    path = f"{path}: bpe_file"
    lines = read_text(filename, path).split("\n")
    version = lines[0].split()[-1] if lines[0].startswith("#version:") else "0.1"
    if version not in VERSIONS:
        raise ConfigError(path, f"{filename} has the version {version}, but only {' and '.join(VERSIONS)} are possible")
    ranks: dict[Pair, int] = {}
    for number, line in enumerate(lines):
        parts = line.strip("\r ").split(" ")
        if parts == [""]:
            continue
        if len(parts) != 2:
            raise ConfigError(path, f'{filename}:{number + 1}: must be two parts, but is "{line}"')
        ranks.setdefault((parts[0], parts[1]), number)
    return ranks, version
