"""Batches that do not fit into the memory of a GPU, in parts that do: `forward_auto_split_batch_on_oom`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from returnn_lite.config import Config
from returnn_lite.datasets import Batch
from returnn_lite.engine.batch_errors import with_batch_context
from returnn_lite.log import Log

T = TypeVar("T")


def parts_that_fit(
    batch: Batch, run: Callable[[Batch], T], *, splits: bool, config: Config, log: Log
) -> Iterator[tuple[Batch, T]]:
    """(part of the batch, what `run` gives for it) in order. A part that is out of memory is cut into two halves, the
    first one the larger; OutOfMemory for a single sequence, or if nothing `splits`."""
    waiting = [batch]
    while waiting:
        part = waiting.pop(0)
        try:
            with with_batch_context(part, config):
                found = _tried(part, run, may_fail=splits and len(part.tags) > 1)
        except _TooLarge:
            log.v3(f"out of memory for {len(part.tags)} sequences: they are forwarded in two parts")
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            waiting[:0] = halves(part)
            continue
        yield part, found


class _TooLarge(Exception):
    """A part is to be cut."""


def _tried(part: Batch, run: Callable[[Batch], T], *, may_fail: bool) -> T:
    try:
        return run(part)
    except torch.OutOfMemoryError:
        if not may_fail:
            raise
    raise _TooLarge  # outside of the handler, which would keep the tensors of the failed run


def halves(batch: Batch) -> list[Batch]:
    """The two parts of a batch that has a sequence a row, without padding that they do not need."""
    middle = (len(batch.tags) + 1) // 2
    return [_rows(batch, slice(0, middle)), _rows(batch, slice(middle, None))]


def _rows(batch: Batch, rows: slice) -> Batch:
    lengths = {key: values[rows] for key, values in batch.lengths.items()}
    data = {key: values[rows] if np.ndim(values) else values for key, values in batch.data.items()}
    for key, own in lengths.items():
        if key in data and not isinstance(data[key], list):
            data[key] = data[key][:, : int(own.max(initial=0))]  # type: ignore[call-overload]  # an array or a tensor
    return replace(batch, data=data, lengths=lengths, tags=batch.tags[rows], seq_idx=batch.seq_idx[rows])
