"""Entries put to positions of another axis, and combined where several meet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from returnn_lite.behavior_version import BehaviorVersion
from returnn_lite.errors import did_you_mean
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged, axis_of
from returnn_lite.frontend.masks import padding_mask
from returnn_lite.frontend.reduce import highest, lowest
from returnn_lite.frontend.sizes import use_mask_default
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.frontend.types import Operand, Option
from returnn_lite.running_config import running_config

_MODES = ("sum", "max", "min", "mean", "logsumexp", "logmeanexp", "argmax")


def scatter(
    source: Tensor,
    *,
    indices: Tensor,
    indices_dim: Dim | Sequence[Dim],
    mode: str = "sum",
    fill_value: Operand = None,
    out_dim: Dim | Sequence[Dim] | None = None,
    use_mask: bool | None = None,
) -> Tensor:
    """The entries along `indices_dim` written to the positions `indices` of `out_dim` (by default their sparse axis).

    Axes: those of `indices` but `indices_dim`, then `out_dim` (several: the positions are those of their product), then
    the others of `source`. mode: how entries that meet are combined: sum, max, min, mean, logsumexp, logmeanexp,
    argmax (then `fill_value` is what stands where there is nothing). fill_value: where nothing is put; by default 0 for
    sums, the lowest or highest number for max and min. use_mask: whether padding is left out.
    """
    if mode not in _MODES:
        raise WrongUse(
            f"`mode` must be one of {', '.join(_MODES)}, but is {mode!r} instead{did_you_mean(mode, _MODES)}"
        )
    if mode == "argmax":
        if fill_value is None:
            raise WrongUse('scatter with mode="argmax" must have a `fill_value`')
        return scatter_argmax(
            source, indices=indices, indices_dim=indices_dim, invalid_idx=fill_value, out_dim=out_dim, use_mask=use_mask
        )
    plan = _Plan(source, indices, indices_dim, out_dim, use_mask)
    values = plan.values(source, _padding_value(mode, source.raw_tensor.dtype, fill_value))
    raw = _combined(values, plan, mode)
    default = _untouched(mode, raw.dtype)
    if fill_value is not None and fill_value != default:
        raw = torch.where(plan.count().reshape(-1, *[1] * (raw.dim() - 1)) > 0, raw, fill_value)
    return plan.result(source, raw, mode)


class _Plan:
    """Where each entry goes. `index` int (batch, N): the position in (batch, size of out), flattened."""

    def __init__(self, source: Tensor, indices: Tensor, indices_dim: Any, out_dim: Any, use_mask: bool | None) -> None:
        in_dims = (indices_dim,) if isinstance(indices_dim, Dim) else tuple(indices_dim)
        out = out_dim if out_dim is not None else indices.sparse_dim
        if out is None:
            raise WrongUse(f"scatter to {indices}: `out_dim` must be given, as the indices have no sparse axis")
        self.out: tuple[Dim, ...] = (out,) if isinstance(out, Dim) else tuple(out)
        for dim in in_dims:
            axis_of(indices.dims, dim, indices)
        self.batch = tuple(dim for dim in indices.dims if dim not in in_dims)
        self.in_dims = in_dims
        self.rest = tuple(dim for dim in source.dims if dim not in indices.dims)
        self.sizes = [dim.padded_size() for dim in self.out]
        total = math.prod(self.sizes)
        dims = (*self.batch, *in_dims)
        ragged = any(dim.need_masking() for dim in (*dims, *self.out))
        default = use_mask_default(default=True, default_false_for_behavior_version_up_to=22, func_name="scatter")
        self.use_mask = ragged and bool(default if use_mask is None else use_mask)
        raw = arranged(indices.raw_tensor, indices.dims, dims)
        plain = indices._new(raw, dims)
        self.mask = padding_mask(plain, dims) if self.use_mask else None
        raw = raw.long() if self.mask is None else torch.where(self.mask, raw.long(), 0)
        if not raw.is_cuda and raw.numel() and not (0 <= int(raw.min()) and int(raw.max()) < total):
            raise WrongUse(f"scatter: the indices must be below {total}, but are {int(raw.min())} to {int(raw.max())}")
        self.shape = tuple(raw.shape)
        self.batch_shape = raw.shape[: len(self.batch)]
        flat = raw.reshape(math.prod(self.batch_shape), math.prod(raw.shape[len(self.batch) :]))
        self.index = (flat + torch.arange(flat.shape[0], device=raw.device).unsqueeze(-1) * total).flatten()
        self.places = flat.shape[0] * total

    def values(self, source: Tensor, neutral: Any) -> torch.Tensor:
        """The entries in order of `index`, padding replaced. Shape: (batch · N, *rest)"""
        dims = (*self.batch, *self.in_dims, *self.rest)
        raw = arranged(source.raw_tensor, source.dims, dims)
        raw = raw.expand(*self.shape, *raw.shape[len(self.shape) :])
        if self.mask is not None:
            raw = torch.where(self.mask.reshape(*self.mask.shape, *[1] * len(self.rest)), raw, neutral)
        return raw.reshape(-1, *raw.shape[len(self.shape) :])

    def count(self) -> torch.Tensor:
        """The number of entries that meet at each place; int32 (places,)."""
        ones = torch.ones(self.shape, dtype=torch.int32, device=self.index.device)
        if self.mask is not None:
            ones = torch.where(self.mask, ones, 0)
        return ones.new_zeros(self.places).index_add_(0, self.index, ones.flatten())

    def result(self, source: Tensor, raw: torch.Tensor, mode: str, sparse: Dim | None = None) -> Tensor:
        """The combined entries with their axes."""
        dims = (*self.batch, *self.out, *self.rest)
        raw = raw.reshape(*self.batch_shape, *self.sizes, *raw.shape[1:])
        found = source._new(raw, dims, sparse_dim=source.sparse_dim if sparse is None else sparse, name="scatter")
        if self.use_mask and mode != "sum" and any(dim.need_masking() for dim in self.out):
            return found.copy_masked(0, dims=self.out)
        return found


def _untouched(mode: str, dtype: torch.dtype) -> Any:
    if mode in ("sum", "mean"):
        return 0
    if mode in ("logsumexp", "logmeanexp"):
        return -math.inf
    if dtype.is_floating_point:
        return -math.inf if mode == "max" else math.inf
    return lowest(dtype) if mode == "max" else highest(dtype)


def _padding_value(mode: str, dtype: torch.dtype, fill_value: Any) -> Any:
    """What padding is replaced by: what changes nothing, but up to behavior version 24 the `fill_value`."""
    config = running_config()
    fixed = BehaviorVersion.get() >= 25
    if config is not None and config.has("rf_scatter_use_fixed_masking"):
        fixed = config.bool("rf_scatter_use_fixed_masking", fixed)
    return _untouched(mode, dtype) if fixed or fill_value is None else fill_value


def _combined(values: torch.Tensor, plan: _Plan, mode: str) -> torch.Tensor:
    """Shape: values (batch · N, *rest) -> (places, *rest)"""
    if mode in ("max", "min"):
        return _extreme(values, plan, mode)
    if mode in ("logsumexp", "logmeanexp"):
        top = _extreme(values.detach(), plan, "max").clamp(min=lowest(values.dtype))
        total = _sum((values - top.index_select(0, plan.index)).exp(), plan)
        found = total.log() + top
    else:
        found = _sum(values, plan)
    if mode in ("mean", "logmeanexp"):
        count = plan.count().clamp(min=1).reshape(-1, *[1] * (values.dim() - 1)).to(values.dtype)
        return found / count if mode == "mean" else found - count.log()
    return found


def _sum(values: torch.Tensor, plan: _Plan) -> torch.Tensor:
    return values.new_zeros(plan.places, *values.shape[1:]).index_add(0, plan.index, values)


def _extreme(values: torch.Tensor, plan: _Plan, mode: str) -> torch.Tensor:
    start = values.new_full((plan.places, *values.shape[1:]), _untouched(mode, values.dtype))
    index = plan.index.reshape(-1, *[1] * (values.dim() - 1)).expand_as(values)
    return start.scatter_reduce(0, index, values, "amax" if mode == "max" else "amin", include_self=True)


def scatter_argmax(
    source: Tensor,
    *,
    indices: Tensor,
    indices_dim: Dim | Sequence[Dim],
    invalid_idx: int = -1,
    out_dim: Dim | Sequence[Dim] | None = None,
    use_mask: bool | None = None,
) -> Tensor:
    """The position on `indices_dim` of the first of the largest entries; `invalid_idx` where there is none."""
    plan = _Plan(source, indices, indices_dim, out_dim, use_mask)
    if len(plan.in_dims) != 1:
        raise WrongUse(f"scatter_argmax by {indices}: `indices_dim` must be one axis")
    values = plan.values(source, _untouched("max", source.raw_tensor.dtype))
    best = _extreme(values, plan, "max").index_select(0, plan.index)
    size = plan.shape[-1]
    position = torch.arange(size, device=values.device).expand(plan.shape)
    if plan.mask is not None:
        position = torch.where(plan.mask, position, size)
    position = position.reshape(-1, *[1] * (values.dim() - 1))
    first = _extreme(torch.where(values == best, position, size), plan, "min")
    raw = torch.where(first < size, first, invalid_idx).to(indices.raw_tensor.dtype)
    return plan.result(source, raw, "argmax", sparse=plan.in_dims[0])


def scatter_logsumexp(source: Tensor, **options: Option) -> Tensor:
    """`scatter` with the mode "logsumexp"."""
    return scatter(source, mode="logsumexp", **options)


def scatter_logmeanexp(source: Tensor, **options: Option) -> Tensor:
    """`scatter` with the mode "logmeanexp"."""
    return scatter(source, mode="logmeanexp", **options)


def scatter_count(
    *,
    indices: Tensor,
    indices_dim: Dim | Sequence[Dim],
    out_dim: Dim | Sequence[Dim] | None = None,
    fill_value: Operand = None,
    use_mask: bool | None = None,
) -> Tensor:
    """How often each position occurs among the indices: int32."""
    ones = Tensor._new(torch.ones_like(indices.raw_tensor, dtype=torch.int32), indices.dims)
    return scatter(
        ones, indices=indices, indices_dim=indices_dim, out_dim=out_dim, fill_value=fill_value, use_mask=use_mask
    )
