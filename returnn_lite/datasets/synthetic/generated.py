"""Datasets which make up their sequences: small artificial tasks for demos and tests."""

from __future__ import annotations

import math

import numpy as np

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.combined.window import stack_window
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.datasets.order.ordering import OrderOptions
from returnn_lite.datasets.registry import dataset
from returnn_lite.datasets.tables.static import numbered
from returnn_lite.log import Log


class GeneratedDataset(Dataset):
    """Sequences drawn from a random generator that depends on the epoch's seed and the corpus index alone.

    `num_seqs` may be math.inf. Orders by length fall back to "default": lengths are not known in advance.
    """

    def __init__(self, base: BaseOptions | None = None, *, num_seqs: float = math.inf, log: Log | None = None):
        super().__init__(base, log=log)
        self._total = num_seqs

    def generate(self, rng: np.random.RandomState) -> Seq:
        """One sequence, its window not yet applied."""
        raise NotImplementedError

    def generate_at(self, index: int, rng: np.random.RandomState) -> Seq:
        """The sequence with a corpus index."""
        seq = self.generate(rng)
        return {**seq, "data": stack_window(seq["data"], self.window)}

    def set_dims(self, inputs: int, outputs: dict[str, tuple[int, int]]) -> None:
        """Sets `num_inputs` and `num_outputs`; "data" are dense frames of `inputs` numbers, widened by the window."""
        self.window += self.window % 2 == 0  # the frame itself stands in the middle
        self.num_inputs = inputs
        self.num_outputs = {"data": (inputs * self.window, 2), **outputs}

    @property
    def order_options(self) -> OrderOptions:
        """As for every dataset, without orders by length."""
        options = super().order_options
        if options.seq_ordering in ("sorted", "sorted_reverse"):
            options = OrderOptions(**{**vars(options), "seq_ordering": "default"})
        return options

    def get_total_num_seqs(self, *, fast: bool = False) -> float:
        """The option `num_seqs`."""
        return self._total

    def corpus_index(self, tag: str) -> int:
        """The number behind "seq-"."""
        return numbered(tag, self.name, self._total)

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """Generates the sequences; the same ones whenever asked in this epoch."""
        return [self._one(int(i)) for i in indices]

    def _one(self, index: int) -> Seq:
        rng = np.random.RandomState()
        rng.seed((self.epoch_seed(), index))
        return self.generate_at(index, rng)


@dataset("Task12AXDataset")
class Task12AXDataset(GeneratedDataset):
    """The 12AX task: the last of 1 and 2 decides whether AX or BY is answered with "R" (everything else: "L").

    Nested memory of two depths; data are one-hot symbols of "123ABCXYZ", classes indices into "LR", 10 to 99 frames.
    O'Reilly & Frank, Making working memory work, 2006.
    """

    inputs = "123ABCXYZ"
    outputs = "LR"

    def __init__(self, base: BaseOptions | None = None, *, num_seqs: float = math.inf, log: Log | None = None):
        super().__init__(base, num_seqs=num_seqs, log=log)
        self.set_dims(len(self.inputs), {"classes": (len(self.outputs), 1)})

    def generate(self, rng: np.random.RandomState) -> Seq:
        """One sequence."""
        text = self._text(rng)
        one_hot = np.eye(len(self.inputs), dtype="float32")
        return {
            "data": one_hot[[self.inputs.index(c) for c in text]],
            "classes": np.array([self.outputs.index(c) for c in self.answers(text)], "int32"),
        }

    @staticmethod
    def _text(rng: np.random.RandomState) -> str:
        length = rng.randint(10, 100)
        text: str = rng.choice(["", "1", "2"])
        while len(text) < length:
            if rng.uniform() < 0.5:
                text += rng.choice(list("12"))
            if rng.uniform() < 0.9:
                text += rng.choice(["AX", "BY"])
            while rng.uniform() < 0.5:
                text += rng.choice(list("123ABCXYZ"))
        return text[:length]

    @staticmethod
    def answers(text: str) -> str:
        """ "LLRLL…": the right answer to each symbol."""
        outer = inner = answer = ""
        for symbol in text:
            right = "L"
            if symbol in "12":
                outer = symbol
            elif symbol in "AB":
                inner = symbol
            elif symbol in "XY":
                right = "R" if outer + inner + symbol in ("1AX", "2BY") else "L"
                inner = ""
            answer += right
        return answer
