"""TensorFlow's functions that sort, count, repeat or move entries, and diagonals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from returnn_lite.compat.tf.values import as_tensor, pair, to_axes, to_dtype, to_int, to_ints


def roll(input: Any, shift: Any, axis: Any) -> Tensor:  # noqa: A002 - TensorFlow's words
    """Entries moved along axes; those that leave an end come in at the other."""
    return torch.roll(as_tensor(input), tuple(to_ints(shift)), tuple(to_ints(axis)))


def repeat(input: Any, repeats: Any, axis: Any = None) -> Tensor:  # noqa: A002 - TensorFlow's words
    """Each entry so many times in a row; without `axis` of the flattened tensor."""
    x, times = as_tensor(input), as_tensor(repeats)
    x, axis = (x.flatten(), 0) if axis is None else (x, to_int(axis))
    if times.numel() == 1:
        return x.repeat_interleave(int(times), axis)
    return x.repeat_interleave(times.to(x.device), axis)


def sort(values: Any, axis: Any = -1, direction: str = "ASCENDING") -> Tensor:
    """Sorted along an axis."""
    return as_tensor(values).sort(to_int(axis), descending=direction == "DESCENDING").values


def argsort(values: Any, axis: Any = -1, direction: str = "ASCENDING", stable: bool = False) -> Tensor:
    """Where the sorted entries are, int32; of equal ones the first comes first."""
    found = as_tensor(values).sort(dim=to_int(axis), descending=direction == "DESCENDING", stable=True)
    return found.indices.to(torch.int32)


def searchsorted(sorted_sequence: Any, values: Any, side: str = "left", out_type: Any = torch.int32) -> Tensor:
    """Where the values would be inserted into a sorted last axis."""
    row, wanted = pair(sorted_sequence, values)
    return torch.searchsorted(row.contiguous(), wanted.contiguous(), side=side).to(to_dtype(out_type))


def count_nonzero(
    input: Any,  # noqa: A002 - TensorFlow's words
    axis: Any = None,
    keepdims: bool | None = None,
    dtype: Any = torch.int64,
    keep_dims: bool | None = None,
) -> Tensor:
    """The number of entries that are not 0 over axes (None: all)."""
    x = as_tensor(input)
    return (x != 0).sum(to_axes(axis, x.dim()), keepdim=bool(keepdims or keep_dims)).to(to_dtype(dtype))


def norm(
    tensor: Any, ord: Any = "euclidean", axis: Any = None, keepdims: bool | None = None, keep_dims: bool | None = None
) -> Tensor:
    """The vector norm over axes (None: of all entries): "euclidean", 1, 2, inf, or another p."""
    x = as_tensor(tensor)
    p = 2.0 if ord in ("euclidean", "fro") else float(ord)
    made: Tensor = torch.linalg.vector_norm(x, p, to_axes(axis, x.dim()), keepdim=bool(keepdims or keep_dims))
    return made


def diag(diagonal: Any) -> Tensor:
    """Square matrices with these diagonals.  Shape: (…, N) -> (…, N, N)"""
    return torch.diag_embed(as_tensor(diagonal))


def diag_part(input: Any) -> Tensor:  # noqa: A002 - TensorFlow's words
    """The diagonals of matrices.  Shape: (…, M, N) -> (…, min(M, N))"""
    return as_tensor(input).diagonal(dim1=-2, dim2=-1)


def tensor_scatter_nd_update(tensor: Any, indices: Any, updates: Any) -> Tensor:
    """The tensor with entries or rows replaced: the last axis of `indices` addresses its leading axes."""
    x, values = pair(tensor, updates)
    index = as_tensor(indices).long()
    return x.index_put(tuple(index.unbind(-1)), values)


def is_tensor(x: Any) -> bool:
    """Whether it is one."""
    return isinstance(x, torch.Tensor)


def all_functions() -> dict[str, Any]:
    """The functions by TensorFlow's names."""
    own = [roll, repeat, sort, argsort, searchsorted, count_nonzero, norm, tensor_scatter_nd_update, is_tensor]
    return {function.__name__: function for function in own} | {"matrix_diag": diag, "matrix_diag_part": diag_part}
