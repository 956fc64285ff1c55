"""The tensor helpers that configs import, or use in eval strings: where_bc, safe_log, nd_indices, …"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from returnn_lite.compat.tf import control, maths, shapes
from returnn_lite.compat.tf.values import Context, as_tensor, pair, to_axes, to_dtype, to_int, to_ints, wrap_like
from returnn_lite.layers.activations import safe_log
from returnn_lite.layers.core.init import initializer
from returnn_lite.ops.ctc import collapse_repeated
from returnn_lite.ops.gradients import reported_as
from returnn_lite.ops.resampling import pad
from returnn_lite.ops.windows import sliding

# --- selecting --------------------------------------------------------------------------------------------------------


def where_bc(condition: Any, x: Any, y: Any) -> Tensor:
    """x where the condition holds, else y, with axes of size 1 repeated. Ranks must agree, but for numbers."""
    condition = as_tensor(condition, torch.bool)
    x, y = pair(x, y)
    ranks = {part.dim() for part in (condition, x, y) if part.dim()}
    if len(ranks) > 1:
        sizes = [tuple(part.size()) for part in (condition, x, y)]
        raise ValueError(f"where_bc: the number of axes must agree, but the shapes are {sizes} instead")
    return torch.where(condition, x, y)


def nd_indices(indices: Any, batch_axis: int = 0, indices_batch_major: bool | None = None) -> Tensor:
    """Pairs (position in the batch, index) for gather_nd. Shape: (B, …) -> (B, …, 2)

    `batch_axis` is that of what is gathered from: 1 (or `indices_batch_major` False) gives pairs the other way round.
    """
    index = as_tensor(indices)
    if indices_batch_major is not None:
        batch_axis = 0 if indices_batch_major else 1
    batch = torch.arange(index.size(0), dtype=index.dtype, device=index.device)
    batch = batch.reshape([-1] + [1] * (index.dim() - 1)).expand(index.size())
    return torch.stack([batch, index] if batch_axis == 0 else [index, batch], -1)


def slice_nd(x: Any, start: Any, size: Any) -> Tensor:
    """`size` frames from `start` of each sequence, 0 outside. Shape: (B, T, …), (B,) -> (B, size, …)"""
    x = as_tensor(x)
    index = as_tensor(start).to(x.device, torch.int64)[:, None] + torch.arange(to_int(size), device=x.device)
    inside = (index >= 0) & (index < x.size(1))
    batch = torch.arange(x.size(0), device=x.device)[:, None]
    picked = x[batch, index.clamp(0, max(x.size(1) - 1, 0))]
    return torch.where(inside.reshape([*inside.size()] + [1] * (x.dim() - 2)), picked, torch.zeros_like(picked))


def single_strided_slice(x: Any, axis: int, begin: Any = None, end: Any = None, step: Any = None) -> Tensor:
    """x[begin:end:step] along an axis."""
    x = as_tensor(x)
    bounds = [None if bound is None else to_int(bound) for bound in (begin, end, step)]
    return x[(slice(None),) * (axis % x.dim()) + (slice(*bounds),)]


def filter_ended_scores(x: Any, end_flags: Any) -> Tensor:
    """Scores of what may follow; where a hypothesis has ended, only label 0, at no cost. Shape: (N, V), (N,) -> same"""
    x = as_tensor(x)
    ended = torch.full_like(x[:1], -1e30)
    ended[:, 0] = 0.0
    return torch.where(as_tensor(end_flags, torch.bool)[:, None], ended, x)


# --- shapes -----------------------------------------------------------------------------------------------------------


def get_shape(x: Any) -> list[int]:
    """The sizes of all axes."""
    return list(as_tensor(x).size())


def get_shape_dim(x: Any, axis: int) -> int:
    """The size of an axis."""
    return as_tensor(x).size(axis)


def expand_dims_unbroadcast(x: Any, axis: int, dim: Any) -> Tensor:
    """A new axis of size dim, all entries the same."""
    x = as_tensor(x).unsqueeze(to_int(axis))
    sizes = list(x.size())
    sizes[axis] = to_int(dim)
    return x.expand(sizes)


def expand_multiple_dims(x: Any, axes: Any) -> Tensor:
    """New axes of size 1; `axes` are positions in the result."""
    x = as_tensor(x)
    rank = x.dim() + len(axes)
    for axis in sorted(to_axes(axes, rank)):
        x = x.unsqueeze(axis)
    return x


def dimshuffle(x: Any, axes: Any) -> Tensor:
    """The axes in this order; "x" is a new one of size 1. Axes left out must have size 1."""
    x = as_tensor(x)
    kept = [axis for axis in axes if axis != "x"]
    left_out = [axis for axis in range(x.dim()) if axis not in kept]
    for axis in left_out:
        if x.size(axis) != 1:
            raise ValueError(f"dimshuffle: axis {axis} of {tuple(x.size())} cannot be left out")
    x = x.permute([*kept, *left_out]).flatten(len(kept) - 1) if kept and left_out else x.permute([*kept, *left_out])
    for position, axis in enumerate(axes):
        if axis == "x":
            x = x.unsqueeze(position)
    return x


def move_axis(x: Any, old_axis: int, new_axis: int) -> Tensor:
    """One axis to another place."""
    return as_tensor(x).movedim(old_axis, new_axis)


def swapaxes(x: Any, axis1: int, axis2: int) -> Tensor:
    """Two axes exchanged."""
    return as_tensor(x).swapaxes(axis1, axis2)


def tile_transposed(x: Any, axis: int, multiples: Any) -> Tensor:
    """Each entry of the axis several times in a row."""
    return as_tensor(x).repeat_interleave(to_int(multiples), dim=axis)


def pad_replicate(x: Any, axes: Any, padding: Any) -> Tensor:
    """Repeats the first and the last entry of each axis (before, after) times."""
    x = as_tensor(x)
    for axis, (before, after) in zip(to_axes(axes, x.dim()), padding, strict=True):
        x = pad(x, axis, before, after, "replication")
    return x


def windowed_nd(
    x: Any,
    window_size: int,
    window_left: int | None = None,
    window_right: int | None = None,
    padding: str = "same",
    time_axis: int = 1,
    new_window_axis: int = 2,
    stride: int = 1,
) -> Tensor:
    """The frames around each frame (0 outside) on a new axis. Shape: (B, T, …) -> (B, T, window, …)"""
    x, size = as_tensor(x), to_int(window_size)
    if window_left is None:
        window_left = size - 1 - window_right if window_right is not None else (size - 1) // 2
    right = size - 1 - window_left
    margins = (window_left, right) if padding.lower() == "same" else (0, 0)
    return sliding(x, time_axis, size, stride, margins).movedim(-1, new_window_axis)


# --- sequences --------------------------------------------------------------------------------------------------------


def sequence_mask_time_major(lengths: Any, maxlen: Any = None, dtype: Any = torch.bool) -> Tensor:
    """Shape: (B,) -> (T, B)"""
    return shapes.sequence_mask(lengths, maxlen, dtype).T


def flatten_with_seq_len_mask(
    x: Any,
    seq_lens: Any,
    batch_dim_axis: int | None = None,
    time_dim_axis: int | None = None,
    time_major: bool | None = None,
) -> Tensor:
    """All valid frames, sequence after sequence. Shape: (B, T, …) or (T, B, …), (B,) -> (frames, …)"""
    x = as_tensor(x)
    if time_major is not None:
        batch_dim_axis, time_dim_axis = (1, 0) if time_major else (0, 1)
    if batch_dim_axis is None or time_dim_axis is None:
        raise TypeError("flatten_with_seq_len_mask needs `batch_dim_axis` and `time_dim_axis`, or `time_major`")
    x = x.movedim((batch_dim_axis, time_dim_axis), (0, 1))
    return x[shapes.sequence_mask(seq_lens, x.size(1)).to(x.device)]


def batched_uniq(x: Any, seq_lens: Any) -> tuple[Tensor, Tensor]:
    """Equal neighbours merged, 0 after the end. Shape: (B, T), (B,) -> (B, T'), (B,) int32"""
    x = as_tensor(x)
    return collapse_repeated(x, as_tensor(seq_lens))


class SparseLabels(NamedTuple):
    """Labels of a batch without padding: (batch, position) pairs, the labels, and the shape."""

    indices: Tensor
    values: Tensor
    dense_shape: Tensor


def sparse_labels(x: Any, seq_lens: Any, dtype: Any = torch.int32, collapse_repeated: bool = False) -> SparseLabels:
    """Shape: (B, T), (B,) -> all valid labels."""
    labels, lens = as_tensor(x), as_tensor(seq_lens)
    if collapse_repeated:
        labels, lens = batched_uniq(labels, lens)
    mask = shapes.sequence_mask(lens, labels.size(1)).to(labels.device)
    return SparseLabels(mask.nonzero(), labels[mask].to(to_dtype(dtype)), torch.tensor(labels.size()))


def get_linear_alignment_out_to_in_indices(input_lens: Any, output_lens: Any, pad_value: int = 0) -> Tensor:
    """Where the outputs sit if they are spread evenly over the inputs. Shape: (B,), (B,) -> (B, U) int32"""
    inputs, outputs = as_tensor(input_lens), as_tensor(output_lens)
    position = torch.arange(int(outputs.max()), device=outputs.device)
    step = (inputs + 1).float() / (outputs + 1).float()
    frame = torch.round((position + 1) * step[:, None]).to(torch.int32) - 1
    frame = torch.minimum(frame.clamp(min=0), (inputs[:, None] - 1).clamp(min=0).to(torch.int32))
    return torch.where(position < outputs[:, None], frame, pad_value)


def get_rnnt_linear_aligned_output(
    input_lens: Any,
    targets: Any,
    target_lens: Any,
    blank_label_idx: int,
    pad_value: int = 0,
    targets_consume_time: bool = False,
) -> tuple[Tensor, Tensor]:
    """Targets spread evenly, blank elsewhere. Shape: (B,), (B, U), (B,) -> (B, T) int32, (B,) lengths

    One frame per input and label, or per input only with `targets_consume_time` (labels beyond the end are dropped).
    """
    inputs, labels, lens = as_tensor(input_lens), as_tensor(targets), as_tensor(target_lens)
    lengths = inputs if targets_consume_time else inputs + lens
    frame = get_linear_alignment_out_to_in_indices(torch.maximum(lengths, lens), lens, pad_value=-1)
    longest = int(lengths.max())
    valid = (frame >= 0) & (frame < lengths[:, None])
    # What does not count goes to one column more, which is cut off.
    place = torch.where(valid, frame, longest).long()
    blank = labels.new_full((len(lengths), longest + 1), blank_label_idx)
    aligned = blank.scatter(1, place, labels[:, : place.size(1)])[:, :longest]
    return torch.where(shapes.sequence_mask(lengths, longest), aligned, pad_value).to(torch.int32), lengths


# --- numbers ----------------------------------------------------------------------------------------------------------


def maximum_with_identity_grad(x: Any, y: Any) -> Tensor:
    """max(x, y) with the gradient of x."""
    x, y = pair(x, y)
    return reported_as(torch.maximum(x, y), x)


def minimum_with_identity_grad(x: Any, y: Any) -> Tensor:
    """min(x, y) with the gradient of x."""
    x, y = pair(x, y)
    return reported_as(torch.minimum(x, y), x)


def clip_by_value_with_identity_grad(x: Any, clip_value_min: Any, clip_value_max: Any) -> Tensor:
    """x within bounds, with the gradient of x."""
    x = as_tensor(x)
    return reported_as(maths.clip_by_value(x, clip_value_min, clip_value_max), x)


def safe_exp(x: Any, eps: float = 1e-20) -> Tensor:
    """e^x with x in [log eps, -log eps], gradient as without the bounds; exact if x is directly a logarithm."""
    x = as_tensor(x)
    exact = getattr(x, "exact_exp", None)
    if exact is not None:
        made: Tensor = exact()
        return made
    return torch.exp(clip_by_value_with_identity_grad(x, math.log(eps), -math.log(eps)))


def dot(a: Any, b: Any, transpose_b: bool = False) -> Tensor:
    """Over the last axis of a and the first (with `transpose_b` the last) of b."""
    a, b = pair(a, b)
    made: Tensor = torch.tensordot(a, b, dims=([a.dim() - 1], [b.dim() - 1 if transpose_b else 0]))
    return made


def to_int32_64(x: Any) -> Tensor:
    """int32 and int64 as they are, smaller ints as int32."""
    x = as_tensor(x)
    return x if x.dtype in (torch.int32, torch.int64) else x.to(torch.int32)


def matrix_triangular(shape: Any, dtype: Any = torch.float32, lower: bool = False, upper: bool = False) -> Tensor:
    """Ones in the lower or upper triangle with the diagonal, else 0."""
    if lower == upper:
        raise ValueError("matrix_triangular: exactly one of `lower` and `upper` must be True")
    ones = torch.ones(to_ints(shape))
    return (ones.tril() if lower else ones.triu()).to(to_dtype(dtype))


# --- checks -----------------------------------------------------------------------------------------------------------


def check_input_dim(x: Any, axis: int, dim: Any) -> Tensor:
    """x; ValueError if the axis has another size."""
    if as_tensor(x).size(axis) != int(dim):
        raise ValueError(f"axis {axis} must have size {int(dim)}, but the shape is {tuple(x.size())} instead")
    made: Tensor = x
    return made


def check_input_ndim(x: Any, ndim: int) -> Tensor:
    """x; ValueError if it has another number of axes."""
    if as_tensor(x).dim() != ndim:
        raise ValueError(f"there must be {ndim} axes, but the shape is {tuple(x.size())} instead")
    made: Tensor = x
    return made


def check_dim_equal(x: Any, x_axis: int, y: Any, y_axis: int) -> Tensor:
    """x; ValueError if the two axes differ in size."""
    return check_input_dim(x, x_axis, as_tensor(y).size(y_axis))


def check_shape_equal(x: Any, y: Any) -> Tensor:
    """x; ValueError if the shapes differ."""
    if as_tensor(x).size() != as_tensor(y).size():
        raise ValueError(f"the shapes must be equal, but are {tuple(x.size())} and {tuple(y.size())} instead")
    made: Tensor = x
    return made


# --- what depends on the run ------------------------------------------------------------------------------------------


def dropout(
    context: Context,
    x: Any,
    keep_prob: float,
    noise_shape: Any = None,
    seed: Any = None,
    cond_on_train: bool = False,
    apply_correction_factor: bool = True,
) -> Tensor:
    """Each entry is 0 with probability 1 - keep_prob. In `noise_shape` 1 = one decision for the axis, None = each."""
    x = as_tensor(x)
    if not 0 < keep_prob <= 1:
        raise ValueError(f"`keep_prob` must be in (0, 1], but is {keep_prob} instead")
    if keep_prob == 1 or (cond_on_train and not context.train):
        return x
    sizes = [*x.size()] if noise_shape is None else [
        own if wanted is None else to_int(wanted) for own, wanted in zip(x.size(), noise_shape, strict=True)
    ]  # fmt: skip
    device = x.device if context.generator is None else context.generator.device
    keep = torch.rand(sizes, device=device, generator=context.generator).to(x.device) < keep_prob
    return x * keep / keep_prob if apply_correction_factor else x * keep


def get_initializer(spec: Any, context: Context | None = None, **options: Any) -> Callable[..., Tensor]:
    """The function (shape, dtype) -> initial values."""
    init = initializer(spec)
    generator = None if context is None else context.generator

    def call(shape: Any, dtype: Any = torch.float32, **unused: Any) -> Tensor:
        return init(to_ints(shape), generator or torch.default_generator, to_dtype(dtype))

    return call


def all_functions(context: Context) -> dict[str, Any]:
    """The helpers by name."""
    own = [
        where_bc, nd_indices, slice_nd, single_strided_slice, filter_ended_scores, get_shape, get_shape_dim,
        expand_dims_unbroadcast, expand_multiple_dims, dimshuffle, move_axis, swapaxes, tile_transposed, pad_replicate,
        windowed_nd, sequence_mask_time_major, flatten_with_seq_len_mask, batched_uniq, sparse_labels,
        get_linear_alignment_out_to_in_indices, get_rnnt_linear_aligned_output, maximum_with_identity_grad,
        minimum_with_identity_grad, clip_by_value_with_identity_grad, safe_exp, dot, to_int32_64, matrix_triangular,
        check_input_dim, check_input_ndim, check_dim_equal, check_shape_equal,
    ]  # fmt: skip
    return {function.__name__: function for function in own} | {
        "safe_log": lambda x, *args, **kwargs: safe_log(as_tensor(x), *args, **kwargs),
        "log_sigmoid": maths.log_sigmoid,
        "sequence_mask": shapes.sequence_mask,
        "identity": shapes.identity,
        "cond": control.cond,
        "dropout": functools.partial(dropout, context),
        "get_initializer": functools.partial(get_initializer, context=context),
        "get_global_train_flag": lambda: wrap_like(torch.tensor(context.train)),
    }
