"""Vocabularies and lexica as code of configs makes them."""

from __future__ import annotations

from typing import Any

from returnn_lite.datasets.audio.bliss_corpus import read_lexicon
from returnn_lite.reading import read_bytes
from returnn_lite.vocab.create import VOCABULARIES, create_vocab


def names() -> dict[str, Any]:
    """`returnn.datasets.util.vocabulary`."""
    classes = {name: vocabulary(name) for name in VOCABULARIES}
    return {**classes, "Vocabulary": vocabulary(None)}


def vocabulary(name: str | None) -> Any:
    """The class as configs call it: `Vocabulary(…)`, `Vocabulary.create_vocab(…)`."""
    given = {} if name is None else {"class": name}

    def create(**options: Any) -> Any:
        return create_vocab({**given, **options})

    def from_labels(labels: Any, **options: Any) -> Any:
        return create_vocab({"class": "Vocabulary", "labels": labels, "unknown_label": None, **options})

    members: dict[str, Any] = {"__new__": lambda cls, **options: create(**options), "create_vocab": create}
    members["create_vocab_from_labels"] = staticmethod(from_labels)
    return type(name or "Vocabulary", (), members)


class Lexicon:
    """A lexicon file: `lemmas` by orthography, with "orth" and "phons"; `phonemes`, `phoneme_list`."""

    def __init__(self, filename: str) -> None:
        self.phoneme_list, lemmas = read_lexicon(read_bytes(filename, "Lexicon"), "Lexicon")
        self.phonemes = {p: {"index": i, "symbol": p, "variation": "context"} for i, p in enumerate(self.phoneme_list)}
        self.lemmas = lemmas
