"""A lexicon of words with their pieces: `bpe-create-lexicon.py --vocab bpe.vocab --words words.txt --out lexicon`."""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from xml.sax.saxutils import escape

from returnn_lite.errors import ConfigError
from returnn_lite.reading import read_text
from returnn_lite.tools.common import output_file, tool
from returnn_lite.vocab.base import read_table, read_vocab_file
from returnn_lite.vocab.bpe import SEPARATOR, BytePairEncoding

Pieces = tuple[str, ...]


def splits(word: str, labels: Mapping[str, int], most: int) -> list[Pieces]:
    """The ways to write a word as labels, of which all but the last end in "@@": those with the fewest pieces first,
    at most so many.

    Goes from the end of the word to its beginning and keeps the best ways for each rest.
    """
    ways: list[list[Pieces]] = [[] for _ in word] + [[()]]
    for start in reversed(range(len(word))):
        found: list[Pieces] = []
        for end in range(start + 1, len(word) + 1):
            piece = word[start:end] + (SEPARATOR if end < len(word) else "")
            if piece in labels:
                found += [(piece, *rest) for rest in ways[end]]
        ways[start] = heapq.nsmallest(most, found, key=lambda pieces: (len(pieces), pieces))
    return ways[0] if word else []


def words_of(filename: str) -> list[str]:
    """The words of a file, each once, in order: a vocabulary (a Python dict), or texts."""
    table = read_table(filename, "--words")
    words = read_text(filename, "--words").split() if table is None else list(table)
    found = [word for word in dict.fromkeys(words) if not (word.startswith("<") and word.endswith(">"))]
    if not found:
        raise ConfigError("--words", f"{filename} holds no words")
    return found


def text_lines(entries: Iterable[tuple[str, list[Pieces]]]) -> Iterator[str]:
    """A line for each way to write a word: the word, a tab, its pieces."""
    for word, ways in entries:
        for pieces in ways:
            yield f"{word}\t{' '.join(pieces)}\n"


def bliss_lines(entries: Iterable[tuple[str, list[Pieces]]], labels: Iterable[str]) -> Iterator[str]:
    """The lexicon in the Bliss format (XML), the pieces as phonemes."""
    yield '<?xml version="1.0" encoding="utf-8"?>\n<lexicon>\n<phoneme-inventory>\n'
    for label in labels:
        yield f"<phoneme><symbol>{escape(label)}</symbol></phoneme>\n"
    yield "</phoneme-inventory>\n"
    for word, ways in entries:
        phons = "".join(f"<phon>{escape(' '.join(pieces))}</phon>" for pieces in ways)
        yield f"<lemma><orth>{escape(word)}</orth>{phons}</lemma>\n"
    yield "</lexicon>\n"


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(
        prog="bpe-create-lexicon.py",
        description="Writes for each word the ways to write it as pieces of a BPE vocabulary (those with few pieces"
        " first), or with --codes the one way of these merges.",
    )
    add = parser.add_argument
    add("--vocab", required=True, metavar="FILE", help="the BPE vocabulary: a Python dict, a pickle, or a label a line")
    add("--words", required=True, metavar="FILE", help="texts, or a vocabulary of words; may be .gz")
    add("--out", required=True, metavar="FILE", help="the lexicon; XML if its name has .xml, gzip if it ends in .gz")
    add("--codes", metavar="FILE", help="the BPE merges: only the way that they give")
    add("--most", type=int, default=20, help="most ways for each word (20)")
    args = parser.parse_args(argv)
    if args.most < 1:
        raise ConfigError("--most", f"must be at least 1, but is {args.most} instead")
    table, labels = read_vocab_file(args.vocab, "--vocab")
    words = words_of(args.words)
    if args.codes:
        bpe = BytePairEncoding(bpe_file=args.codes, vocab_file=args.vocab, unknown_label=None, path="--vocab")
        entries = [(word, [tuple(bpe.pieces(word))]) for word in words]
        entries = [(word, ways if all(piece in table for piece in ways[0]) else []) for word, ways in entries]
    else:
        entries = [(word, splits(word, table, args.most)) for word in words]
    missing = [word for word, ways in entries if not ways]
    entries = [(word, ways) for word, ways in entries if ways]
    if not entries:
        raise ConfigError("--words", f"none of the {len(words)} words can be written with the pieces of {args.vocab}")
    with output_file(args.out) as file:
        file.writelines(bliss_lines(entries, labels) if ".xml" in args.out else text_lines(entries))
    note = f"; {len(missing)} cannot be written, such as {missing[0]!r}" if missing else ""
    print(f"{args.out}: {len(entries)} words, {sum(len(ways) for _, ways in entries)} ways to write them{note}")
