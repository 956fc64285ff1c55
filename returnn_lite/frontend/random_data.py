"""Random content for tensors without data, to try a model out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from returnn_lite.frontend import dtypes
from returnn_lite.frontend.dim import Dim, batch_dim
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.frontend.tensor_dict import TensorDict

Sizes = Mapping[Dim, int] | None


def tensor_dict_fill_random_numpy_(
    tensor_dict: TensorDict,
    *,
    rnd: int | np.random.RandomState = 42,
    dyn_dim_max_sizes: Sizes = None,
    dyn_dim_min_sizes: Sizes = None,
) -> None:
    """Fills all tensors with numpy's random numbers, and gives all axes sizes that are not known yet.

    Sizes are between 2 and a maximum that is reached: the given one, or a random one from 5 to 19. Values: classes
    within their axis, other ints from 0 to 4 … 18, normal floats.
    """
    source = rnd if isinstance(rnd, np.random.RandomState) else np.random.RandomState(rnd)
    for tensor in tensor_dict.data.values():
        for dim in (*tensor.dims, *((tensor.sparse_dim,) if tensor.sparse_dim is not None else ())):
            _fill_sizes(dim, source, dyn_dim_max_sizes or {}, dyn_dim_min_sizes or {})
        tensor.raw_tensor = _values(tensor, source)


def _fill_sizes(dim: Dim, rnd: np.random.RandomState, most: Mapping[Dim, int], least: Mapping[Dim, int]) -> None:
    if dim.is_dim_known_in_batch():
        return
    sizes = dim.dyn_size_ext
    if sizes is None:
        axes: tuple[Dim, ...] = () if dim.is_batch_dim() else (batch_dim,)
    else:
        axes = sizes.dims
    for axis in axes:
        _fill_sizes(axis, rnd, most, least)
    low = least.get(dim, 2)
    high = most.get(dim, max(int(rnd.randint(5, 20)), low))
    values = np.asarray(rnd.randint(low, high + 1, [axis.padded_size() for axis in axes]), "int32")
    if values.size:
        values.reshape(-1)[rnd.randint(0, values.size)] = high
    if values.ndim == 0:
        values = np.array(high, "int32")
    name = dim.name if sizes is None else sizes.name
    dim.extent().given = Tensor._new(values, axes, name=name)


def _values(tensor: Tensor, rnd: np.random.RandomState) -> Any:
    shape = [dim.padded_size() for dim in tensor.dims]
    if dtypes.is_text(tensor.dtype):
        return np.array([f"text-{i}" for i in range(int(np.prod(shape)))]).reshape(shape)
    if tensor.dtype == "bool":
        return rnd.randint(0, 2, shape).astype("bool")
    if dtypes.is_integer(tensor.dtype):
        high = tensor.sparse_dim.padded_size() if tensor.sparse_dim is not None else int(rnd.randint(5, 20))
        return rnd.randint(0, high, shape).astype(tensor.dtype)
    return rnd.normal(0, 1, shape).astype(tensor.dtype)
