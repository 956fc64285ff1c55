"""Label sequences: distances, greedy decoding of CTC, durations on a path."""

from __future__ import annotations

from typing import Any

import torch

import returnn_lite.ops.edit_distance as ops_edit_distance
from returnn_lite.frontend import dtypes
from returnn_lite.frontend.binary import logical_and
from returnn_lite.frontend.dim import Dim, Dims
from returnn_lite.frontend.dim_sizes import as_torch
from returnn_lite.frontend.elementwise import cast
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.frames import shift_right
from returnn_lite.frontend.layout import arranged, axis_of, joined
from returnn_lite.frontend.masked import masked_select
from returnn_lite.frontend.reduce import reduce_argmax
from returnn_lite.frontend.sizes import sequence_mask
from returnn_lite.frontend.tensor import Tensor


def edit_distance(a: Tensor, a_spatial_dim: Dim, b: Tensor, b_spatial_dim: Dim, *, dtype: str = "int32") -> Tensor:
    """The least number of insertions, deletions and substitutions that make one sequence of the other."""
    others = joined(_others(a, a_spatial_dim), _others(b, b_spatial_dim))
    sizes = [_sizes(dim, others, a.raw_tensor.device) for dim in (a_spatial_dim, b_spatial_dim)]
    shape = [dim.padded_size() for dim in others]
    rows = [
        arranged(x.raw_tensor, x.dims, (*others, dim)).expand(*shape, -1).reshape(-1, dim.padded_size())
        for x, dim in ((a, a_spatial_dim), (b, b_spatial_dim))
    ]
    lengths = [size.expand(shape).reshape(-1) for size in sizes]
    found = ops_edit_distance.edit_distance(rows[0], lengths[0], rows[1], lengths[1])
    return a._new(found.to(dtypes.torch_dtype(dtype)).reshape(shape), others, name="edit_distance")


def _others(x: Tensor, dim: Dim) -> Dims:
    at = axis_of(x.dims, dim, x)
    if dim.is_static():
        raise WrongUse(f"edit_distance of {x}: axis {dim} must have sizes")
    return x.dims[:at] + x.dims[at + 1 :]


def _sizes(dim: Dim, dims: Dims, device: Any) -> torch.Tensor:
    sizes = dim.get_dyn_size_ext_for_device(device)
    found: torch.Tensor = arranged(as_torch(sizes), sizes.dims, dims)
    return found


def ctc_greedy_decode(
    logits: Tensor,
    *,
    in_spatial_dim: Dim,
    blank_index: int,
    out_spatial_dim: Dim | None = None,
    target_dim: Dim | None = None,
    wb_target_dim: Dim | None = None,
) -> tuple[Tensor, Dim]:
    """The best class of each frame without repetitions and blanks: (int32 labels, their axis).

    target_dim: the classes without the blank, which must be the one after them; by default with it.
    """
    classes = wb_target_dim if wb_target_dim is not None else logits.feature_dim
    if classes is None:
        raise WrongUse(f"ctc_greedy_decode of {logits}: `wb_target_dim` must be given, as there is no feature axis")
    if target_dim is not None and target_dim.dimension != blank_index:
        text = f"`target_dim` {target_dim.short_repr()} must have the size {blank_index} of `blank_index`"
        raise WrongUse(f"ctc_greedy_decode of {logits}: {text}")
    best = cast(reduce_argmax(logits, axis=classes), "int32")
    before = shift_right(best, axis=in_spatial_dim, pad_value=blank_index)
    keep = logical_and(best != before, best != blank_index)
    labels, out = masked_select(
        best, mask=_ordered(keep, in_spatial_dim), dims=[in_spatial_dim], out_dim=out_spatial_dim
    )
    labels.sparse_dim = target_dim if target_dim is not None else classes
    return labels, out


def _ordered(mask: Tensor, dim: Dim) -> Tensor:
    """The mask without the padding of its axis."""
    valid = sequence_mask([dim], device=mask.raw_tensor.device)
    return logical_and(mask, valid) if valid.dims else mask


def ctc_durations_from_path(
    *,
    path: Tensor,
    path_spatial_dim: Dim,
    blank_index: int,
    targets_spatial_dim: Dim | None = None,
    out_spatial_dim: Dim | None = None,
    check_dims: bool = True,
    stop_on_failed_check: bool = True,
) -> tuple[Tensor, Dim]:
    """The frames of each state on a path, blank, label, blank … blank: (int32 durations, axis of size 2N + 1)."""
    others = tuple(dim for dim in path.dims if dim != path_spatial_dim)
    labels = arranged(path.raw_tensor, path.dims, (*others, path_spatial_dim)).long()
    frames = torch.arange(labels.shape[-1], device=labels.device)
    valid = frames < (
        _sizes(path_spatial_dim, others, labels.device).unsqueeze(-1)
        if path_spatial_dim.need_masking()
        else path_spatial_dim.padded_size()
    )
    blank = labels == blank_index
    before = torch.cat([torch.full_like(labels[..., :1], blank_index), labels[..., :-1]], -1)
    starts = (~blank & (labels != before)).long()
    number = starts.cumsum(-1)  # labels so far, this one included
    state = torch.where(blank, 2 * number, 2 * number - 1)
    counts = torch.where(valid, starts, 0).sum(-1)
    # A blank at the end of a sequence goes on as long as the blanks behind it do.
    counted = valid | ((blank | valid).cumprod(-1).bool() & blank & _last_is(blank, valid))
    state = torch.where(valid, state, 2 * counts.unsqueeze(-1))
    out = _duration_axis(counts, others, path, targets_spatial_dim, out_spatial_dim)
    size = out.padded_size()
    durations = torch.zeros(
        *labels.shape[:-1], max(size, int(state.max()) + 1 if state.numel() else 1), device=labels.device
    )
    durations = durations.int().scatter_add(-1, state, counted.int().expand_as(state))
    return path._new(durations[..., :size], (*others, out), name="durations"), out


def _last_is(condition: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Whether something holds in the last valid frame. Shape: (…, T), (…, T) bool -> (…, 1)"""
    last = (valid.expand_as(condition).sum(-1, keepdim=True) - 1).clamp(min=0)
    return condition.gather(-1, last)


def _duration_axis(counts: torch.Tensor, others: Dims, path: Tensor, targets: Dim | None, out: Dim | None) -> Dim:
    if targets is not None:
        found = 2 * targets + 1
        if out is not None:
            out.declare_same_as(found)
        return found if out is None else out
    sizes = path._new((2 * counts + 1).cpu(), others, name="durations")
    if out is None:
        return Dim(sizes, name="durations")
    if not out.is_dim_known_in_batch():
        out.dyn_size_ext = sizes
    return out
