"""Functions along an axis: softmax, sums so far, statistics, gates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from returnn_lite.frontend.binary import squared_difference
from returnn_lite.frontend.concat import split
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.elementwise import copy_to_device, identity, sigmoid
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import axis_of
from returnn_lite.frontend.masks import padding_mask
from returnn_lite.frontend.reduce import reduce_mean
from returnn_lite.frontend.sizes import num_elements_of_shape
from returnn_lite.frontend.tensor import Tensor, TensorLike
from returnn_lite.frontend.where import where
from returnn_lite.running_config import running_config

NEGATIVE_INFINITY = float("-inf")


def _masked(x: Tensor, axis: Dim, use_mask: bool) -> torch.Tensor:
    """The data with the padding of an axis at minus infinity (or the option `inf_value`)."""
    mask = padding_mask(x, [axis], strict=True) if use_mask else None
    if mask is None:
        raw: torch.Tensor = x.raw_tensor
        return raw
    config = running_config()
    value = NEGATIVE_INFINITY if config is None else -abs(config.float("inf_value", float("inf")))
    return torch.where(mask, x.raw_tensor, value)


def softmax(x: Tensor, *, axis: Dim, use_mask: bool = True) -> Tensor:
    """The exponentials of an axis, normalized to the sum 1; padding gets 0."""
    at = axis_of(x.dims, axis, x)
    return x._like(_masked(x, axis, use_mask).softmax(at))


def log_softmax(x: Tensor, *, axis: Dim, use_mask: bool = True) -> Tensor:
    """The logarithm of `softmax`; padding gets -inf."""
    at = axis_of(x.dims, axis, x)
    return x._like(_masked(x, axis, use_mask).log_softmax(at))


def cumsum(source: Tensor, *, spatial_dim: Dim) -> Tensor:
    """At each frame the sum up to it."""
    if source.dtype == "bool":
        raise WrongUse(f"cumsum of {source}: cast it to a number type first")
    raw = source.raw_tensor
    return source._like(raw.cumsum(axis_of(source.dims, spatial_dim, source), dtype=raw.dtype))


def gating(
    x: Tensor,
    *,
    axis: Dim | None = None,
    gate_func: Callable[[Tensor], Tensor] = sigmoid,
    act_func: Callable[[Tensor], Tensor] = identity,
    out_dim: Dim | None = None,
) -> tuple[Tensor, Dim]:
    """act(first half) · gate(second half) of the feature axis (or `axis`): (tensor, half the axis)."""
    dim = axis if axis is not None else x.feature_dim
    if dim is None or dim.dimension is None or dim.dimension % 2:
        raise WrongUse(f"gating of {x}: {dim or 'the feature axis'} must be an axis of an even, fixed size")
    half = out_dim if out_dim is not None else dim.div_left(2)
    first, second = split(x, axis=dim, out_dims=[half, half])
    return act_func(first) * gate_func(second), half


def moments(
    x: Tensor,
    axis: Dim | Sequence[Dim],
    *,
    use_mask: bool = True,
    correction: TensorLike = 0,
    distributed: bool = False,
) -> tuple[Tensor, Tensor]:
    """(mean, variance) over axes, without padding; the variance is divided by n - correction.

    use_mask=False: the squared distances from the mean, which is that of the valid entries, are averaged with padding.
    """
    if distributed:
        raise WrongUse("moments: `distributed` is not supported; reduce the sums with rf.reduce_sum(distributed=True)")
    mean = reduce_mean(x, axis=axis)
    variance = reduce_mean(squared_difference(x, defined(mean, axis)), axis=axis, use_mask=use_mask)
    if not isinstance(correction, int) or correction != 0:
        count: Any = num_elements_of_shape(axis, use_mask=use_mask, device=x.device)
        variance = variance * (count / (count - correction))
    return mean, variance


def defined(mean: Tensor, axis: Dim | Sequence[Dim]) -> Tensor:
    """A mean over axes, with 0 for NaN where all entries are padding, so that there are gradients beside that."""
    dims = (axis,) if isinstance(axis, Dim) else tuple(axis)
    if not any(dim.need_masking() for dim in dims):
        return mean
    count = num_elements_of_shape(dims)
    if bool((count.raw_tensor > 0).all()):
        return mean
    return where(copy_to_device(count > 0, mean.device), mean, 0.0)
