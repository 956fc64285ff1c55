"""Errors of texts against references, counted by kind and by word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from returnn_lite.ops.edit_distance import first_row, next_row
from returnn_lite.tools.common import Progress

END_SYMBOLS = ("</s>", "<eos>", "<EOS>", "[END]", "<|endoftext|>")
Distance: TypeAlias = Callable[[list[str], list[str]], int]
# The steps that make the first list the second: (kind, place in the first, place in the second).
Steps: TypeAlias = Callable[[list[str], list[str]], Sequence[tuple[str, int, int]]]


@dataclass
class Errors:
    """Words that are substituted, inserted, deleted, of all words of the references, and sequences with any error.

    `reference`: how often each word occurs in the references. `confused` {word: what stands in its place, "" for
    nothing}; `inserted`: words that stand in no word's place.
    """

    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0
    words: int = 0
    wrong_seqs: int = 0
    seqs: int = 0
    reference: Counter[str] = field(default_factory=Counter)
    confused: dict[str, Counter[str]] = field(default_factory=dict)
    inserted: Counter[str] = field(default_factory=Counter)

    @property
    def errors(self) -> int:
        """All of them."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        """In percent; with references without words 0 if all is right, else infinite."""
        return self.percent(self.errors)

    def percent(self, number: int) -> float:
        """A number of errors as a share of the words."""
        if not self.words:
            return float("inf") if number else 0.0
        return 100 * number / self.words

    def add(self, hyp: list[str], ref: list[str], steps: Sequence[tuple[str, int, int]]) -> None:
        """Counts one sequence."""
        self.seqs += 1
        self.words += len(ref)
        self.wrong_seqs += len(steps) > 0
        self.reference.update(ref)
        for kind, at, to in steps:  # from the hypothesis to the reference: what it lacks is inserted
            if kind == "delete":
                self.insertions += 1
                self.inserted[hyp[at]] += 1
                continue
            self.substitutions += kind == "replace"
            self.deletions += kind == "insert"
            self.confused.setdefault(ref[to], Counter())[hyp[at] if kind == "replace" else ""] += 1

    def worst(self, number: int) -> list[tuple[str, int]]:
        """The words of the references with the most errors, and how many; of equal ones by name."""
        totals = {word: confusions.total() for word, confusions in self.confused.items()}
        return sorted(totals.items(), key=lambda item: (-item[1], item[0]))[:number]


def edit_steps() -> Steps:
    """Levenshtein's steps of lists, by rapidfuzz where it is installed (100 times as fast), else by `own_steps`."""
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError:
        return own_steps

    def steps(hyp: list[str], ref: list[str]) -> list[tuple[str, int, int]]:
        return [(step.tag, step.src_pos, step.dest_pos) for step in Levenshtein.editops(hyp, ref)]

    return steps


def own_steps(hyp: list[str], ref: list[str]) -> list[tuple[str, int, int]]:
    """A shortest way from the first list to the second; of equally short ones that of rapidfuzz.

    What both lists begin and end with stays. From the end, it deletes where it may, inserts where the lists before are
    then further apart, and replaces otherwise.
    """
    begin = _common(hyp, ref)
    end = _common(hyp[begin:][::-1], ref[begin:][::-1])
    first, second = hyp[begin : len(hyp) - end], ref[begin : len(ref) - end]
    rows = _distances(first, second)
    i, j, found = len(first), len(second), list[tuple[str, int, int]]()
    while i or j:
        if j == 0 or i > 0 and rows[j][i] == rows[j][i - 1] + 1:
            i -= 1
            found.append(("delete", begin + i, begin + j))
        elif i == 0 or rows[j - 1][i] < rows[j - 1][i - 1]:
            j -= 1
            found.append(("insert", begin + i, begin + j))
        else:
            i, j = i - 1, j - 1
            if first[i] != second[j]:
                found.append(("replace", begin + i, begin + j))
    return found[::-1]


def _common(first: list[str], second: list[str]) -> int:
    """How many entries both begin with."""
    return next(
        (i for i, (x, y) in enumerate(zip(first, second, strict=False)) if x != y), min(len(first), len(second))
    )


def _distances(first: list[str], second: list[str]) -> list[list[int]]:
    """[j][i]: the distance of the first i entries to the first j of the second."""
    ids = {entry: number for number, entry in enumerate(dict.fromkeys([*first, *second]))}
    target, length = torch.tensor([[ids[entry] for entry in first]], dtype=torch.int32), torch.tensor([len(first)])
    rows = [first_row(target, length)]
    for entry in second:
        rows.append(next_row(rows[-1], torch.tensor([ids[entry]]), target, length))
    return torch.cat(rows).tolist()


def word_distance() -> Distance:
    """Levenshtein's distance of lists."""
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError:
        return lambda hyp, ref: len(own_steps(hyp, ref))
    distance: Distance = Levenshtein.distance
    return distance


def units(text: str, *, ends: Sequence[str] = END_SYMBOLS, characters: bool = False) -> list[str]:
    """The words of a text, which white space separates, or its characters; end symbols at its end are left out."""
    words = text.split()
    while words and words[-1] in ends:
        words.pop()
    return list(" ".join(words)) if characters else words


def joined_pieces(text: str) -> str:
    """A text of pieces as words: "@@ " (BPE) is left out, "▁" (SentencePiece) begins a word."""
    if "▁" in text:
        return "".join(text.split()).replace("▁", " ").strip()
    return text.replace("@@ ", "").removesuffix("@@")


def count_errors(hyps: Mapping[str, list[str]], refs: Mapping[str, list[str]], steps: Steps) -> Errors:
    """Over all sequences of `hyps`."""
    found, progress = Errors(), Progress("sequences")
    for tag, hyp in hyps.items():
        found.add(hyp, refs[tag], steps(hyp, refs[tag]))
        progress.step(found.seqs / len(hyps))
    progress.end()
    return found


def report(found: Errors, name: str, unit: str, worst: int) -> list[str]:
    """What is found, as lines: the rate, errors by kind, and the worst words with what stands in their place."""
    kinds = ("substitutions", "insertions", "deletions")
    counts = ", ".join(f"{getattr(found, kind)} {kind} ({found.percent(getattr(found, kind)):.2f} %)" for kind in kinds)
    share = 100 * found.wrong_seqs / found.seqs if found.seqs else 0.0
    lines = [
        f"{name} {found.rate:.2f} %: {found.errors} errors in {found.words} {unit},"
        f" {found.wrong_seqs} of {found.seqs} sequences wrong",
        f"{counts}; sentence errors {share:.2f} %",
    ]
    words = found.worst(worst)
    lines += [f"worst {unit}:"] if words else []
    for word, number in words:
        instead = ", ".join(f"{other or '(nothing)'} {n}" for other, n in found.confused[word].most_common(3))
        lines.append(f"  {word}  {number} of {found.reference[word]} wrong: {instead}")
    if worst and found.inserted:
        lines.append("inserted: " + ", ".join(f"{word} {n}" for word, n in found.inserted.most_common(worst)))
    return lines
