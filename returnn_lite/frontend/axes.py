"""Axes added, taken off, replaced, merged, split."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import axis_of, show
from returnn_lite.frontend.tensor import Tensor, TensorLike
from returnn_lite.frontend.tensor_base import checked_dims
from returnn_lite.frontend.tensor_copies import all_axes


def with_dims(x: Tensor, raw: torch.Tensor, dims: Sequence[Dim], feature: Dim | None) -> Tensor:
    """Other data and axes with the name and classes of `x`; `feature` is the feature axis if it is among them."""
    axes = tuple(dims)
    at = axes.index(feature) if feature is not None and feature in axes and x.sparse_dim is None else None
    return x._new(raw, axes, sparse_dim=x.sparse_dim, feature_axis=at, name=x.name)


def expand_dim(source: Tensor, dim: Dim) -> Tensor:
    """A further axis, along which the content is repeated.

    One with sizes comes after the last such axis, else last; a fixed one before the feature axis, else last.
    """
    if dim in source.dims:
        raise WrongUse(f"expand_dim of {source}: it has the axis {dim} already")
    at = len(source.dims)
    if dim.is_dynamic():
        dynamic = [i for i, other in enumerate(source.dims) if other.is_dynamic()]
        at = dynamic[-1] + 1 if dynamic else at
    elif source.feature_dim_axis is not None:
        at = source.feature_dim_axis
    dims = (*source.dims[:at], dim, *source.dims[at:])
    raw = source.copy_compatible_to_dims_raw(dims, unbroadcast=True)
    return with_dims(source, raw, dims, source.feature_dim)


def expand_dims(source: Tensor, dims: Sequence[Dim]) -> Tensor:
    """`expand_dim` for one after the other."""
    for dim in dims:
        source = expand_dim(source, dim)
    return source


def squeeze(source: Tensor, axis: Dim) -> Tensor:
    """An axis of size 1 removed."""
    at = axis_of(source.dims, axis, source)
    if axis.dimension != 1:
        raise WrongUse(f"squeeze of {source}: axis {axis} must have the size 1")
    return with_dims(
        source, source.raw_tensor.squeeze(at), source.dims[:at] + source.dims[at + 1 :], source.feature_dim
    )


def merge_dims(source: Tensor, *, dims: Sequence[Dim], out_dim: Dim | None = None) -> tuple[Tensor, Dim]:
    """Axes flattened in the order given, at the place of the leftmost: (tensor, the new axis).

    The new axis is their product. Where any but the first has padding, it has no sizes but the padded one.
    """
    wanted = checked_dims(dims, "merge_dims")
    if not wanted:
        out = out_dim if out_dim is not None else Dim(1, name="merged")
        return expand_dim(source, out), out
    if len(wanted) == 1:
        return (source, wanted[0]) if out_dim is None else replace_dim(source, in_dim=wanted[0], out_dim=out_dim)
    axes = all_axes(wanted, source)
    if out_dim is None:
        out_dim = _product(wanted)
    elif not out_dim.is_dim_known():
        out_dim.declare_same_as(_product(wanted))
    at = min(axes)
    rest = [i for i in range(len(source.dims)) if i not in axes]
    before = [i for i in rest if i < at]
    after = [i for i in rest if i > at]
    raw = source.raw_tensor.permute(before + axes + after).flatten(len(before), len(before) + len(axes) - 1)
    merged = [*(source.dims[i] for i in before), out_dim, *(source.dims[i] for i in after)]
    feature = source.feature_dim
    return with_dims(source, raw, merged, out_dim if feature is not None and feature in wanted else feature), out_dim


def _product(dims: Sequence[Dim]) -> Dim:
    if any(dim.need_masking() for dim in dims[1:]):
        return padded_dim(math.prod(dim.padded_size() for dim in dims), "*".join(dim.name for dim in dims))
    return math.prod(dims[1:], start=dims[0])


def padded_dim(size: int, name: str) -> Dim:
    """An axis of a size that is not fixed, without a size per sequence."""
    return Dim(Tensor._new(torch.tensor(size, dtype=torch.int32), (), name=name), name=name)


def split_dims(
    source: Tensor,
    *,
    axis: Dim,
    dims: Sequence[Dim],
    pad_to_multiples: bool | None = None,
    pad_value: TensorLike | None = None,
) -> Tensor:
    """An axis as several, in its place; of one the size may be unknown."""
    if pad_to_multiples:
        raise WrongUse(f"split_dims of {source}: pad_to_multiples is not supported; use rf.pad before")
    feature = source.feature_dim
    return reshape(source, [axis], dims, keep_feature=feature if feature is not None and feature != axis else None)


def reshape(
    source: Tensor, in_dims: Sequence[Dim], out_dims: Sequence[Dim], *, keep_feature: Dim | None = None
) -> Tensor:
    """Axes, taken in this order, as others, at the place of the leftmost. Of one the size may be unknown."""
    before, after = tuple(in_dims), tuple(out_dims)
    axes = all_axes(before, source)
    at = min(axes)
    rest = [i for i in range(len(source.dims)) if i not in axes]
    left, right = [i for i in rest if i < at], [i for i in rest if i > at]
    raw = source.raw_tensor.permute(left + axes + right)
    total = math.prod(source.raw_tensor.shape[i] for i in axes)
    sizes = [dim.padded_size() if dim.is_dim_known_in_batch() else -1 for dim in after]
    unknown = [i for i, size in enumerate(sizes) if size == -1]
    known = math.prod(size for size in sizes if size != -1)
    if len(unknown) > 1 or (not unknown and known != total) or (unknown and (known == 0 or total % known)):
        raise WrongUse(f"{source}: the axes {show(before)} of {total} entries cannot be reshaped to {show(after)}")
    if unknown:
        sizes[unknown[0]] = total // known
        _now_known(after[unknown[0]], before, after, total // known)
    raw = raw.reshape(*raw.shape[: len(left)], *sizes, *raw.shape[len(left) + len(axes) :])
    dims = [*(source.dims[i] for i in left), *after, *(source.dims[i] for i in right)]
    feature = source.feature_dim
    kept = feature if feature is not None and feature not in before else keep_feature
    return with_dims(source, raw, dims, kept)


def _now_known(dim: Dim, before: Sequence[Dim], after: Sequence[Dim], size: int) -> None:
    """Gives an axis of unknown size the sizes that it must have."""
    others = [other for other in after if other is not dim]
    if len(before) == 1 and all(other.is_static() for other in others):
        dim.declare_same_as(before[0].div_left(math.prod(other.dimension or 1 for other in others)))
    elif all(other.is_static() for other in (*before, *others)):
        dim.declare_same_as(Dim(size, name=dim.name))
    else:
        dim.dyn_size_ext = padded_dim(size, dim.name).dyn_size_ext


def replace_dim(source: Tensor, *, in_dim: Dim, out_dim: Dim | None = None) -> tuple[Tensor, Dim]:
    """An axis under another name: (tensor, the new axis), which by default has the same sizes."""
    if out_dim is None:
        out_dim = in_dim.copy(same_as_self=False, description=f"{in_dim.name}_new")
    at = axis_of(source.dims, in_dim, source)
    if not out_dim.is_dim_known():
        sizes = in_dim.dimension if in_dim.is_static() else in_dim.dyn_size_ext
        out_dim.declare_same_as(Dim(sizes, name=out_dim.name))
    found = source._like(source.raw_tensor)
    found._dims = (*source.dims[:at], out_dim, *source.dims[at + 1 :])
    return found, out_dim


def replace_dim_v2(
    source: Tensor, *, in_dim: Dim, out_dim: Dim, allow_expand: bool = True, allow_shrink: bool = True
) -> Tensor:
    """An axis as another one, of its size: zeros are appended, or entries cut off, if that is allowed."""
    at = axis_of(source.dims, in_dim, source)
    if out_dim in source.dims:
        raise WrongUse(f"replace_dim_v2 of {source}: it has the axis {out_dim} already")
    size, wanted = source.raw_tensor.shape[at], out_dim.padded_size()
    if (wanted > size and not allow_expand) or (wanted < size and not allow_shrink):
        raise WrongUse(f"replace_dim_v2 of {source}: {in_dim} of size {size} cannot become {out_dim} of size {wanted}")
    raw = source.raw_tensor
    if wanted < size:
        raw = raw.narrow(at, 0, wanted)
    elif wanted > size:
        raw = functional.pad(raw, [0, 0] * (raw.dim() - 1 - at) + [0, wanted - size])
    found = source._like(raw)
    found._dims = (*source.dims[:at], out_dim, *source.dims[at + 1 :])
    return found


def set_sparse_dim(source: Tensor, sparse_dim: Dim | None) -> Tensor:
    """The same values as classes of an axis."""
    found = source.copy()
    found.sparse_dim = sparse_dim
    if sparse_dim is not None:
        found.feature_dim_axis = None
    return found


def expand_make_non_empty(source: Tensor, *, axis: Dim, out_dim: Dim | None = None) -> tuple[Tensor, Dim]:
    """An axis without any entry gets one, of 0: (tensor, axis). Others are left as they are."""
    if axis.padded_size() > 0:
        return source, axis
    if out_dim is None:
        if axis.is_static():
            out_dim = Dim(1, name=axis.name)
        else:
            sizes = axis.get_size_tensor()
            out_dim = Dim(sizes._like(sizes.raw_tensor.clamp(min=1)), name=axis.name)
    return replace_dim_v2(source, in_dim=axis, out_dim=out_dim), out_dim


# --- complex numbers --------------------------------------------------------------------------------------------------


def real_as_complex(x: Tensor, *, pair_dim: Dim) -> Tensor:
    """An axis of size 2, real and imaginary part, as complex numbers."""
    at = axis_of(x.dims, pair_dim, x)
    if x.raw_tensor.shape[at] != 2:
        raise WrongUse(f"real_as_complex of {x}: axis {pair_dim} must have the size 2")
    raw = torch.view_as_complex(x.raw_tensor.movedim(at, -1).contiguous())
    return with_dims(x, raw, x.dims[:at] + x.dims[at + 1 :], x.feature_dim)


def complex_as_real(x: Tensor, *, out_dim: Dim | None = None) -> tuple[Tensor, Dim]:
    """Real and imaginary part as a last axis of size 2: (tensor, this axis)."""
    pair = out_dim if out_dim is not None else Dim(2, name="real-imag")
    return with_dims(x, torch.view_as_real(x.raw_tensor), (*x.dims, pair), x.feature_dim), pair


def make_complex(real: Tensor, imag: Tensor) -> Tensor:
    """Complex numbers of their parts."""
    return real + imag * 1j
