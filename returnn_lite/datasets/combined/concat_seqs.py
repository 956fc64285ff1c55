"""Several sequences of a dataset as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from returnn_lite.config_value import ConfigValue
from returnn_lite.datasets.combined.epoch_filter import EpochFilter
from returnn_lite.datasets.combined.sub import Wrapper, loaded, sub_dataset
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.numbers_dict import NumbersDict
from returnn_lite.datasets.options import BaseOptions, DataError
from returnn_lite.datasets.order.tags import TagTable
from returnn_lite.datasets.registry import dataset
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log
from returnn_lite.reading import read_bytes, read_literal

Multiples = Mapping[str, int]


@dataset("ConcatSeqsDataset")
class ConcatSeqsDataset(Wrapper):
    """Concatenates sequences: each line "tag;tag;…" of `seq_list_file` is one sequence, with the line as its tag.

    `seq_len_file` holds a Python dict tag -> length, for the order. What happens to all parts of a sequence but its
    last: `remove_in_between_postfix` {key: label} takes the last label off (it must be that label),
    `repeat_in_between_last_frame_up_to_multiple_of` {key: m} repeats the last frame,
    `pad_narrow_data_to_multiple_of_target_len` {key: (target, m)} repeats or cuts to m times the target's length.
    """

    have_corpus_seq_idx = True

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        dataset: ConfigValue,
        seq_list_file: str,
        seq_len_file: str,
        seq_tag_delim: str = ";",
        remove_in_between_postfix: Mapping[str, int] | None = None,
        repeat_in_between_last_frame_up_to_multiple_of: Multiples | None = None,
        pad_narrow_data_to_multiple_of_target_len: Mapping[str, tuple[str, int]] | None = None,
        use_cache_manager: bool = False,
        epoch_wise_filter: Mapping[Any, Any] | None = None,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        self.describe_as(sub_dataset(self, dataset, "inner"))
        self.tags = TagTable.of_lines(read_bytes(seq_list_file, f"{self.name}: seq_list_file"))
        self.filter = EpochFilter.parse(epoch_wise_filter, f"{self.name}: epoch_wise_filter")
        self.postfix = dict(remove_in_between_postfix or {})
        self.multiples = dict(repeat_in_between_last_frame_up_to_multiple_of or {})
        self.pad_narrow = dict(pad_narrow_data_to_multiple_of_target_len or {})
        self._check_keys()
        self._find_parts(seq_tag_delim)
        self._read_lens(seq_len_file, seq_tag_delim)

    def _check_keys(self) -> None:
        targets = {target: None for target, _ in self.pad_narrow.values()}
        known = self.inner.get_data_keys()
        for key in (*self.postfix, *self.multiples, *self.pad_narrow, *targets):
            if key not in known:
                raise ConfigError(
                    self.name, f'{self.inner.name} has no key "{key}"{did_you_mean(key, known)}; known: {known}'
                )

    def _find_parts(self, delimiter: str) -> None:
        """Corpus index in the inner dataset of each part, and where the parts of each sequence begin."""
        counts = np.fromiter((line.count(delimiter) + 1 for line in self.tags), np.int64, len(self.tags))
        self.part_starts = np.concatenate([[0], np.cumsum(counts)])
        part_tags = TagTable.of(tag for line in self.tags for tag in line.split(delimiter))
        self.parts = self.inner.tag_table.find_all(part_tags)
        if len(self.parts) and self.parts.min() < 0:
            tag = part_tags[int(np.argmin(self.parts))]
            raise ConfigError(
                f"{self.name}: seq_list_file",
                f'{self.inner.name} has no sequence with tag "{tag}"{did_you_mean(tag, self.inner.tag_table[:1000])}',
            )

    def _read_lens(self, filename: str, delimiter: str) -> None:
        path = f"{self.name}: seq_len_file"
        lens = read_literal(filename, path)
        try:
            part_lens = np.array([lens[tag] for line in self.tags for tag in line.split(delimiter)])
        except KeyError as exc:
            raise ConfigError(path, f"{filename} has no length of sequence {exc}") from None
        self.lens = np.add.reduceat(part_lens, self.part_starts[:-1]) if len(part_lens) else np.empty(0, np.int64)

    # --- the epoch ---

    def init_seq_order(
        self, epoch: int | None = None, seq_list: Sequence[str] | None = None, seq_order: Sequence[int] | None = None
    ) -> bool:
        """Starts an epoch; the inner dataset gets the parts in their order."""
        self.refuse_lists(seq_list, seq_order)
        self.epoch, self._loaded = epoch, {}
        order = np.asarray(self._new_order(epoch, None, None), np.int64)
        if epoch is not None and self.filter:
            order = self.filter.apply(order, self.lens, epoch, self.log)
        counts = np.diff(self.part_starts)[order]
        self.inner_starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        # Parts of the sequences in order: from part_starts on, counts of them.
        parts = np.repeat(self.part_starts[order] - self.inner_starts[:-1], counts) + np.arange(counts.sum())
        self._order = order
        self.inner.init_seq_order(epoch, seq_order=self.parts[parts])
        return True

    @property
    def num_seqs(self) -> int:
        """Sequences of this epoch."""
        return 0 if self._order is None else len(self._order)

    def is_less_than_num_seqs(self, n: int) -> bool:
        """Whether there is a sequence with index n."""
        return n < self.num_seqs

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """Lines of the list."""
        return len(self.tags)

    def get_all_tags(self) -> TagTable:
        """The lines of the list."""
        return self.tags

    def sort_lengths(self) -> np.ndarray:
        """Sums of the given lengths."""
        return self.lens

    def get_tag(self, seq_idx: int) -> str:
        """The line."""
        return self.tags[self.get_corpus_seq_idx(seq_idx)]

    def get_complete_frac(self, seq_idx: int) -> float:
        """How much of the epoch is done."""
        return min((seq_idx + 1) / max(self.num_seqs, 1), 1.0)

    def get_seq_length(self, seq_idx: int) -> dict[str, int]:
        """Frames per key, of the loaded sequence."""
        keys, seq = self.keys_to_load(self.inner), self._seq(seq_idx)
        return NumbersDict({key: len(seq[key]) if key in keys and seq[key].ndim else 1 for key in self.get_data_keys()})

    def epoch_lengths(self, start: int, end: int) -> None:
        """Known only once the sequences are loaded."""
        return None

    def limit_keys(self, keys: Sequence[str] | None) -> None:
        """All keys are needed for the lengths."""

    # --- sequences ---

    def load_epoch_seqs(self, seq_idx: Sequence[int]) -> list[Seq]:
        """Loads the parts and joins them."""
        keys = self.keys_to_load(self.inner)
        return [self._joined(i, keys) for i in seq_idx]

    def _joined(self, seq_idx: int, keys: list[str]) -> Seq:
        first, end = int(self.inner_starts[seq_idx]), int(self.inner_starts[seq_idx + 1])
        parts = loaded(self.inner, range(first, end), keys)
        joined = [self._in_between(part, self.get_tag(seq_idx)) for part in parts[:-1]] + [parts[-1]]
        return {key: np.concatenate([np.atleast_1d(part[key]) for part in joined]) for key in keys}

    def _in_between(self, part: Seq, tag: str) -> Seq:
        """A part that others follow."""
        part = dict(part)
        for key, label in self.postfix.items():
            if not len(part[key]) or np.any(part[key][-1] != label):
                raise DataError(
                    f'{self.name}: sequence "{tag}"', f'the last "{key}" of each part but the last must be {label}'
                )
            part[key] = part[key][:-1]
        for key, multiple in self.multiples.items():
            part[key] = with_length(part[key], -(-len(part[key]) // multiple) * multiple)
        for key, (target, multiple) in self.pad_narrow.items():
            part[key] = with_length(part[key], len(part[target]) * multiple)
        return part


def with_length(frames: np.ndarray, length: int) -> np.ndarray:
    """The first frames, or the last one repeated, so that there are `length` of them."""
    if length <= len(frames) or not len(frames):
        return frames[:length]
    return np.concatenate([frames, np.repeat(frames[-1:], length - len(frames), axis=0)])
