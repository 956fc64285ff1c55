"""Reductions over axes, without their padding: sum, mean, max …; `top_k`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, overload

import torch

from returnn_lite.errors import did_you_mean
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse, kind
from returnn_lite.frontend.layout import axis_of
from returnn_lite.frontend.masks import padding_mask
from returnn_lite.frontend.tensor import Tensor

Axis = Dim | Sequence[Dim]


def lowest(dtype: torch.dtype) -> float:
    """The lowest finite number of a type."""
    if dtype == torch.bool:
        return False
    return torch.finfo(dtype).min if dtype.is_floating_point else torch.iinfo(dtype).min


def highest(dtype: torch.dtype) -> float:
    """The highest finite number of a type."""
    if dtype == torch.bool:
        return True
    return torch.finfo(dtype).max if dtype.is_floating_point else torch.iinfo(dtype).max


def _flat(raw: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """The axes as one, the last."""
    if len(axes) == 1:
        return raw.movedim(axes[0], -1)
    return raw.movedim(tuple(axes), tuple(range(-len(axes), 0))).flatten(-len(axes))


_Reduce = Callable[[torch.Tensor, list[int]], torch.Tensor]
# mode -> (function, what padding is filled with)
_MODES: dict[str, tuple[_Reduce, Callable[[torch.dtype], Any]]] = {
    "sum": (lambda x, axes: x.sum(axes), lambda dtype: 0),
    "max": (lambda x, axes: _flat(x, axes).max(-1).values, lowest),
    "min": (lambda x, axes: _flat(x, axes).min(-1).values, highest),
    "mean": (lambda x, axes: x.mean(axes), lambda dtype: 0),
    "logsumexp": (lambda x, axes: x.logsumexp(axes), lowest),
    "logmeanexp": (lambda x, axes: x.logsumexp(axes), lowest),
    "any": (lambda x, axes: _flat(x, axes).any(-1), lambda dtype: False),
    "all": (lambda x, axes: _flat(x, axes).all(-1), lambda dtype: True),
    "argmax": (lambda x, axes: x.argmax(axes[0]), lowest),
    "argmin": (lambda x, axes: x.argmin(axes[0]), highest),
}


def reduce(x: Tensor, *, mode: str, axis: Axis, use_mask: bool = True, distributed: bool = False) -> Tensor:
    """The reduction of one or several axes.

    mode: sum, mean, max, min, logsumexp, logmeanexp, any, all, argmax, argmin.
    Padding does not count, unless `use_mask` is False. The result has the other axes and no feature axis; positions
    (argmax, argmin) are int64 with the axis as sparse axis. distributed: over all workers, too (sum only).
    """
    if mode not in _MODES:
        raise WrongUse(
            f"`mode` must be one of {', '.join(_MODES)}, but is {mode!r} instead{did_you_mean(mode, _MODES)}"
        )
    dims = (axis,) if isinstance(axis, Dim | int | None) else tuple(axis)
    if not isinstance(x, Tensor):
        raise WrongUse(f"reduce_{mode} needs a Tensor, but got {kind(x)}")
    axes = [axis_of(x.dims, dim, x) for dim in dims]
    position = mode in ("argmax", "argmin")
    if position and len(axes) != 1:
        raise WrongUse(f"reduce_{mode} of {x} must be over one axis, but got {len(axes)}")
    raw = x.raw_tensor
    if mode == "mean" and not (raw.is_floating_point() or raw.is_complex()):
        raise WrongUse(f'reduce_mean of {x}: it must be of floats; use rf.cast(x, "float32") first')
    mask = padding_mask(x, dims, strict=True) if use_mask else None
    function, fill = _MODES[mode]
    if axes:
        raw = _reduced(raw, axes, mode, function, mask, fill)
    if distributed:
        raw = _over_workers(raw, mode)
    rest = tuple(dim for i, dim in enumerate(x.dims) if i not in axes)
    return x._new(raw, rest, sparse_dim=dims[0] if position else x.sparse_dim, name=f"reduce_{mode}")


def _reduced(
    raw: torch.Tensor, axes: list[int], mode: str, function: _Reduce, mask: torch.Tensor | None, fill: Any
) -> torch.Tensor:
    try:
        if mask is None:
            found = function(raw, axes)
            return found - math.log(_size(raw, axes)) if mode == "logmeanexp" else found
        found = function(torch.where(mask, raw, fill(raw.dtype)), axes)
    except (RuntimeError, IndexError) as error:
        raise WrongUse(f"reduce_{mode}: {str(error).splitlines()[0]}") from None
    if mode == "mean":
        return torch.where(mask, raw, 0).sum(axes) / _count(mask, raw, axes)
    return found - _count(mask, raw, axes).to(found.dtype).log() if mode == "logmeanexp" else found


def _size(raw: torch.Tensor, axes: Sequence[int]) -> int:
    return math.prod(raw.shape[i] for i in axes)


def _count(mask: torch.Tensor, raw: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """The number of valid entries over some axes, for the others."""
    hidden = math.prod(raw.shape[i] for i in axes if mask.shape[i] == 1)
    count = mask.sum(list(axes), keepdim=True)
    for i in sorted(axes, reverse=True):
        count = count.squeeze(i)
    return count * hidden if hidden != 1 else count


def _over_workers(raw: torch.Tensor, mode: str) -> torch.Tensor:
    if mode != "sum":
        raise WrongUse(f"reduce_{mode} cannot be distributed; only sums can")
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        raw = raw.clone()
        torch.distributed.all_reduce(raw)
    return raw


def _named(mode: str) -> Any:
    def call(source: Tensor, *, axis: Axis, use_mask: bool = True, **options: Any) -> Tensor:
        return reduce(source, mode=mode, axis=axis, use_mask=use_mask, **options)

    call.__name__ = call.__qualname__ = f"reduce_{mode}"
    call.__doc__ = f"`reduce` with the mode {mode!r}."
    return call


reduce_sum, reduce_mean, reduce_max, reduce_min = _named("sum"), _named("mean"), _named("max"), _named("min")
reduce_logsumexp, reduce_logmeanexp = _named("logsumexp"), _named("logmeanexp")
reduce_any, reduce_all = _named("any"), _named("all")
reduce_argmax, reduce_argmin = _named("argmax"), _named("argmin")


def reduce_out(x: Tensor, *, mode: str, num_pieces: int, out_dim: Dim | None = None) -> Tensor:
    """The feature axis in groups of `num_pieces`, each reduced; with "max" this is maxout (Goodfellow et al., 2013)."""
    feature = x.feature_dim
    if feature is None or feature.dimension is None:
        raise WrongUse(f"reduce_out of {x}: it must have a feature axis of a fixed size")
    out = out_dim if out_dim is not None else feature // num_pieces
    axis = x.feature_dim_axis or 0
    if out.dimension is None or out.dimension * num_pieces != feature.dimension:
        raise WrongUse(f"reduce_out of {x}: {num_pieces} pieces of {out.short_repr()} are not {feature.short_repr()}")
    raw = x.raw_tensor.unflatten(axis, (out.dimension, num_pieces))
    pieces = Dim(num_pieces, name="pieces")
    split = x._new(raw, (*x.dims[:axis], out, pieces, *x.dims[axis + 1 :]), sparse_dim=x.sparse_dim)
    found = reduce(split, mode=mode, axis=pieces)
    found.feature_dim = out
    return found


@overload
def top_k(
    source: Tensor, *, axis: Dim, k: int | Tensor | Dim | None = ..., k_dim: Dim | None = ..., sorted: bool = ...
) -> tuple[Tensor, Tensor, Dim]: ...
@overload
def top_k(
    source: Tensor,
    *,
    axis: Sequence[Dim],
    k: int | Tensor | Dim | None = ...,
    k_dim: Dim | None = ...,
    sorted: bool = ...,
) -> tuple[Tensor, list[Tensor], Dim]: ...
def top_k(
    source: Tensor,
    *,
    axis: Axis,
    k: int | Tensor | Dim | None = None,
    k_dim: Dim | None = None,
    sorted: bool = True,
) -> tuple[Tensor, Tensor | list[Tensor], Dim]:
    """The k largest entries of an axis, or of several together: (values, positions, axis of them, the last).

    Positions are int64 with the axis as sparse axis; for a sequence of axes a list of them, one per axis. Padding is
    the lowest number. `k` or `k_dim` must be given.
    """
    dims = (axis,) if isinstance(axis, Dim | int | None) else tuple(axis)
    axes = [axis_of(source.dims, dim, source) for dim in dims]
    if k_dim is None and k is None:
        raise WrongUse(f"top_k of {source}: `k` or `k_dim` must be given")
    if isinstance(k, float | str):
        raise WrongUse(f"top_k of {source}: `k` must be a number of entries, but is {k!r} instead")
    count = int(_plain(k)) if k is not None else k_dim.padded_size()  # type: ignore[union-attr]
    if k_dim is None:
        k_dim = k if isinstance(k, Dim) else Dim(count, name="top-k")
    mask = padding_mask(source, dims, strict=True)
    raw = source.raw_tensor if mask is None else torch.where(mask, source.raw_tensor, lowest(source.raw_tensor.dtype))
    flat = _flat(raw, axes)
    if count > flat.shape[-1]:
        raise WrongUse(f"top_k of {source}: `k` must be at most {flat.shape[-1]}, but is {count} instead")
    values, index = flat.topk(count, -1, sorted=sorted)
    rest = tuple(dim for i, dim in enumerate(source.dims) if i not in axes)
    result = source._new(values, (*rest, k_dim), sparse_dim=source.sparse_dim, name="top_k")
    feature = source.feature_dim
    if feature is not None:
        result.feature_dim = feature if feature in rest else k_dim if isinstance(axis, Dim) else None
    if isinstance(axis, Dim):
        return result, source._new(index, (*rest, k_dim), sparse_dim=axis), k_dim
    positions: list[Tensor] = []
    for dim, i in zip(dims[::-1], axes[::-1], strict=True):
        size = source.raw_tensor.shape[i]
        own = index if len(positions) == len(dims) - 1 else index % size
        positions.insert(0, source._new(own, (*rest, k_dim), sparse_dim=dim))
        index = index // size
    return result, positions, k_dim


def _plain(value: Any) -> Any:
    if isinstance(value, Dim):
        return value.padded_size()
    return value.raw_tensor if isinstance(value, Tensor) else value
