"""Batches as arrays: zero-padded, batch axis first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.batches.iterate import place_of
from returnn_lite.datasets.batches.slice_batch import SliceBatch
from returnn_lite.datasets.casting import AS_IT_IS, NUMBERS, collecting_dtype, fits, kept_dtype, misfit
from returnn_lite.datasets.options import DataError


@dataclass
class Batch:
    """One mini-batch of data.

    `data` [B, T, …] per key, zero beyond `lengths` int32 [B] (which has the keys with a time axis); texts are lists of
    str. `tags` and `seq_idx` (index in the epoch) name the sequence of each slice: B of them, more where sequences
    stand end to end in one row. `complete` is how much of the epoch is done, in (0, 1]; None if that is not known.
    """

    data: dict[str, np.ndarray | list[str]]
    lengths: dict[str, np.ndarray]
    tags: list[str]
    seq_idx: np.ndarray
    complete: float | None


def collate(
    dataset: Dataset,
    plan: SliceBatch,
    dtypes: Mapping[str, str],
    static_keys: frozenset[str],
    classes: Mapping[str, int] | None = None,
    refuse_nan: bool = True,
) -> Batch:
    """The batch's frames as arrays of these dtypes ("string": texts, or `AS_IT_IS`); the sequences must be loaded.

    Keys in `static_keys` have no time axis in the batch; `classes` are the numbers of classes of sparse keys. Raises
    DataError for sequences that do not fit together, class indices out of range, and (with
    `refuse_nan`) NaN in frames.
    """
    data: dict[str, np.ndarray | list[str]] = {}
    lengths: dict[str, np.ndarray] = {}
    seq_idx = plan.slices.seq_idx.tolist()
    for key, dtype in dtypes.items():
        arrays = [dataset.get_data(i, key) for i in seq_idx]
        dtype = kept_dtype(arrays) if dtype == AS_IT_IS else dtype
        if dtype in ("string", "object"):
            data[key] = [text(array) for array in arrays]
            continue
        _check_kinds(dataset, key, plan, arrays)
        collected = collecting_dtype(arrays, dtype)
        with np.errstate(over="ignore"):  # looked for below
            if key in static_keys or not dataset.has_time(key):
                batch = stack(dataset, key, plan, arrays, collected)
            else:
                batch, lengths[key] = pad(dataset, key, plan, arrays, collected)
        _check_values(dataset, key, plan, arrays, batch, np.dtype(dtype), (classes or {}).get(key), refuse_nan)
        data[key] = batch.astype(dtype, copy=False)
    return Batch(data, lengths, [dataset.get_tag(i) for i in seq_idx], plan.slices.seq_idx, plan.complete)


def pad(
    dataset: Dataset, key: str, plan: SliceBatch, arrays: list[np.ndarray], dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """(array [rows, T, …], lengths int32 [rows]) of one key: one copy per slice into zeros."""
    slices = plan.slices
    if key in slices.keys:
        column = slices.keys.index(key)
        start, end = slices.start[:, column], slices.end[:, column]
    else:  # not among the keys that are cut in chunks
        start = end = np.zeros(len(slices), np.int64)
    lengths = np.zeros(plan.num_rows, np.int32)
    np.maximum.at(lengths, plan.row, (plan.offset + end - start).astype(np.int32))
    out = np.zeros((plan.num_rows, int(lengths.max(initial=0))) + arrays[0].shape[1:], dtype)
    if _end_to_end(plan, start, end, arrays):
        pieces = [array[s:e] for array, s, e in zip(arrays, start.tolist(), end.tolist(), strict=True)]
        np.concatenate(pieces, out=out[0], casting="unsafe")
        return out, lengths
    places = zip(plan.row.tolist(), plan.offset.tolist(), start.tolist(), end.tolist(), arrays, strict=True)
    for i, (row, offset, s, e, array) in enumerate(places):
        _check_shape(dataset, key, plan, i, array.shape[1:], out.shape[2:])
        first, last = max(s, 0), min(e, len(array))  # frames of context outside the sequence stay zero
        if first < last:
            out[row, offset + first - s : offset + last - s] = array[first:last]
    return out, lengths


def _end_to_end(plan: SliceBatch, start: np.ndarray, end: np.ndarray, arrays: list[np.ndarray]) -> bool:
    """Whether the slices fill a single row without gaps, and the arrays have them and fit together."""
    ends = np.cumsum(end - start)
    if plan.num_rows != 1 or start.min() < 0 or plan.offset[0] or (plan.offset[1:] != ends[:-1]).any():
        return False
    shape = arrays[0].shape[1:]
    return all(array.shape[1:] == shape and e <= len(array) for array, e in zip(arrays, end.tolist(), strict=True))


def stack(dataset: Dataset, key: str, plan: SliceBatch, arrays: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """Data without a time axis, [rows, …]."""
    out = np.zeros((plan.num_rows,) + arrays[0].shape, dtype)
    for i, array in enumerate(arrays):
        _check_shape(dataset, key, plan, i, array.shape, out.shape[1:])
        out[plan.row[i]] = array
    return out


def _check_shape(
    dataset: Dataset, key: str, plan: SliceBatch, i: int, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    if shape != expected:
        place = place_of(dataset, int(plan.slices.seq_idx[i]), key)
        raise DataError(place, f'"{key}" must have frames of shape {expected}, but has {shape} instead')


def _check_kinds(dataset: Dataset, key: str, plan: SliceBatch, arrays: list[np.ndarray]) -> None:
    """Raises DataError for what are no numbers."""
    for i, array in enumerate(arrays):
        if array.dtype.kind not in NUMBERS and (problem := misfit(array, array.dtype)) is not None:
            raise DataError(place_of(dataset, int(plan.slices.seq_idx[i]), key), f'"{key}" {problem}')


def _is_finite(batch: np.ndarray) -> bool:
    """Whether the sum is finite, which it is not if any number is NaN or infinite."""
    with np.errstate(invalid="ignore", over="ignore"):
        return bool(np.isfinite(batch.sum()))


def _check_values(
    dataset: Dataset,
    key: str,
    plan: SliceBatch,
    arrays: list[np.ndarray],
    batch: np.ndarray,
    dtype: np.dtype,
    classes: int | None,
    refuse_nan: bool,
) -> None:
    """Looks at the whole batch first, and only if something is wrong there at each sequence."""
    if not batch.size or (_is_finite(batch) if dtype.kind == "f" else fits(batch, dtype, classes)):
        return
    for i, array in enumerate(arrays):
        problem = misfit(array, dtype, classes)
        if problem is None and refuse_nan and dtype.kind == "f" and batch.ndim > 2 and np.isnan(array).any():
            problem = "holds NaN"
        elif problem is not None and classes:
            problem += _dim_hint(dataset, key, classes)
        if problem is not None:
            raise DataError(place_of(dataset, int(plan.slices.seq_idx[i]), key), f'"{key}" {problem}')


def _dim_hint(dataset: Dataset, key: str, classes: int) -> str:
    """The end of an error message: where the number of classes stands, and what the dataset says of it."""
    own = dataset.get_data_dim(key)
    says = f", but {dataset.name} has {own} classes" if own > classes and dataset.is_data_sparse(key) else ""
    return f'; `dim` of "{key}" is {classes}{says}'


def text(array: np.ndarray) -> str:
    """A text from a 0-d or one-element array of str or bytes, or from an array of bytes or code points."""
    array = np.asarray(array)
    if array.dtype.kind in "iu":
        return bytes(array.astype(np.uint8)).decode("utf8")
    value = array.item() if array.size == 1 else " ".join(text(part) for part in array.ravel())
    return value.decode("utf8") if isinstance(value, bytes) else str(value)
