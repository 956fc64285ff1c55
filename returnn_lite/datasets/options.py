"""The options that every dataset has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypedDict

from returnn_lite.config_value import ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError


class DataError(ConfigError):
    """A sequence cannot be read, or is not what its dataset announced."""


class NoSuchKey(DataError, KeyError):
    """A question about a key that the dataset lacks, or of which it does not know the answer. A look-up that fails."""


def blamed(place: str, exc: Exception) -> DataError:
    """The error with the sequence that it is about (`place`), as far as it does not say so itself."""
    if isinstance(exc, DataError):
        return exc
    text = str(exc) if isinstance(exc, ConfigError) else f"{type(exc).__name__}: {exc}"
    return DataError(place, text)


class GivenOrder(TypedDict, total=False):
    """Arguments of `Dataset.init_seq_order` that replace the dataset's own order: tags, or corpus indices."""

    seq_list: Sequence[str] | None
    seq_order: Sequence[int] | None


class OrderRequest(GivenOrder, total=False):
    """All arguments of `Dataset.init_seq_order`."""

    epoch: int | None


@dataclass(frozen=True, kw_only=True)
class BaseOptions:
    """The options that every dataset has."""

    name: str = "dataset"
    window: int = 1
    context_window: ConfigValue = None
    chunking: ConfigValue = None
    seq_ordering: ConfigValue = "default"
    fixed_random_seed: int | None = None
    random_seed_offset: int | None = None
    partition_epoch: int | None = None
    repeat_epoch: int | None = None
    seq_list_filter_file: str | None = None
    unique_seq_tags: bool = False
    seq_order_seq_lens_file: str | None = None
    shuffle_frames_of_nseqs: int = 0
    min_chunk_size: ConfigValue = 0
    chunking_variance: float = 0.0
    estimated_num_seqs: int | None = None
    _num_shards: int = 1
    _shard_index: int = 0

    def __post_init__(self) -> None:
        """Raises ConfigError for values that exclude each other or make no sense."""
        counts = {"partition_epoch": self.partition_epoch, "repeat_epoch": self.repeat_epoch}
        for option, value in {**counts, "_num_shards": self._num_shards, "window": self.window}.items():
            value = value or 1
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{self.name}: {option}", f"must be a whole number >= 1, but is {value!r} instead")
        if (self.partition_epoch or 1) > 1 and (self.repeat_epoch or 1) > 1:
            raise ConfigError(f"{self.name}: repeat_epoch", "must not be combined with partition_epoch")
        if not 0 <= self._shard_index < self._num_shards:
            raise ConfigError(
                f"{self.name}: _shard_index", f"must be 0 … {self._num_shards - 1}, but is {self._shard_index}"
            )
        if self.shuffle_frames_of_nseqs:
            raise ConfigError(f"{self.name}: shuffle_frames_of_nseqs", "shuffling of frames is not supported")

    def changed(self) -> ConfigOptions:
        """The options whose values are not the defaults."""
        return {name: value for name, value in vars(self).items() if value != vars(DEFAULTS)[name]}

    @staticmethod
    def names() -> list[str]:
        """The names of the options."""
        return [f.name for f in fields(BaseOptions)]


DEFAULTS = BaseOptions()
