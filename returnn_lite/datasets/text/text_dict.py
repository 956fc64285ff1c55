"""Texts by tag, such as the hypotheses that a search has written."""

from __future__ import annotations

import ast
import math
import re

import numpy as np

from returnn_lite.config_value import ConfigValue
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.casting import class_indices
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.datasets.order.tags import TagTable
from returnn_lite.datasets.registry import dataset
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.reading import read_text
from returnn_lite.vocab import create_vocab

# Texts in quotes (kept), or a name.
_NAMES = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|\b(inf|nan)\b""")
NAN, NAN_VALUE = "('nan',)", ("nan",)  # a literal that stands for nan
WITH_SCORES, SINGLE = "list_with_scores", "single"


@dataset("TextDictDataset")
class TextDictDataset(Dataset):
    """A file with a Python dict tag -> text (`item_format` "single") or tag -> [(score, text), …] ("list_with_scores").

    "data" is the text, or that with the best score; then "data_flat" are all of them end to end, "data_seq_lens" their
    lengths, and "scores" their scores.
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        filename: str,
        item_format: str = WITH_SCORES,
        vocab: ConfigValue,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        if item_format not in (WITH_SCORES, SINGLE):
            raise ConfigError(
                f"{self.name}: item_format", f'must be "{WITH_SCORES}" or "{SINGLE}", but is {item_format!r} instead'
            )
        self.vocab = create_vocab(vocab, f"{self.name}: vocab")
        items = read_texts(filename, f"{self.name}: filename")
        self.tags, self.scored = TagTable.of(items), item_format == WITH_SCORES
        self.items = [self._checked(tag, item) for tag, item in items.items()]
        dim = self.vocab.num_labels
        self.num_inputs, self.num_outputs = dim, {"data": (dim, 1)}
        if self.scored:
            self.num_outputs |= {"data_flat": (dim, 1), "data_seq_lens": (1, 1), "scores": (1, 1)}
        self.labels = {"data_flat" if self.scored else "data": list(self.vocab.labels)}

    def _checked(self, tag: str, item: ConfigValue) -> list[tuple[float, str]]:
        """[(score, text), …] of an entry."""
        if not self.scored and isinstance(item, str):
            return [(0.0, item)]
        pairs = isinstance(item, list) and bool(item) and all(isinstance(p, tuple) and len(p) == 2 for p in item)
        if not self.scored or not pairs or not all(isinstance(text, str) for _, text in item):
            expected = "a list of (score, text)" if self.scored else "a text"
            raise ConfigError(f'{self.name}: sequence "{tag}"', f"must be {expected}, but is {str(item)[:100]} instead")
        return [(math.nan if score == NAN_VALUE else float(score), text) for score, text in item]

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """Entries of the dict."""
        return len(self.items)

    def get_all_tags(self) -> TagTable:
        """Keys of the dict."""
        return self.tags

    def corpus_tag(self, index: int) -> str:
        """Key of the dict."""
        return self.tags[index]

    def sort_lengths(self) -> np.ndarray:
        """Characters of each entry."""
        return np.array([sum(len(text) for _, text in item) for item in self.items])

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """The classes of the texts."""
        return [self._seq_of(self.items[i]) for i in indices]

    def _seq_of(self, item: list[tuple[float, str]]) -> Seq:
        texts = [class_indices(self.vocab.get_seq(text), key="data") for _, text in item]
        scores = np.array([score for score, _ in item], "float32")
        best = max(range(len(item)), key=lambda i: item[i][0])
        if not self.scored:
            return {"data": texts[0]}
        lengths = np.array([len(text) for text in texts], "int32")
        return {"data": texts[best], "data_flat": np.concatenate(texts), "data_seq_lens": lengths, "scores": scores}

    def is_data_sparse(self, key: str) -> bool:
        """Lengths and scores are no classes."""
        return super().is_data_sparse(key) and key in ("data", "data_flat")

    def get_data_dtype(self, key: str) -> str:
        """float32 for scores, else int32."""
        self._dim_ndim(key)
        return "float32" if key == "scores" else "int32"


def read_texts(filename: str, path: str) -> dict[str, ConfigValue]:
    """The Python dict in a file, in which inf and nan may occur. Raises ConfigError for anything else."""
    text = read_text(filename, path)
    # The names inf and nan, outside of texts, as values that a literal may hold.
    text = _NAMES.sub(lambda found: found[1] or ("1e999" if found[2] == "inf" else NAN), text)
    try:
        found = ast.literal_eval(text.strip())
    except (SyntaxError, ValueError) as exc:
        raise ConfigError(path, f"{filename} must hold a Python dict tag -> text: {exc}") from None
    if not isinstance(found, dict) or not found:
        raise ConfigError(path, f"{filename} must hold a non-empty Python dict tag -> text")
    return found
