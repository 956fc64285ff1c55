"""`batch_size` and `max_seqs` as functions, which are asked for every sequence."""

from __future__ import annotations

from dataclasses import dataclass, field

from returnn_lite.config_value import ConfigFunction
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.batches.limits import Limit, check_limit
from returnn_lite.errors import ConfigError


@dataclass(frozen=True)
class ChangingLimits:
    """The limits of a batch as each sequence of an epoch has them.

    Functions are called as f(epoch=, epoch_continuous=, seq_idx=, **kwargs): the epoch from 1, the epochs that are done
    with the sequence (None where the number of sequences is not known), its index. ConfigError for wrong results.
    """

    dataset: Dataset
    batch_size: Limit | ConfigFunction
    max_seqs: int | ConfigFunction
    size_option: str = "batch_size"
    known: int | None = field(init=False)  # sequences of the epoch

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", self.dataset.known_num_seqs)

    def __call__(self, seq_idx: int) -> tuple[Limit, int]:
        size, count = (
            value(**self._where(seq_idx)) if callable(value) else value for value in (self.batch_size, self.max_seqs)
        )
        check_limit(self.size_option, size, above=True)
        count = -1 if count is None else count
        if isinstance(count, bool) or not isinstance(count, int) or count != -1 and count < 1:
            raise ConfigError(
                "max_seqs", f"the function must return a whole number above 0, but returned {count!r} instead"
            )
        return size, count

    def _where(self, seq_idx: int) -> dict[str, int | float | None]:
        epoch, part = self.dataset.epoch or 1, known_part(self.known, seq_idx)
        return {"epoch": epoch, "epoch_continuous": None if part is None else epoch - 1 + part, "seq_idx": seq_idx}


def known_part(known: int | None, seq_idx: int) -> float | None:
    """The part of an epoch of this many sequences that is done with one, in (0, 1]; None if nobody knows how many."""
    return None if known is None else min((seq_idx + 1) / max(known, 1), 1.0)
