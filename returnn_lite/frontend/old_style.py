"""Tensors described by shape, dim, sparse, and the positions of their axes, as in older configs (version 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from returnn_lite.config_value import ConfigValue
from returnn_lite.frontend.dim import Dim, batch_dim, made_vocab
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.types import VocabLike
from returnn_lite.tensor.dim import FEATURE, SPATIAL

UNSET: Any = object()


@dataclass
class Description:
    """What older options say: axes, dtype, classes, and the positions of time and features."""

    dims: tuple[Dim, ...]
    dtype: str
    sparse_dim: Dim | None
    time: int | None
    feature: int | None


def described(
    name: str,
    *,
    dim_tags: Sequence[Dim] | None = None,
    shape: Sequence[int | None] | None = None,
    dim: ConfigValue = UNSET,
    sparse: bool | None = None,
    sparse_dim: Dim | None = None,
    dtype: str | None = None,
    vocab: VocabLike = None,
    batch_dim_axis: ConfigValue = UNSET,
    time_dim_axis: ConfigValue = UNSET,
    feature_dim_axis: ConfigValue = UNSET,
) -> Description:
    """Reads the options of an older description.

    Without a shape it is (None, dim), of classes (None,). Time is the first axis without a size, the features are the
    last axis with one.
    """
    if dim is not UNSET and not isinstance(dim, int | np.integer | Dim | None):
        raise WrongUse(f"`dim` of tensor {name!r} must be a number, but is {dim!r} instead; axes are given as `dims`")
    labels = made_vocab(vocab)
    if dim is UNSET and labels is not None:
        dim = labels.num_labels
    if isinstance(dim, Dim):
        sparse_dim, dim = (dim if sparse else sparse_dim), dim.dimension
    if sparse_dim is None and sparse:
        if dim is UNSET:
            raise WrongUse(f"tensor {name!r} of classes must have their number `dim`")
        sparse_dim = Dim(dim, name=f"{name}:sparse-dim", kind=FEATURE, vocab=labels)
    dtype = dtype or ("int32" if sparse_dim is not None else "float32")
    if dim_tags is not None:
        dims = tuple(dim if isinstance(dim, Dim) else Dim.of(dim) for dim in dim_tags)
    else:
        dims = _by_shape(name, shape, dim, sparse_dim is not None, batch_dim_axis, time_dim_axis, feature_dim_axis)
    time = _time(dims, dim_tags is not None) if time_dim_axis is UNSET else _position(dims, time_dim_axis)
    if feature_dim_axis is not UNSET:
        feature = _position(dims, feature_dim_axis)
    else:
        feature = None if sparse_dim is not None else _feature(dims, time)
    return Description(dims, dtype, sparse_dim, time, feature)


def _position(dims: tuple[Dim, ...], axis: Any) -> int | None:
    return None if axis is None else axis % len(dims)


def _by_shape(
    name: str, shape: Sequence[int | None] | None, dim: Any, sparse: bool, batch: Any, time: Any, feature: Any
) -> tuple[Dim, ...]:
    """The axes of a shape without batch, with the batch axis put in."""
    if shape is None:
        size = None if dim is UNSET else dim
        shape = (() if sparse else (size,)) if time is None else ((None,) if sparse else (None, size))
    sizes: list[Any] = list(shape)
    at = 0 if batch is UNSET else batch
    if at is not None:
        sizes.insert(at, batch_dim)
    first = next((i for i, size in enumerate(sizes) if size is None), None) if time is UNSET else time
    last = _last_static(sizes, first) if feature is UNSET and not sparse else None if feature is UNSET else feature
    return tuple(_axis(name, i, size, i == first, i == last) for i, size in enumerate(sizes))


def _last_static(sizes: list[Any], time: int | None) -> int | None:
    return next((i for i in reversed(range(len(sizes))) if isinstance(sizes[i], int) and i != time), None)


def _axis(name: str, i: int, size: Any, is_time: bool, is_feature: bool) -> Dim:
    if isinstance(size, Dim):
        return size
    if is_feature:
        return Dim(size, name=f"feature:{name}", kind=FEATURE)
    if size is not None:
        return Dim(size, name=f"spatial{i}:static{size}:{name}", kind=SPATIAL)
    return Dim(None, name=f"{'time' if is_time else f'spatial{i}'}:var:{name}", kind=SPATIAL)


def _time(dims: tuple[Dim, ...], tags: bool) -> int | None:
    """The time axis: the first spatial one with sizes, else the first with sizes."""
    free = [i for i, dim in enumerate(dims) if not dim.is_batch_dim() and dim.is_dynamic()]
    spatial = [i for i in free if dims[i].is_spatial_dim()] if tags else free
    found = spatial or free
    return found[0] if found else None


def _feature(dims: tuple[Dim, ...], time: int | None) -> int | None:
    """The feature axis: the last with a fixed size, else the last other one."""
    free = [i for i, dim in enumerate(dims) if not dim.is_batch_dim() and i != time]
    static = [i for i in free if dims[i].is_static()]
    found = static or free
    return found[-1] if found else None


def out_type(options: Mapping[str, ConfigValue], dtype: str, sparse_dim: ConfigValue) -> dict[str, ConfigValue]:
    """An older description as layer nets take it. `size_placeholder` may say which axis of theirs an axis is."""
    found: dict[str, Any] = {"dtype": dtype, "sparse": sparse_dim is not None}
    found |= {key: options[key] for key in ("batch_dim_axis", "time_dim_axis", "feature_dim_axis") if key in options}
    lengths = options.get("size_placeholder") or {}
    shape = options.get("shape")
    if shape is None:
        shape = (None,) if sparse_dim is not None else (None, options.get("dim"))
    found["shape"] = tuple(getattr(lengths.get(i), "dim", size) for i, size in enumerate(shape))
    if sparse_dim is not None:
        found |= {"sparse_dim": sparse_dim} if "dim" not in options else {"dim": options["dim"]}
    return found
