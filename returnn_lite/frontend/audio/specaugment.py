"""Random masks (SpecAugment, Park et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import returnn_lite.ops.specaugment as ops
from returnn_lite.frontend.defaults import from_version
from returnn_lite.frontend.dim import Dim, Dims
from returnn_lite.frontend.dim_sizes import as_torch
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged, axis_of
from returnn_lite.frontend.run_ctx import get_run_ctx
from returnn_lite.frontend.tensor import Tensor, TensorLike
from returnn_lite.frontend.where import where


def specaugment(
    x: Tensor,
    *,
    spatial_dim: Dim,
    feature_dim: Dim | None = None,
    global_train_step_dependent: bool = True,
    only_on_train: bool = True,
    max_consecutive_spatial_dims: int | Tensor = 20,
    max_consecutive_feature_dims: int | Tensor | None = None,
    num_spatial_mask_factor: int = 100,
    num_masks_per_seq: bool | None = None,
    steps: Sequence[int] = (0, 1000, 2000),
) -> Tensor:
    """In training random stretches of frames and of features are 0; more of them from the training steps `steps` on.

    max_consecutive_…: the longest stretches; 0 for none. num_spatial_mask_factor: frames for each stretch.
    num_masks_per_seq: their number goes by the length of each sequence, not by that of the longest.
    """
    context = get_run_ctx()
    if only_on_train and not context.train_flag:
        return x
    features = feature_dim if feature_dim is not None else x.feature_dim
    if features is None:
        raise WrongUse(f"specaugment of {x}: `feature_dim` must be given, as no feature axis is set")
    stage = ops.stages(context.step, steps) if global_train_step_dependent else (1, 1, 1)
    per_seq = from_version("rf_specaugment_num_masks_per_seq", 28) if num_masks_per_seq is None else num_masks_per_seq
    if num_spatial_mask_factor and not _is_zero(max_consecutive_spatial_dims):
        size = _lengths(spatial_dim) if per_seq else torch.tensor(spatial_dim.padded_size())
        dims = spatial_dim.get_size_tensor().dims if per_seq else ()
        fewest, most = ops.time_stretches(size, num_spatial_mask_factor, stage)
        x = random_mask(
            x,
            mask_axis=spatial_dim,
            broadcast_axis=features,
            min_num=Tensor._new(fewest, dims),
            max_num=Tensor._new(most, dims),
            max_dims=max_consecutive_spatial_dims,
        )
    default = ops.widest_features(features.padded_size())
    widest = default if max_consecutive_feature_dims is None else max_consecutive_feature_dims
    if not _is_zero(widest):
        least, greatest = ops.feature_stretches(stage)
        x = random_mask(
            x,
            mask_axis=features,
            broadcast_axis=spatial_dim,
            min_num=least,
            max_num=greatest,
            max_dims=widest,
        )
    return x


def _is_zero(value: Any) -> bool:
    return isinstance(value, int) and value == 0


def _lengths(dim: Dim) -> torch.Tensor:
    return as_torch(dim.get_size_tensor())


def random_mask(
    x: Tensor,
    *,
    mask_axis: Dim,
    broadcast_axis: Dim | Sequence[Dim],
    min_num: int | Tensor,
    max_num: int | Tensor,
    max_dims: int | Tensor,
    mask_value: TensorLike = 0.0,
    max_num_bound: int | None = None,
) -> Tensor:
    """Random stretches of an axis get a value; the same ones along the axes `broadcast_axis`.

    Their number is uniform in [min_num, max_num], each width in [1, max_dims]; they start within the length.
    """
    axis_of(x.dims, mask_axis, f"random_mask: {x}")
    shared = (broadcast_axis,) if isinstance(broadcast_axis, Dim) else tuple(broadcast_axis)
    rest = tuple(dim for dim in x.dims if dim not in (*shared, mask_axis))
    device, size = x.raw_tensor.device, mask_axis.padded_size()
    sizes = mask_axis.get_size_tensor()
    if any(dim not in rest for dim in sizes.dims):  # masks that are the same for all: within the longest
        sizes = Tensor._new(torch.tensor(size), ())
    rows = _rows(sizes, rest, device)
    hidden = ops.random_stretches(
        rows.expand(_count(rest)),
        size,
        fewest=_number(min_num, rest, device),
        most=_number(max_num, rest, device),
        max_width=_number(max_dims, rest, device),
    )
    hidden = hidden.reshape(*(dim.padded_size() for dim in rest), size)
    return _hide(x, Tensor._new(hidden, (*rest, mask_axis)), mask_value)


def _count(dims: Dims) -> int:
    found = 1
    for dim in dims:
        found *= dim.padded_size()
    return found


def _rows(value: Tensor, dims: Dims, device: torch.device) -> torch.Tensor:
    """A value for each entry of the axes. Shape: (entries,) or (1,)"""
    raw = as_torch(value).to(device)
    if not value.dims:
        return raw.reshape(1)
    rows: torch.Tensor = arranged(raw, value.dims, dims).expand([dim.padded_size() for dim in dims])
    return rows.reshape(-1)


def _number(value: int | Tensor, dims: Dims, device: torch.device) -> Any:
    return _rows(value, dims, device) if isinstance(value, Tensor) else value


def mask(x: Tensor, *, mask_axis: Dim, pos: Tensor, max_amount: int | Tensor, mask_value: TensorLike = 0.0) -> Tensor:
    """One stretch of an axis, from `pos` on, of a random width in [1, max_amount], gets a value."""
    axis_of(x.dims, mask_axis, f"mask: {x}")
    device = x.raw_tensor.device
    start = as_torch(pos).to(device).long()
    most = _number(max_amount, pos.dims, device)
    drawn = torch.rand(start.shape, device=device)
    most = most.reshape(start.shape) if isinstance(most, torch.Tensor) and most.numel() > 1 else most
    width = 1 + (drawn * most).floor().long()
    frames = torch.arange(mask_axis.padded_size(), device=device)
    hidden = (frames >= start.unsqueeze(-1)) & (frames < (start + width).unsqueeze(-1))
    return _hide(x, Tensor._new(hidden, (*pos.dims, mask_axis)), mask_value)


def _hide(x: Tensor, hidden: Tensor, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        found: Tensor = where(hidden, value, x, allow_broadcast_all_sources=True).copy_transpose(x.dims)
        return found
    raw: torch.Tensor = x.raw_tensor.masked_fill(arranged(hidden.raw_tensor, hidden.dims, x.dims), value)
    return x._like(raw)
