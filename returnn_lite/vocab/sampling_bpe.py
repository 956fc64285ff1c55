"""Words cut into random pieces of a vocabulary."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError
from returnn_lite.vocab.base import Vocabulary
from returnn_lite.vocab.bpe import SEPARATOR


class Node:
    """Where one can be in a label: its continuations, and whether a label ends here (alone, or followed by others)."""

    def __init__(self) -> None:
        self.next: dict[str, Node] = {}
        self.final = False  # the label that ends here may end a word
        self.partial = False  # the label that ends here may be followed by others


class SamplingBytePairEncoding(Vocabulary):
    """Each word is split randomly into labels that spell it.

    `breadth_prob` 0 prefers long labels, 1 short ones. Labels that others follow end in `label_postfix_merge_symbol`
    ("@@"); or instead labels that begin words begin with `word_prefix_symbol`.
    """

    def __init__(
        self,
        *,
        breadth_prob: float,
        label_postfix_merge_symbol: str | None = None,
        word_prefix_symbol: str | None = None,
        path: str = "vocab",
        **options: ConfigValue,
    ):
        super().__init__(path=path, **options)
        if label_postfix_merge_symbol and word_prefix_symbol:
            raise ConfigError(path, "label_postfix_merge_symbol and word_prefix_symbol must not both be set")
        self.prefix = word_prefix_symbol or ""
        self.postfix = "" if self.prefix else label_postfix_merge_symbol or SEPARATOR
        self.breadth_prob = breadth_prob
        self.root = self._trie()
        self.set_random_seed(0)

    def set_random_seed(self, seed: int) -> None:
        """Begins anew."""
        self.rng = np.random.RandomState(seed)

    def _trie(self) -> Node:
        root = Node()
        for label in self.table:
            partial = bool(self.postfix) and label.endswith(self.postfix)
            node = root
            for char in label.removesuffix(self.postfix) if partial else label:
                node = node.next.setdefault(char, Node())
            node.partial |= partial or bool(self.prefix)
            node.final |= not partial
        return root

    def symbols(self, text: str) -> Iterator[str]:
        """The labels of each word; raises ConfigError if they cannot spell it and there is no unknown label."""
        for word in text.split():
            found = self.sample(self.prefix + word)
            if found is not None:
                yield from found
            elif self.unknown_id is None:
                raise ConfigError(self.path, f'no BPE-split for word "{word}", and unknown_label is not set')
            else:
                yield self.labels[self.unknown_id]

    def sample(self, word: str) -> list[str] | None:
        """Labels that spell the word, by a search in random order; None if there are none."""
        stack: list[tuple[tuple[str, ...], int, Node, int]] = [((), 0, self.root, 0)]  # labels, start of label, …
        result = None
        while stack and result is None:
            labels, start, node, position = stack.pop()
            following = []
            if node.partial:
                following.append(((*labels, word[start:position] + self.postfix), position, self.root))
            following.append((labels, start, node))
            if self.rng.random_sample() <= self.breadth_prob:
                following.reverse()
            for labels, start, node in following:
                after = node.next.get(word[position])
                if after is None:
                    continue
                if position + 1 < len(word):
                    stack.append((labels, start, after, position + 1))
                elif after.final:
                    result = [*labels, word[start:]]
        return result
