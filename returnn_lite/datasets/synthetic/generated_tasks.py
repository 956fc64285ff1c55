"""Artificial tasks that need memory: copying, closing tags, assigning variables, converting numbers."""

from __future__ import annotations

import math
import string

import numpy as np

from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.datasets.registry import dataset
from returnn_lite.datasets.synthetic.generated import GeneratedDataset
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log

LETTERS = list("abcdefgh")
DIGITS = string.digits + string.ascii_lowercase
INT8_VALUES = 128


class SymbolTask(GeneratedDataset):
    """Predicts a symbol at each symbol; data are one-hot vectors, classes int64 indices into `symbols`."""

    symbols = ""

    def __init__(self, base: BaseOptions | None = None, *, num_seqs: float = math.inf, log: Log | None = None):
        super().__init__(base, num_seqs=num_seqs, log=log)
        self.set_dims(len(self.symbols), {"classes": (len(self.symbols), 1)})

    def text(self, rng: np.random.RandomState) -> str:
        """The symbols of one sequence."""
        raise NotImplementedError

    def answers(self, text: str) -> str:
        """The right answer to each symbol."""
        raise NotImplementedError

    def generate(self, rng: np.random.RandomState) -> Seq:
        """One sequence."""
        text = self.text(rng)
        one_hot = np.eye(len(self.symbols), dtype="float32")
        return {
            "data": one_hot[[self.symbols.index(c) for c in text]],
            "classes": np.array([self.symbols.index(c) for c in self.answers(text)], "int64"),
        }


@dataset("TaskEpisodicCopyDataset")
class TaskEpisodicCopyDataset(SymbolTask):
    """Digits, then blanks, then dots: repeat the digits at the dots."""

    symbols = " .01234567"

    def text(self, rng: np.random.RandomState) -> str:
        """1 to 9 digits, 1 to 99 blanks, and two dots more than digits."""
        digits = "".join(rng.choice(list("01234567")) for _ in range(rng.randint(1, 10)))
        return digits + " " * rng.randint(1, 100) + "." * (len(digits) + 2)

    def answers(self, text: str) -> str:
        """Blanks up to the first dot, then the digits and a dot."""
        digits = text.rstrip(".").rstrip()
        waiting = text.index(".") + 1
        return " " * waiting + digits + "." * (len(text) - waiting - len(digits))


@dataset("TaskXmlModelingDataset")
class TaskXmlModelingDataset(SymbolTask):
    """Nested tags: predict the next symbol as far as it is determined. Jozefowicz et al., 2015."""

    symbols = " <>/abcdefgh"

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        limit_stack_depth: int = 4,
        num_seqs: float = math.inf,
        log: Log | None = None,
    ):
        super().__init__(base, num_seqs=num_seqs, log=log)
        self.depth = limit_stack_depth

    def text(self, rng: np.random.RandomState) -> str:
        """Random tags, opened and closed."""
        text, stack = " ", list[str]()
        while True:
            if not stack or (len(stack) < self.depth and rng.rand() > 0.6):
                tag = "".join(rng.choice(LETTERS) for _ in range(rng.randint(1, 10)))
                stack.append(tag)
                text += f"<{tag}>"
            else:
                text += f"</{stack.pop()}>"
            if not stack and rng.rand() > 0.2:
                return text

    def answers(self, text: str) -> str:
        """What comes next, " " where that is open."""
        stack: list[str] = []
        closing, answer = "", ""  # what is left of the closing tag
        for before, symbol in zip(" " + text, text, strict=False):
            if symbol in " >":
                answer += "<"
            elif symbol == "<":
                answer += " "
            elif symbol == "/":
                closing = stack.pop() + ">"
                answer, closing = answer + closing[0], closing[1:]
            elif closing:
                answer, closing = answer + closing[0], closing[1:]
            else:
                if before == "<":
                    stack.append("")
                stack[-1] += symbol
                answer += " "
        return answer


@dataset("TaskVariableAssignmentDataset")
class TaskVariableAssignmentDataset(SymbolTask):
    """Assignments to variables, then a question for one of them. Refused: see the error."""

    symbols = " ,.SQ()abcdefgh"

    def __init__(self, base: BaseOptions | None = None, *, num_seqs: float = math.inf, log: Log | None = None):
        super().__init__(base, num_seqs=num_seqs, log=log)
        raise ConfigError(
            self.name,
            "TaskVariableAssignmentDataset has no agreed sequences, as the reference's generator fails;"
            " TaskEpisodicCopyDataset and TaskXmlModelingDataset are similar tasks",
        )


@dataset("TaskNumberBaseConvertDataset")
class TaskNumberBaseConvertDataset(GeneratedDataset):
    """The digits of a number in one base; the answer are its digits in another one, most significant first."""

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        input_base: int = 8,
        output_base: int = 2,
        min_input_seq_len: int = 1,
        max_input_seq_len: int = 8,
        num_seqs: float = math.inf,
        log: Log | None = None,
    ):
        super().__init__(base, num_seqs=num_seqs, log=log)
        for option, value in (("input_base", input_base), ("output_base", output_base)):
            if not 2 <= value <= len(DIGITS):
                raise ConfigError(f"{self.name}: {option}", f"must be from 2 to {len(DIGITS)}, but is {value} instead")
        if not 0 < min_input_seq_len <= max_input_seq_len:
            raise ConfigError(f"{self.name}: min_input_seq_len", "must be from 1 to max_input_seq_len")
        self.bases, self.lengths = (input_base, output_base), (min_input_seq_len, max_input_seq_len)
        self.num_inputs = input_base
        self.num_outputs = {"data": (input_base, 1), "classes": (output_base, 1)}
        self.labels = {"data": list(DIGITS[:input_base]), "classes": list(DIGITS[:output_base])}

    def generate(self, rng: np.random.RandomState) -> Seq:
        """One sequence."""
        low, high = self.lengths
        digits = [int(rng.randint(0, self.bases[0])) for _ in range(rng.randint(low, high + 1))]
        number = 0
        for digit in digits:
            number = number * self.bases[0] + digit
        answer = []
        while number:
            number, digit = divmod(number, self.bases[1])
            answer.append(digit)
        return {"data": np.array(digits, "int64"), "classes": np.array(answer[::-1] or [0], "int64")}


@dataset("CopyTaskDataset")
class CopyTaskDataset(GeneratedDataset):
    """Random symbols; the answer is the same sequence. The length range may grow with the epoch, by a factor."""

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        nsymbols: int,
        minlen: int = 0,
        maxlen: int = 0,
        minlen_epoch_factor: float = 0,
        maxlen_epoch_factor: float = 0,
        num_seqs: float = math.inf,
        log: Log | None = None,
    ):
        super().__init__(base, num_seqs=num_seqs, log=log)
        if not 0 < nsymbols <= INT8_VALUES:
            raise ConfigError(f"{self.name}: nsymbols", f"must be from 1 to {INT8_VALUES}, but is {nsymbols} instead")
        self.nsymbols = nsymbols
        self.lengths, self.factors = (minlen, maxlen), (minlen_epoch_factor, maxlen_epoch_factor)
        self.num_inputs = nsymbols
        self.num_outputs = {"data": (nsymbols, 1), "classes": (nsymbols, 1)}

    def generate(self, rng: np.random.RandomState) -> Seq:
        """One sequence."""
        low, high = (int(n + f * (self.epoch or 1)) for n, f in zip(self.lengths, self.factors, strict=True))
        if not 0 < low <= high:
            raise ConfigError(
                f"{self.name}: minlen", f"must be from 1 to maxlen, but they are {low} and {high} in epoch {self.epoch}"
            )
        symbols = np.array([rng.randint(0, self.nsymbols) for _ in range(rng.randint(low, high + 1))], "int8")
        return {"data": symbols, "classes": symbols}
