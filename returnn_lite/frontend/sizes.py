"""How many entries axes have, which of them are padding, and positions along an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from returnn_lite.behavior_version import BehaviorVersion
from returnn_lite.frontend import dtypes
from returnn_lite.frontend.dim import Dim, Dims
from returnn_lite.frontend.dim_sizes import as_torch
from returnn_lite.frontend.layout import arranged, joined
from returnn_lite.frontend.types import AnyTensor, Device, Operand, SizeTensor
from returnn_lite.running_config import running_config


def num_elements_of_shape(dims: Dim | Sequence[Dim], use_mask: bool = True, device: Device = None) -> Operand:
    """The number of entries that are no padding: an int for fixed sizes, else an int tensor.

    It is a number per sequence where the sizes depend on an axis that is not among `dims`.
    """
    wanted = (dims,) if isinstance(dims, Dim) else tuple(dims)
    if all(dim.is_static() for dim in wanted):
        return math.prod(dim.dimension or 0 for dim in wanted)
    if not use_mask:
        count = torch.tensor(math.prod(dim.padded_size() for dim in wanted), dtype=torch.int32, device=device)
        return AnyTensor.new(count, (), name="num_elements")
    if len(wanted) == 1:
        return wanted[0].get_size_tensor(device=device)
    ragged = [dim for dim in wanted if dim.need_masking()]
    summed = [dim for dim in wanted if any(dim in other.dyn_size_ext.dims for other in ragged)]
    counts, axes = _product([dim for dim in wanted if dim not in summed])
    axes = (*axes, *(dim for dim in summed if dim not in axes))
    for dim in sorted(summed, key=lambda dim: dim.need_masking(), reverse=True):
        at = axes.index(dim)
        if dim.need_masking():
            mask = dim.get_mask(device="cpu")
            counts = torch.where(arranged(mask.raw_tensor, mask.dims, axes), counts, 0)
        counts, axes = counts.sum(at), axes[:at] + axes[at + 1 :]
    return AnyTensor.new(counts if device is None else counts.to(device), axes, name="num_elements")


def _product(dims: Sequence[Dim]) -> tuple[torch.Tensor, Dims]:
    """The product of all sizes, for the axes that they have. Shape: (*axes)"""
    sizes = [(as_torch(size), size.dims) for size in (dim.get_size_tensor() for dim in dims)]
    axes: Dims = ()
    for _, own in sizes:
        axes = joined(axes, own)
    product = torch.ones((1,) * len(axes), dtype=torch.int32)
    for raw, own in sizes:
        product = product * arranged(raw, own, axes)
    return product, axes


def sizes_over(dim: Dim, dims: Dims, device: Device = None) -> torch.Tensor:
    """The size of an axis for each entry of other axes, which include those of its sizes. Shape: (*dims)"""
    sizes = dim.get_size_tensor(device=device)
    raw: torch.Tensor = arranged(as_torch(sizes), sizes.dims, dims)
    return raw.expand([axis.padded_size() for axis in dims])


def masked_fraction_of_shape(dims: Dim | Sequence[Dim], inverse: bool = False) -> Operand:
    """The part of all entries that is no padding, a number or tensor; with `inverse` 1 / this."""
    wanted = (dims,) if isinstance(dims, Dim) else tuple(dims)
    if not any(dim.need_masking() for dim in wanted):
        return 1
    count = num_elements_of_shape(wanted)
    total = float(math.prod(dim.padded_size() for dim in wanted if dim not in count.dims))
    return total / count if inverse else count / total


def last_frame_position_of_dim(dim: Dim, *, device: Device = None, allow_scalar_on_cpu: bool = False) -> Operand:
    """The position of the last frame: an int for a fixed size, else a tensor with this as sparse axis; at least 0."""
    if dim.dimension is not None:
        return max(dim.dimension - 1, 0)
    where = dtypes.get_default_device() if device is None else device
    sizes = dim.get_size_tensor(device=where)
    return AnyTensor.new((as_torch(sizes) - 1).clamp(min=0), sizes.dims, sparse_dim=dim, name=f"{dim.name}:last")


def use_mask_default(
    *,
    default: bool | None = None,
    default_false_for_behavior_version_up_to: int | None = None,
    func_name: str | None = None,
) -> bool | None:
    """The default of `use_mask`, by the options `rf_use_mask`, `rf_use_mask_<func_name>`."""
    config = running_config()
    for option in ("rf_use_mask", *((f"rf_use_mask_{func_name}",) if func_name else ())):
        if config is not None and config.has(option):
            return config.bool(option, True)
    version = default_false_for_behavior_version_up_to
    return False if version is not None and BehaviorVersion.get() <= version else default


def dim_match_priority_when_needed(dim: Dim, *other_dims: Dim) -> Dim:
    """The axis with a match priority if it is among the others, so that both can be axes of one tensor."""
    return dim.copy(match_priority=1) if dim in other_dims else dim


def range_over_dim(dim: Dim, *, dtype: str | None = None, device: Device = None) -> SizeTensor:
    """0, 1, … along an axis. Shape: [dim], of the padded size; ints have the axis as sparse axis."""
    sizes = dim.dyn_size_ext
    dtype = dtype or ("int32" if dim.is_static() or sizes is None else sizes.dtype)
    where = dtypes.get_default_device() if device is None else device
    raw = torch.arange(dim.padded_size(), dtype=dtypes.torch_dtype(dtype), device=where)
    return AnyTensor.new(raw, (dim,), sparse_dim=dim if dtypes.is_integer(dtype) else None, name=f"{dim.name}:range")


def range_over_dim_strided(
    dim: Dim, *, stride: int | Dim, out_dim: Dim | None = None, dtype: str | None = None, device: Device = None
) -> tuple[SizeTensor, Dim]:
    """0, stride, … below the size, and its axis: `dim` by `stride`, rounded up."""
    found = dim.ceildiv_right(stride)
    if out_dim is not None:
        out_dim.declare_same_as(found)
        found = out_dim
    step = stride if isinstance(stride, int) else stride.get_dim_value()
    values = range_over_dim(found, dtype=dtype, device=device)
    return values._like(values.raw_tensor * step), found


def range_over_merged_dims(dims: Sequence[Dim], *, dtype: str | None = None, device: Device = None) -> SizeTensor:
    """The position in the flattened axes. Shape: dims; the sparse axis is their product."""
    wanted = tuple(dims)
    if len(wanted) == 1:
        return range_over_dim(wanted[0], dtype=dtype, device=device)
    whole = math.prod(wanted[1:], start=wanted[0])
    sizes = [dim.padded_size() for dim in wanted]
    where = dtypes.get_default_device() if device is None else device
    raw = torch.arange(math.prod(sizes), dtype=dtypes.torch_dtype(dtype or "int32"), device=where)
    return AnyTensor.new(raw.reshape(sizes), wanted, sparse_dim=whole)


def linspace_over_dim(
    dim: Dim, start: float = 0.0, end: float = 1.0, *, dtype: str | None = None, device: Device = None
) -> SizeTensor:
    """From `start` towards `end`, which is not reached, in steps by the size (of each sequence)."""
    values = range_over_dim(dim, dtype=dtype or dtypes.get_default_float_dtype(), device=device)
    sizes = dim.get_size_tensor(device=values.raw_tensor.device) if dim.need_masking() else dim.padded_size()
    return values * (end - start) / sizes + start


def sequence_mask(dims: Dim | Sequence[Dim], device: Device = None) -> SizeTensor:
    """Where none of the axes is in its padding. Shape: those of `dims` that matter, in their order."""
    wanted = (dims,) if isinstance(dims, Dim) else tuple(dims)
    where = dtypes.get_default_device() if device is None else device
    masks = [dim.get_mask(dim_order=wanted, device=where) for dim in wanted if dim.need_masking()]
    if not masks:
        return AnyTensor.new(torch.ones((), dtype=torch.bool, device=where), ())
    needed: Dims = ()
    for mask in masks:
        needed = (*needed, *(dim for dim in mask.dims if dim not in needed))
    order = {dim: i for i, dim in enumerate(wanted)}
    axes = tuple(sorted(needed, key=lambda dim: order.get(dim, len(order))))
    raw = arranged(masks[0].raw_tensor, masks[0].dims, axes)
    for mask in masks[1:]:
        raw = raw & arranged(mask.raw_tensor, mask.dims, axes)
    return AnyTensor.new(raw.expand([dim.padded_size() for dim in axes]), axes, name="mask")
