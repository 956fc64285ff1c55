"""Tensors from numbers, arrays and lists, and constant ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from returnn_lite.frontend import dtypes
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.elementwise import cast, copy_to_device
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.tensor import Tensor, TensorLike
from returnn_lite.frontend.tensor_base import checked_dims
from returnn_lite.frontend.types import Option


def convert_to_tensor(
    value: TensorLike,
    *,
    dims: Sequence[Dim] | None = None,
    dtype: str | None = None,
    sparse_dim: Dim | None = None,
    feature_dim: Dim | None = None,
    device: str | None = None,
    keep_scalar_on_cpu: bool = False,
    name: str | None = None,
) -> Tensor:
    """A Tensor of a number, list, array or torch tensor (which is not copied), with these axes; new ones by default.

    A Tensor is returned as it is, as another type or on another device if that is asked for.
    """
    if isinstance(value, Tensor):
        found = value if dtype is None else cast(value, dtype)
        return found if device is None else copy_to_device(found, device)
    raw = _raw(value, dtype)
    if isinstance(raw, torch.Tensor):
        where = dtypes.get_default_device() if device is None and not isinstance(value, torch.Tensor) else device
        if where is not None and not (keep_scalar_on_cpu and raw.dim() == 0):
            raw = raw.to(where)
    if dims is None:
        dims = [Dim(size, name=f"{name or 'unnamed'}:dim{i}") for i, size in enumerate(raw.shape)]
    axes = checked_dims(dims, "convert_to_tensor")
    return Tensor(
        name or "const",
        axes,
        dtype or dtypes.name_of(raw),
        sparse_dim=sparse_dim,
        feature_dim=feature_dim,
        raw_tensor=raw,
    )


def _raw(value: Any, dtype: str | None) -> Any:
    """A torch tensor (numpy's array of texts). A number without its own type gets the default one."""
    if isinstance(value, list | tuple):
        if value and all(isinstance(entry, Tensor) for entry in value):
            raise WrongUse("convert_to_tensor of a list of Tensors: use rf.stack")
        value = np.array(value)
    wanted = None if dtype is None or dtypes.is_text(dtype) else dtypes.torch_dtype(dtype)
    if isinstance(value, torch.Tensor):
        return value if wanted is None else value.to(wanted)
    if isinstance(value, np.ndarray) or (isinstance(value, np.generic) and not isinstance(value, np.float64)):
        array = np.asarray(value)
        if array.dtype.kind in "UOS":
            return array
        return torch.as_tensor(array if array.flags.writeable else array.copy(), dtype=wanted)
    if isinstance(value, bool | int | float | complex):
        return torch.tensor(value, dtype=wanted or _default_type(value))
    if isinstance(value, str):
        return np.array(value)
    raise WrongUse(f"convert_to_tensor needs a number, list, array or tensor, but got {value!r} instead")


def _default_type(value: Any) -> torch.dtype | None:
    if isinstance(value, bool | complex):
        return None
    name = dtypes.get_default_int_dtype() if isinstance(value, int) else dtypes.get_default_float_dtype()
    return dtypes.torch_dtype(name)


def full(
    *,
    dims: Sequence[Dim],
    fill_value: TensorLike,
    dtype: str | None = None,
    device: str | None = None,
    sparse_dim: Dim | None = None,
    feature_dim: Dim | None = None,
) -> Tensor:
    """A tensor of one number. The type is that of the number by default."""
    axes = checked_dims(dims, "full")
    sizes = [dim.padded_size() for dim in axes]
    where = dtypes.get_default_device() if device is None else device
    value = fill_value
    if isinstance(value, np.generic):
        value = _raw(value, dtype)
    if isinstance(value, Tensor) or hasattr(value, "shape"):
        raw = value.raw_tensor if isinstance(value, Tensor) else torch.as_tensor(value)
        if raw.dim() != 0:
            raise WrongUse(f"`fill_value` must be a number or scalar, but has the shape {tuple(raw.shape)} instead")
        raw = raw.to(dtype=None if dtype is None else dtypes.torch_dtype(dtype), device=where).expand(sizes).clone()
    else:
        wanted = _default_type(value) if dtype is None else dtypes.torch_dtype(dtype)
        raw = torch.full(sizes, value, dtype=wanted, device=where)
    found = Tensor._new(raw, axes, sparse_dim=sparse_dim, name="const")
    if feature_dim is not None:
        found.feature_dim = feature_dim
    return found


fill = full


def constant(value: TensorLike, *, dims: Sequence[Dim], **options: Option) -> Tensor:
    """`full` of this number."""
    return full(dims=dims, fill_value=value, **options)


def zeros(dims: Sequence[Dim], *, dtype: str | None = None, **options: Option) -> Tensor:
    """Zeros, floats by default."""
    return full(dims=dims, fill_value=0, dtype=dtype or dtypes.get_default_float_dtype(), **options)


def ones(dims: Sequence[Dim], *, dtype: str | None = None, **options: Option) -> Tensor:
    """Ones, floats by default."""
    return full(dims=dims, fill_value=1, dtype=dtype or dtypes.get_default_float_dtype(), **options)


def zeros_like(x: Tensor) -> Tensor:
    """Zeros with the axes, type and roles of x."""
    return x._like(torch.zeros_like(x.raw_tensor))


def ones_like(x: Tensor) -> Tensor:
    """Ones with the axes, type and roles of x."""
    return x._like(torch.ones_like(x.raw_tensor))
