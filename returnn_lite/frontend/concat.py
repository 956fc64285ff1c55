"""Tensors joined along an axis, cut apart, padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from returnn_lite.behavior_version import BehaviorVersion
from returnn_lite.frontend.axes import expand_dim, padded_dim, with_dims
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.dim_sizes import as_torch
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged, axis_of, show
from returnn_lite.frontend.tensor import Tensor, TensorLike
from returnn_lite.frontend.types import PerAxis


def concat(
    *sources: tuple[Tensor, Dim],
    allow_broadcast: bool = False,
    out_dim: Dim | None = None,
    handle_dynamic_dims: bool | None = None,
) -> tuple[Tensor, Dim]:
    """(tensor, axis) pairs one after the other: (tensor, the new axis), which by default is the sum of the axes.

    The other axes are in the order of the first. Frames follow the last valid one of each sequence, unless
    `handle_dynamic_dims` is False; then padded axes are joined. allow_broadcast: some may lack axes.
    """
    if not sources:
        raise WrongUse("concat needs at least one (tensor, axis) pair")
    dims = [axis for _, axis in sources]
    ragged = any(dim.need_masking() for dim in dims[:-1])
    follow = ragged if handle_dynamic_dims is None else handle_dynamic_dims and ragged
    at, rest = _common_axes(sources, allow_broadcast)
    raws = [_for_concat(x, axis, at, rest) for x, axis in sources]
    if out_dim is None or not out_dim.is_dim_known():
        total = sum(raw.shape[at] for raw in raws)
        made = _sum(dims) if follow or not ragged else padded_dim(total, "+".join(dim.name for dim in dims))
        out_dim = _named(made, out_dim)
    axes = (*rest[:at], out_dim, *rest[at:])
    raw = torch.cat(raws, at)
    if follow:
        raw = _closed_up(raw, raws, dims, axes, at, out_dim)
    first = sources[0][0]
    feature = first.feature_dim
    return with_dims(first, raw, axes, None if follow or feature == dims[0] else feature), out_dim


def _named(made: Dim, out: Dim | None) -> Dim:
    """The axis that was made; one that was asked for is now the same."""
    if out is None:
        return made
    out.declare_same_as(made)
    return out


def _sum(dims: Sequence[Dim]) -> Dim:
    found = dims[0]
    for dim in dims[1:]:
        found = found + dim
    return found


def _common_axes(sources: Sequence[tuple[Tensor, Dim]], allow_broadcast: bool) -> tuple[int, tuple[Dim, ...]]:
    """(position of the joined axis, the other axes) of the result."""
    first, axis = sources[0]
    at = axis_of(first.dims, axis, first)
    rest = first.dims[:at] + first.dims[at + 1 :]
    for x, own in sources[1:]:
        others = x.remaining_dims(own)
        more = [dim for dim in others if dim not in rest]
        if (more or len(others) != len(rest)) and not allow_broadcast:
            text = f"concat of {first} over {axis} and {x} over {own}: the other axes must be the same"
            raise WrongUse(f"{text}; allow_broadcast=True expands them")
        rest = (*rest, *more)
    return at, rest


def _for_concat(x: Tensor, axis: Dim, at: int, rest: tuple[Dim, ...]) -> torch.Tensor:
    dims = (*rest[:at], axis, *rest[at:])
    raw: torch.Tensor = x.copy_compatible_to_dims_raw(dims, unbroadcast=True)
    return raw


def _closed_up(
    raw: torch.Tensor, raws: Sequence[torch.Tensor], parts: Sequence[Dim], axes: tuple[Dim, ...], at: int, out: Dim
) -> torch.Tensor:
    """Joined frames without the padding between them: a position of the result looks up where its frame is."""
    position = _along(torch.arange(out.padded_size(), device=raw.device), len(axes), at)
    index, start, offset = position, 0, 0
    for part, source in zip(parts, raws, strict=True):
        sizes = _sizes_for(part, axes, raw.device)
        inside = position >= start
        index = torch.where(inside, position - start + offset, index)
        start, offset = start + sizes, offset + source.shape[at]
    index = index.clamp(max=raw.shape[at] - 1) if raw.shape[at] else index
    shape = list(raw.shape)
    shape[at] = out.padded_size()
    return raw.gather(at, index.expand(shape))


def _along(values: torch.Tensor, rank: int, axis: int) -> torch.Tensor:
    """One axis of values as axis `axis` of `rank` ones."""
    return values.reshape([-1 if i == axis else 1 for i in range(rank)])


def _sizes_for(dim: Dim, axes: tuple[Dim, ...], device: torch.device) -> Any:
    """The sizes of an axis for given axes; a number if they are fixed."""
    if not dim.need_masking():
        return dim.padded_size()
    sizes = dim.get_dyn_size_ext_for_device(device)
    return arranged(as_torch(sizes), sizes.dims, axes)


def concat_features(*sources: Tensor, allow_broadcast: bool = False) -> Tensor:
    """Joined along the feature axis of each; the new axis is the feature axis."""
    pairs = []
    for x in sources:
        if x.feature_dim is None:
            raise WrongUse(f"concat_features of {x}: it must have a feature axis")
        pairs.append((x, x.feature_dim))
    found, dim = concat(*pairs, allow_broadcast=allow_broadcast)
    found.feature_dim = dim
    return found


def cum_concat_step(
    source: Tensor, *, prev_accum: Tensor, axis: Dim, out_spatial_dim: Dim | None = None
) -> tuple[Tensor, Dim]:
    """One frame appended after the last valid one: (tensor, axis + 1)."""
    out = out_spatial_dim
    if out is None:
        out = axis + 1
    elif not out.is_dim_known():
        out.declare_same_as(axis + 1)
    one = Dim(1, name="frame")
    found, _ = concat((prev_accum, axis), (expand_dim(source, one), one), out_dim=out, allow_broadcast=True)
    found.feature_dim = None
    feature = prev_accum.feature_dim if prev_accum.feature_dim is not None else source.feature_dim
    if feature is not None and feature in found.dims and found.sparse_dim is None:
        found.feature_dim = feature
    return found, out


def stack(sources: Sequence[Tensor], *, out_dim: Dim | None = None) -> tuple[Tensor, Dim]:
    """Tensors with the same axes along a new first one: (tensor, this axis)."""
    if not sources:
        raise WrongUse("stack needs at least one tensor")
    first = sources[0]
    for x in sources[1:]:
        if len(x.dims) != len(first.dims) or any(dim not in first.dims for dim in x.dims):
            raise WrongUse(f"stack of {first} and {x}: they must have the same axes")
    out = out_dim if out_dim is not None else Dim(len(sources), name="stack")
    if not out.is_dim_known():
        out.declare_same_as(Dim(len(sources), name=out.name))
    raw = torch.stack([arranged(x.raw_tensor, x.dims, first.dims) for x in sources])
    return with_dims(first, raw, (out, *first.dims), None), out


def unstack(source: Tensor, *, axis: Dim) -> tuple[Tensor, ...]:
    """The entries of an axis of fixed size."""
    at = axis_of(source.dims, axis, source)
    if not axis.is_static():
        raise WrongUse(f"unstack of {source}: axis {axis} must have a fixed size")
    rest = source.dims[:at] + source.dims[at + 1 :]
    return tuple(with_dims(source, raw, rest, source.feature_dim) for raw in source.raw_tensor.unbind(at))


def split(source: Tensor, *, axis: Dim, out_dims: Sequence[Dim]) -> tuple[Tensor, ...]:
    """An axis split into parts of these sizes, which must add up."""
    at = axis_of(source.dims, axis, source)
    sizes = [dim.padded_size() for dim in out_dims]
    if sum(sizes) != source.raw_tensor.shape[at]:
        raise WrongUse(f"split of {source}: the sizes of {show(out_dims)} must add up to that of {axis}")
    feature = source.feature_dim
    parts = []
    for dim, raw in zip(out_dims, source.raw_tensor.split(sizes, at), strict=True):
        own = dim if feature is not None and feature == axis else feature
        parts.append(with_dims(source, raw, (*source.dims[:at], dim, *source.dims[at + 1 :]), own))
    return tuple(parts)


# --- padding ----------------------------------------------------------------------------------------------------------


def pad(
    source: Tensor,
    *,
    axes: Dim | Sequence[Dim],
    padding: PerAxis,
    out_dims: Dim | Sequence[Dim | None] | None = None,
    mode: str = "constant",
    value: TensorLike | None = None,
    handle_dynamic_dims: bool | None = None,
) -> tuple[Tensor, PerAxis]:
    """Frames put before and after axes: (tensor, new axes). `padding`: (left, right) for each axis.

    What comes at the right follows the last valid frame of each sequence (from behavior version 21 on, or as
    `handle_dynamic_dims` says), else the padded axis. mode: constant (`value`, a number or tensor), reflect,
    replicate, circular.
    """
    single = isinstance(axes, Dim)
    dims = [axes] if isinstance(axes, Dim) else list(axes)
    amounts = [padding] if single and not isinstance(padding[0], tuple | list) else list(padding)
    if len(amounts) != len(dims) or any(not isinstance(pair, tuple | list) or len(pair) != 2 for pair in amounts):
        raise WrongUse(f"pad of {source}: `padding` must be a pair (left, right) for each of {show(dims)}")
    given = [out_dims] if isinstance(out_dims, Dim) else list(out_dims or [None] * len(dims))
    dynamic = BehaviorVersion.get() >= 21 if handle_dynamic_dims is None else handle_dynamic_dims
    outs = [
        _padded_axis(dim, left, right, out, dynamic)
        for dim, (left, right), out in zip(dims, amounts, given, strict=True)
    ]
    if mode == "constant" and isinstance(value, Tensor) and value.dims:
        found = _pad_by_concat(source, dims, amounts, outs, value, dynamic)
    elif mode == "constant":
        found = source
        for dim, (left, right), out in zip(dims, amounts, outs, strict=True):
            found = _pad_one(found, dim, left, right, out, value, dynamic)
    else:
        if dynamic and any(dim.need_masking() and _size(right) for dim, (_, right) in zip(dims, amounts, strict=True)):
            raise WrongUse(f"pad of {source}: mode {mode!r} does not support lengths; use handle_dynamic_dims=False")
        found = _pad_by_mode(source, dims, amounts, outs, mode)
    return found, outs[0] if single and isinstance(out_dims, Dim) else outs


def _padded_axis(dim: Dim, left: Any, right: Any, out: Dim | None, dynamic: bool) -> Dim:
    if out is not None and out.is_dim_known():
        return out
    plain = [part if isinstance(part, Dim) else _size(part) for part in (left, right)]
    ragged = isinstance(left, Dim) and left.need_masking()
    if not dynamic and (dim.need_masking() and _size(right) or ragged):
        total = _size(left) + dim.padded_size() + _size(right)
        found = padded_dim(total, f"{dim.name}:padded")
    else:
        found = plain[0] + dim + plain[1]
    return _named(found, out)


def _size(amount: Any) -> int:
    if isinstance(amount, Dim):
        return amount.padded_size()
    return int(amount.raw_tensor) if isinstance(amount, Tensor) else int(amount)


def _pad_one(x: Tensor, dim: Dim, left: Any, right: Any, out: Dim, value: Any, dynamic: bool) -> Tensor:
    at = axis_of(x.dims, dim, x)
    if dynamic and isinstance(left, Dim) and left.need_masking():
        raise WrongUse(f"pad of {x}: the number of frames at the left, {left}, must not differ between sequences")
    before = _size(left)
    after = max(out.padded_size() - before - x.raw_tensor.shape[at], 0) if dynamic else _size(right)
    number = 0 if value is None else value.raw_tensor if isinstance(value, Tensor) else value
    ending = dynamic and dim.need_masking() and (isinstance(right, Dim) or _size(right) > 0)
    amounts = [0, 0] * (x.raw_tensor.dim() - 1 - at) + [before, after]
    plain = 0 if isinstance(number, torch.Tensor) else number
    raw = functional.pad(x.raw_tensor, amounts, value=plain) if before or after else x.raw_tensor
    dims = (*x.dims[:at], out, *x.dims[at + 1 :])
    if ending or isinstance(number, torch.Tensor):
        position = _along(torch.arange(raw.shape[at], device=raw.device), raw.dim(), at)
        sizes = _sizes_for(dim, dims, raw.device) if dynamic else dim.padded_size()
        outside = (position < before) | (position >= sizes + before)
        filled = torch.as_tensor(number, dtype=raw.dtype, device=raw.device)
        raw = torch.where(outside, filled, raw)
    return with_dims(x, raw, dims, out if x.feature_dim is not None and x.feature_dim == dim else x.feature_dim)


def _pad_by_concat(
    x: Tensor, dims: Sequence[Dim], amounts: Sequence[Any], outs: Sequence[Dim], value: Tensor, dynamic: bool
) -> Tensor:
    if len(dims) != 1:
        raise WrongUse(f"pad of {x} over {show(dims)}: a value with axes can only be put along one axis")
    (dim,), ((left, right),), (out,) = dims, amounts, outs
    parts: list[tuple[Tensor, Dim]] = [(x, dim)]
    for amount, first in ((left, True), (right, False)):
        if _size(amount):
            own = amount if isinstance(amount, Dim) else Dim(_size(amount), name="padding")
            entry = (expand_dim(value, own), own)
            parts = [entry, *parts] if first else [*parts, entry]
    found, _ = concat(*parts, allow_broadcast=True, out_dim=out, handle_dynamic_dims=dynamic)
    if x.sparse_dim is None and x.feature_dim is not None and parts[0][0] is x:
        found.feature_dim = out if x.feature_dim == dim else x.feature_dim
    return found


def _pad_by_mode(x: Tensor, dims: Sequence[Dim], amounts: Sequence[Any], outs: Sequence[Dim], mode: str) -> Tensor:
    """As torch pads: the axes moved to the end, the others flattened to one."""
    if mode not in ("reflect", "replicate", "circular"):
        raise WrongUse(f"`mode` must be constant, reflect, replicate or circular, but is {mode!r} instead")
    at = [axis_of(x.dims, dim, x) for dim in dims]
    rest = [i for i in range(len(x.dims)) if i not in at]
    raw = x.raw_tensor.permute(rest + at)
    inner = raw.reshape(1, -1, *raw.shape[len(rest) :])
    flat = [size for left, right in reversed(list(amounts)) for size in (_size(left), _size(right))]
    done = functional.pad(inner, flat, mode=mode).reshape(*raw.shape[: len(rest)], *_after(inner, flat))
    back = [(rest + at).index(i) for i in range(len(x.dims))]
    named = {i: out for i, out in zip(at, outs, strict=True)}
    new = tuple(named.get(i, dim) for i, dim in enumerate(x.dims))
    feature = None if x.feature_dim_axis is None else new[x.feature_dim_axis]
    return with_dims(x, done.permute(back), new, feature)


def _after(inner: torch.Tensor, flat: Sequence[int]) -> list[int]:
    sizes = list(inner.shape[2:])
    for i in range(len(sizes)):
        sizes[-1 - i] += flat[2 * i] + flat[2 * i + 1]
    return sizes
