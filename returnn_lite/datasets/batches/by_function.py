"""Batches that a function of the config makes: `torch_batching = function`."""

from __future__ import annotations

import itertools
import random
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from returnn_lite.config.config_code import call
from returnn_lite.config_value import ConfigFunction
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.batches.batching import BatchingOptions, select
from returnn_lite.datasets.batches.changing_limits import known_part
from returnn_lite.datasets.batches.collate import Batch
from returnn_lite.datasets.batches.epoch_batches import epoch_slices
from returnn_lite.datasets.batches.loader import Collating, Loader
from returnn_lite.datasets.batches.slice_batch import SliceBatch
from returnn_lite.datasets.batches.torch_batching import OPTION
from returnn_lite.datasets.casting import AS_IT_IS, kept_dtype
from returnn_lite.errors import ConfigError

Item = Mapping[str, np.ndarray]  # a sequence
UNKNOWN = -1
FURTHER = {"__fwd_compat_random_arg_000": None}  # functions must take any further keyword


class Sequences(torch.utils.data.IterableDataset[Item]):
    """The sequences of an epoch in their order, or their chunks: dicts of arrays, [T, …] or without a time axis.

    Beside the data keys: "seq_tag" (a text), "seq_idx" (place in the epoch), "epoch", "num_seqs" and "complete_frac"
    (the part of the epoch that is done with it), the latter two -1 where the number of sequences is not known.
    `timed`: the keys with a time axis, as far as sequences have come.
    """

    def __init__(self, dataset: Dataset, options: BatchingOptions, collating: Collating) -> None:
        self.dataset, self.options, self.collating, self.known = dataset, options, collating, dataset.known_num_seqs
        self.timed: set[str] = set()

    def __iter__(self) -> Iterator[Item]:
        rng = random.Random(self.dataset.epoch_seed())
        slices, draws = epoch_slices(self.dataset, self.options, rng)
        for part in select(slices, self.options, rng, draws, self.dataset.log.v4):
            for i in range(len(part)):
                yield self._item(SliceBatch.one_a_row(part[i : i + 1]))

    def _item(self, plan: SliceBatch) -> Item:
        one = self.collating(self.dataset, plan)
        self.timed |= one.lengths.keys()
        index = int(one.seq_idx[0])
        part = known_part(self.known, index)
        more = {
            "seq_tag": one.tags[0],
            "seq_idx": index,
            "epoch": self.dataset.epoch or 1,
            "num_seqs": UNKNOWN if self.known is None else self.known,
            "complete_frac": UNKNOWN if part is None else part,
        }
        data = {key: np.asarray(value[0]) for key, value in one.data.items()}
        return {**data, **{key: np.asarray(value) for key, value in more.items()}}


def function_batches(
    function: ConfigFunction, dataset: Dataset, options: BatchingOptions, collating: Collating
) -> Iterator[Batch]:
    """The batches of a function, called as f(dataset=Sequences, train=, **kwargs). ConfigError if it gives anything
    else than an iterable of lists of dicts like those that it gets."""
    sequences = Sequences(dataset, options, collating)
    made = call(function, OPTION, dataset=sequences, train=options.trains, **FURTHER)
    if not isinstance(made, Iterable):
        raise ConfigError(OPTION, f"the function must return an iterable of lists of sequences, but returned {made!r}")
    batches = (joined(items, sequences.timed, collating.dtypes) for items in made)
    return batches if options.shuffled is None else options.shuffled.shuffled(batches, dataset.epoch_seed())


def joined(items: Any, timed: set[str], dtypes: Mapping[str, str]) -> Batch:  # Any: whatever a function gives
    """A batch of sequences: padded with zeros along the time axis of the keys `timed`, [B, T, …]."""
    if not isinstance(items, list | tuple) or not items or not all(isinstance(item, Mapping) for item in items):
        raise ConfigError(OPTION, f"each batch must be a list of sequences (dicts), but one is {_shown(items)}")
    for key in (*dtypes, "seq_tag", "seq_idx", "complete_frac"):
        if any(key not in item for item in items):
            raise ConfigError(OPTION, f"each sequence must keep all its keys, but one has lost {key!r}")
    data: dict[str, np.ndarray | list[str]] = {}
    lengths: dict[str, np.ndarray] = {}
    for key, dtype in dtypes.items():
        arrays = [np.asarray(item[key]) for item in items]
        dtype = kept_dtype(arrays) if dtype == AS_IT_IS else dtype
        if dtype in ("string", "object"):
            data[key] = [str(array) for array in arrays]
            continue
        if key in timed:
            lengths[key] = np.array([len(array) for array in arrays], np.int32)
        data[key] = _stacked(key, arrays, lengths.get(key)).astype(dtype, copy=False)
    complete = max(float(item["complete_frac"]) for item in items)
    indices = np.array([int(item["seq_idx"]) for item in items])
    return Batch(data, lengths, [str(item["seq_tag"]) for item in items], indices, complete if complete >= 0 else None)


def _stacked(key: str, arrays: list[np.ndarray], lengths: np.ndarray | None) -> np.ndarray:
    shapes = {array.shape[0 if lengths is None else 1 :] for array in arrays}
    if len(shapes) > 1:
        raise ConfigError(OPTION, f"the sequences of a batch must fit together, but {key!r} has shapes {shapes}")
    if lengths is None:
        return np.stack(arrays)
    out = np.zeros((len(arrays), int(lengths.max()), *shapes.pop()), arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return out


def _shown(value: Any) -> str:
    return "an empty list" if value == [] else f"a {type(value).__name__}"


class FunctionLoader(Loader):
    """A `Loader` of the batches that `function` makes."""

    def __init__(
        self,
        dataset: Dataset,
        options: BatchingOptions,
        *,
        function: ConfigFunction,
        **more: Any,  # Any: the options of `Loader`
    ) -> None:
        super().__init__(dataset, options, **more)
        self.function = function

    def _made(self) -> Generator[Any, None, None]:
        first, step = self.options.share
        batches = function_batches(self.function, self.dataset, self.options, self.collating)
        for batch in itertools.islice(batches, first, None, step):
            if self.check is not None:
                self.check(batch)
            yield self.transform(batch) if self.transform else batch
