"""`data text`: sentences, or pairs of them, in the file formats of the recipes for language models and translation."""

from __future__ import annotations

import argparse
import csv
import functools
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from returnn_lite.errors import ConfigError
from returnn_lite.files import write_atomically
from returnn_lite.tools.common import output_file
from returnn_lite.tools.own_data import sets
from returnn_lite.tools.own_data.labels import END, UNKNOWN, Labels
from returnn_lite.tools.own_data.transcripts import text_lines
from returnn_lite.vocab import create_vocab

KINDS = ("words", "bpe", "characters", "sentencepiece")
ENDS = {END: "</S>", UNKNOWN: "<UNK>"}  # as TranslationDataset calls them


@dataclass(frozen=True)
class Sentence:
    """A sentence, and its translation if there is one."""

    texts: tuple[str, ...]
    split: str = ""


def read_sentences(paths: Sequence[str]) -> list[Sentence | ConfigError]:
    """The sentences of a text file; pairs of two, or of a table of two columns. ConfigError for what is none of it."""
    for path in paths:
        if not os.path.isfile(path):
            raise ConfigError(path, "no such file")
    if len(paths) == 1 and paths[0].lower().endswith((".tsv", ".csv")):
        return _pairs_of_table(paths[0])
    lines = [text_lines(path) for path in paths]
    if len({len(each) for each in lines}) > 1:
        raise ConfigError(paths[1], f"must have as many lines as {paths[0]}, {len(lines[0])}, but has {len(lines[1])}")
    rows = [(i, tuple(" ".join(line.split()) for line in row)) for i, row in enumerate(zip(*lines, strict=True), 1)]
    found: list[Sentence | ConfigError] = []
    for i, row in rows:
        empty = next((path for path, text in zip(paths, row, strict=True) if not text), None)
        if empty is not None and len(paths) == 1:
            continue  # between paragraphs
        found.append(Sentence(row) if empty is None else ConfigError(f"{empty}:{i}", "is empty, but its partner is not")
                     if any(row) else ConfigError(f"{empty}:{i}", "is empty"))  # fmt: skip
    if not found:
        raise ConfigError(paths[0], "holds no sentences")
    return found


def _pairs_of_table(path: str) -> list[Sentence | ConfigError]:
    lines = text_lines(path)
    tab = path.lower().endswith(".tsv")
    delimiter = "\t" if tab else ";" if lines and lines[0].count(";") > lines[0].count(",") else ","
    rows = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE if tab else csv.QUOTE_MINIMAL)
    found: list[Sentence | ConfigError] = []
    for row in rows:
        place = f"{path}:{rows.line_num}"
        if rows.line_num == 1 and [cell.strip().lower() for cell in row] in (["source", "target"], ["src", "tgt"]):
            continue
        texts = tuple(" ".join(cell.split()) for cell in row)
        if len(texts) != 2:
            found.append(ConfigError(place, f"must have two columns, source and target, but has {len(texts)}"))
        else:
            found.append(Sentence(texts) if all(texts) else ConfigError(place, "a side of the pair is empty"))
    if not found:
        raise ConfigError(path, "holds no pairs")
    return found


def write_language_model(folder: str, parts: dict[str, list[Sentence]], labels: Labels) -> dict[str, Any]:
    """`train.txt` … cut into labels, `vocab.txt`; the options of a config."""
    root = os.path.abspath(folder)
    for name, part in parts.items():
        with output_file(os.path.join(folder, f"{name}.txt")) as file:
            file.writelines(f"{labels.cut(sentence.texts[0])}\n" for sentence in part)
    names = label_names(labels)
    with output_file(os.path.join(folder, "vocab.txt")) as file:
        file.writelines(f"{name}\n" for name in names)
    vocab = {"class": "Vocabulary", "vocab_file": f"{root}/vocab.txt", "unknown_label": UNKNOWN, "seq_postfix": [0]}

    def dataset(name: str, order: str) -> dict[str, Any]:
        return {"class": "LmDataset", "corpus_file": f"{root}/{name}.txt", "orth_vocab": vocab, "seq_ordering": order}

    orders = {"train": "laplace:.1000", "dev": "sorted", "test": "sorted"}
    values = {("eval" if name == "test" else name): dataset(name, orders[name]) for name in parts}
    extern = {"data": {"dim": len(names), "sparse": True, "vocab": vocab}}
    return {"data_dir": root, "num_labels": len(names), **values, "extern_data": extern, "target": "data"}


def label_names(labels: Labels) -> list[str]:
    """The labels as they stand in texts that are cut: the end is 0, then the unknown one."""
    if labels.kind == "characters":
        with open(labels.options["vocab_file"], encoding="utf8") as file:
            chars = [line.removesuffix("\n") for line in file]
        return [END, UNKNOWN, *("<space>" if char == " " else char for char in chars)]
    return list(create_vocab(labels.options, "--vocab").labels)


def _put(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def write_translation(folder: str, parts: dict[str, list[Sentence]], sides: Sequence[Labels]) -> dict[str, Any]:
    """`source.train.gz`, `target.train.gz` … cut into labels, `source.vocab.pkl`, …; the options of a config."""
    counts = []
    for i, (side, labels) in enumerate(zip(("source", "target"), sides, strict=True)):
        table = {ENDS.get(name, name): number for number, name in enumerate(label_names(labels))}
        counts.append(len(table))
        content = pickle.dumps(table)
        write_atomically(os.path.join(folder, f"{side}.vocab.pkl"), functools.partial(_put, content))
        for name, part in parts.items():
            with output_file(os.path.join(folder, f"{side}.{name}.gz")) as file:
                for sentence in part:
                    words = (ENDS.get(word, word) for word in labels.cut(sentence.texts[i]).split())
                    file.write(" ".join(words) + "\n")

    def dataset(name: str, order: str) -> dict[str, Any]:
        return {
            "class": "TranslationDataset", "path": os.path.abspath(folder), "file_postfix": name,
            "source_postfix": " </S>", "target_postfix": " </S>", "unknown_label": "<UNK>", "seq_ordering": order,
        }  # fmt: skip

    orders = {"train": "laplace:.1000", "dev": "sorted", "test": "sorted"}
    values = {("search_data" if name == "test" else name): dataset(name, orders[name]) for name in parts}
    extern = {key: {"dim": n, "sparse": True} for key, n in zip(("data", "classes"), counts, strict=True)}
    sizes = {"num_source_labels": counts[0], "num_target_labels": counts[1]}
    return {"data_dir": os.path.abspath(folder), **sizes, **values, "extern_data": extern, "target": "classes"}


def parser() -> argparse.ArgumentParser:
    """The options of `data text`."""
    made = argparse.ArgumentParser(
        prog="data.py text",
        description="Writes sentences for a language model, or pairs for translation: train, dev and test sets cut into"
        " labels, vocabularies, references, and data.config with the lines for a config.",
    )
    add = made.add_argument
    add("texts", nargs="+", help="a text file; or two with as many lines, or a table (.tsv, .csv) of two columns")
    add("out", help="a new folder")
    add("--vocab", choices=KINDS, default="words", help="the kind of labels (words)")
    add("--vocab_size", type=int, metavar="N", help="the number of labels of bpe and sentencepiece; words: at most")
    add("--lowercase", action="store_true", help="converts all texts to lower case")
    sets.add_set_options(made)
    return made


def run(argv: Sequence[str]) -> None:
    """`data text`."""
    args = parser().parse_args(argv)
    if len(args.texts) > 2:
        raise ConfigError("texts", f"must be one text file or two, and the folder to write, but got {len(args.texts)}")
    found = sets.good_ones(read_sentences(args.texts), args.skip)
    if args.lowercase:
        found = [Sentence(tuple(text.lower() for text in one.texts), one.split) for one in found]
    parts = sets.split_sets(found, args)
    sets.new_folder(args.out)
    count = len(found[0].texts)
    sides = [
        Labels(
            args.vocab, [one.texts[i] for one in parts["train"]], args.out, args.vocab_size, "" if count == 1 else side
        )
        for i, side in enumerate(("source.", "target.")[:count])
    ]
    values = (
        write_language_model(args.out, parts, sides[0]) if count == 1 else write_translation(args.out, parts, sides)
    )
    for name, part in parts.items():
        if count == 2:
            sets.write_references(args.out, name, {f"line-{i}": one.texts[1] for i, one in enumerate(part)})
        print(f"{name}: {len(part)} {'sentences' if count == 1 else 'pairs'}")
    text = sets.write_config(args.out, values, ["text", *argv])
    print(f"{' and '.join(str(side.count) for side in sides)} labels ({args.vocab})")
    print(f"\nThe lines for a config ({args.out}/data.config):\n\n{text}")
