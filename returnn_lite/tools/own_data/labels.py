"""Vocabularies of texts: characters, words, byte pairs, SentencePiece's pieces; files as the recipes read them."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from returnn_lite.errors import ConfigError
from returnn_lite.tools.common import Progress, output_file
from returnn_lite.vocab import create_vocab

KINDS = ("characters", "words", "bpe", "sentencepiece")
END, UNKNOWN = "</s>", "<unk>"
Pair = tuple[str, str]


def learn_merges(words: Counter[str], number: int) -> list[Pair]:
    """The merges of byte pair encoding: again and again the most frequent pair of neighbours, of equal ones the last.

    Sennrich et al., Neural machine translation of rare words with subword units, 2016. Ends where no pair occurs twice.
    """
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in words]
    counts = list(words.values())
    pairs: Counter[Pair] = Counter()
    where: dict[Pair, set[int]] = {}
    for i, parts in enumerate(spelled):
        for pair in zip(parts, parts[1:], strict=False):
            pairs[pair] += counts[i]
            where.setdefault(pair, set()).add(i)
    merges: list[Pair] = []
    progress = Progress("merges")
    while len(merges) < number and pairs:
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        if pairs[best] < 2:
            break
        merges.append(best)
        for i in where.pop(best):
            parts = spelled[i]
            for pair in zip(parts, parts[1:], strict=False):
                pairs[pair] -= counts[i]
                if pairs[pair] <= 0:
                    del pairs[pair]
            spelled[i] = parts = merged(parts, best)
            for pair in zip(parts, parts[1:], strict=False):
                pairs[pair] += counts[i]
                where.setdefault(pair, set()).add(i)
        pairs.pop(best, None)
        progress.step(len(merges) / number)
    progress.end()
    return merges


def merged(parts: list[str], pair: Pair) -> list[str]:
    """The parts with each occurrence of the pair as one, from left to right."""
    found: list[str] = []
    for part in parts:
        if found and (found[-1], part) == pair:
            found[-1] += part
        else:
            found.append(part)
    return found


def pieces_of(merges: Sequence[Pair], words: Counter[str]) -> list[str]:
    """All pieces that may come out: of single characters and merges, inside of words ("@@") and at their ends."""
    parts = {part for word in words for part in (*word[:-1], word[-1] + "</w>", *word)}
    parts |= {char + "</w>" for word in words for char in word} | {a + b for a, b in merges}
    return sorted(part.removesuffix("</w>") if part.endswith("</w>") else part + "@@" for part in parts)


class Labels:
    """Writes a vocabulary for these texts into a folder. `options`: of the vocabulary in a config; `count` labels;
    `cut`: a text as labels with spaces between.
    """

    def __init__(self, kind: str, texts: Sequence[str], folder: str, size: int | None, prefix: str = "") -> None:
        if size is not None and kind in ("characters",):
            raise ConfigError("--vocab_size", "is for words, bpe and sentencepiece; characters are as many as occur")
        if size is None and kind in ("bpe", "sentencepiece"):
            raise ConfigError("--vocab_size", f"must be given for {kind}, such as 500")
        if size is not None and size < 3:
            raise ConfigError("--vocab_size", f"must be at least 3, but is {size}")
        self.kind, self.folder, self.prefix = kind, folder, prefix
        self.cut: Callable[[str], str] = lambda text: text
        make = {"characters": self._characters, "words": self._words, "bpe": self._bpe, "sentencepiece": self._pieces}
        self.options: dict[str, Any]
        self.options, self.count = make[kind](texts, size)

    def _path(self, name: str) -> str:
        return os.path.abspath(os.path.join(self.folder, self.prefix + name))

    def _write(self, name: str, lines: Sequence[str]) -> str:
        with output_file(self._path(name)) as file:
            file.writelines(f"{line}\n" for line in lines)
        return self._path(name)

    def _characters(self, texts: Sequence[str], _size: int | None) -> tuple[dict[str, Any], int]:
        labels = sorted({char for text in texts for char in text})
        self.cut = lambda text: " ".join("<space>" if char == " " else char for char in text)
        file = self._write("chars.txt", labels)
        return {"class": "CharacterTargets", "vocab_file": file, "unknown_label": None}, len(labels)

    def _words(self, texts: Sequence[str], size: int | None) -> tuple[dict[str, Any], int]:
        counts = Counter(word for text in texts for word in text.split())
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        labels = [END, UNKNOWN, *[word for word in ranked if word not in (END, UNKNOWN)][: size - 2 if size else None]]
        known = set(labels)
        self.cut = lambda text: " ".join(word if word in known else UNKNOWN for word in text.split())
        file = self._write("vocab.txt", labels)
        return {"class": "Vocabulary", "vocab_file": file, "unknown_label": UNKNOWN}, len(labels)

    def _bpe(self, texts: Sequence[str], size: int | None) -> tuple[dict[str, Any], int]:
        words = Counter(word for text in texts for word in text.split())
        single = len(pieces_of([], words)) + 2
        if size is not None and size <= single:
            raise ConfigError("--vocab_size", f"must be above {single}, the number of single characters, but is {size}")
        merges = learn_merges(words, (size or 0) - single)
        labels = list(dict.fromkeys([END, UNKNOWN, *pieces_of(merges, words)]))
        codes = self._write("bpe.codes", ["#version: 0.2", *(f"{a} {b}" for a, b in merges)])
        vocab = self._write("bpe.vocab", [repr({label: i for i, label in enumerate(labels)})])
        options = {"class": "BytePairEncoding", "bpe_file": codes, "vocab_file": vocab, "unknown_label": None}
        self._cut_by(options)
        return options, len(labels)

    def _pieces(self, texts: Sequence[str], size: int | None) -> tuple[dict[str, Any], int]:
        try:
            import sentencepiece
        except ImportError:
            raise ConfigError("--vocab", 'sentencepiece is not installed: pip install "returnn-lite[text]"') from None
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts), model_writer=model, vocab_size=size, character_coverage=1.0, unk_id=1,
                eos_id=0, bos_id=-1, pad_id=-1, minloglevel=2,
            )  # fmt: skip
        except (RuntimeError, OSError) as exc:
            reason = str(exc).splitlines()[-1].rpartition("] ")[2]
            raise ConfigError("--vocab_size", f"{size} does not suit these texts: {reason}") from None
        with open(self._path("spm.model"), "wb") as file:
            file.write(model.getvalue())
        options = {"class": "SentencePieces", "model_file": self._path("spm.model")}
        self._cut_by(options)
        return options, size or 0

    def _cut_by(self, options: dict[str, Any]) -> None:
        made: list[Any] = []

        def cut(text: str) -> str:
            if not made:
                made.append(create_vocab(options, "--vocab"))
            return " ".join(made[0].labels[i] for i in made[0].get_seq(text))

        self.cut = cut
