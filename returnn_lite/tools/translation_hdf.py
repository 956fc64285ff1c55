"""Pairs of sentences as an HDF file: `hdf_dump_translation_dataset.py --source x.de --target x.en … --out x.hdf`."""

from __future__ import annotations

import argparse
import gzip
import itertools
from collections.abc import Iterator, Sequence
from typing import TextIO, cast

import numpy as np

from returnn_lite.config.values import parse_literal
from returnn_lite.errors import ConfigError
from returnn_lite.hdf.writer import HDFWriter
from returnn_lite.tools.common import Progress, tool
from returnn_lite.vocab import Vocabulary, create_vocab
from returnn_lite.vocab.base import read_vocab_file

UNKNOWN = ("<UNK>", "<unk>", "UNK", "[UNK]")


def opened(filename: str, option: str) -> TextIO:
    """A text file, which may be compressed. ConfigError if there is none."""
    try:
        file = (
            gzip.open(filename, "rt", encoding="utf-8")
            if filename.endswith(".gz")
            else open(filename, encoding="utf-8")
        )
    except OSError as exc:
        raise ConfigError(option, f"{filename} cannot be read: {exc.strerror}") from None
    return cast(TextIO, file)


def vocabulary(text: str, option: str, eos: str) -> Vocabulary:
    """A vocabulary file, or the options of one as a Python dict; sentences end in the label `eos` if there is one."""
    if text.lstrip().startswith("{"):
        return create_vocab(parse_literal(option, text), option)
    table, _ = read_vocab_file(text, option)
    unknown = next((label for label in UNKNOWN if label in table), None)
    if eos and eos not in table:
        raise ConfigError(option, f'{text} has no label "{eos}" for the end of sentences; see --eos')
    return Vocabulary(vocab_file=text, unknown_label=unknown, seq_postfix=[table[eos]] if eos else None, path=option)


def pairs(source: str, target: str, most: int | None) -> Iterator[tuple[int, str, str]]:
    """(number of the line from 1, its two texts); ConfigError if one file has more lines."""
    with opened(source, "--source") as a, opened(target, "--target") as b:
        lines = itertools.zip_longest(a, b)
        for number, (one, other) in enumerate(itertools.islice(lines, most), 1):
            if one is None or other is None:
                longer, shorter = (target, source) if one is None else (source, target)
                raise ConfigError(shorter, f"has {number - 1} lines, but {longer} has more")
            yield number, one, other


def ids(vocab: Vocabulary, text: str, filename: str, number: int) -> np.ndarray:
    """The classes of a sentence; ConfigError, with the line, for a word that the vocabulary lacks."""
    try:
        return np.array(vocab.get_seq(text), np.int32)
    except ConfigError as exc:
        raise ConfigError(f"{filename}:{number}", exc.message) from None


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(
        prog="hdf_dump_translation_dataset.py",
        description='Writes pairs of sentences as an HDF file for HDFDataset: sources as "data", targets as "classes".',
    )
    add = parser.add_argument
    add("--source", required=True, metavar="FILE", help="a sentence a line; may be .gz")
    add("--target", required=True, metavar="FILE", help="its translation in the same line")
    add("--source_vocab", required=True, metavar="VOCAB", help="a vocabulary file, or options of one as a Python dict")
    add("--target_vocab", required=True, metavar="VOCAB", help="the same for the targets")
    add("--out", required=True, metavar="FILE", help="the HDF file, which must not exist")
    add("--eos", default="</s>", help='the label that ends sentences (</s>); "" for none')
    add("--number", type=int, help="most pairs to write")
    add("--tag", default="line-", help="what names of sequences begin with, before the number of the line (line-)")
    add("--compression", choices=["gzip", "lzf"], help="of the arrays in the file")
    args = parser.parse_args(argv)
    source = vocabulary(args.source_vocab, "--source_vocab", args.eos)
    target = vocabulary(args.target_vocab, "--target_vocab", args.eos)
    progress, words = Progress("pairs"), [0, 0]
    writer = HDFWriter(
        args.out, dim=source.num_labels, ndim=1, labels=source.labels, extra={"classes": (target.num_labels, 1)},
        extra_labels={"classes": target.labels}, compression=args.compression,
    )  # fmt: skip
    with writer:
        for number, one, other in pairs(args.source, args.target, args.number):
            data, classes = ids(source, one, args.source, number), ids(target, other, args.target, number)
            writer.insert(data, f"{args.tag}{number}", {"classes": classes})
            words = [words[0] + len(data), words[1] + len(classes)]
            progress.step()
        progress.end()
        if not progress.count:
            raise ConfigError("--source", f"{args.source} has no lines")
    print(f"{args.out}: {progress.count} pairs, {words[0]} and {words[1]} labels")
