"""`dot_attention`: values weighted by how well their keys fit a query."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

import returnn_lite.ops.attention as ops_attention
import returnn_lite.ops.dropout as ops_dropout
from returnn_lite.frontend.defaults import att_dropout_broadcast_default
from returnn_lite.frontend.dim import Dim, Dims
from returnn_lite.frontend.dim_sizes import as_torch
from returnn_lite.frontend.dropout import dropout
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged, axis_of
from returnn_lite.frontend.reduce import lowest
from returnn_lite.frontend.run_ctx import get_run_ctx
from returnn_lite.frontend.tensor import Tensor


def dot_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    key_dim: Dim,
    axis: Dim,
    att_dropout: float = 0.0,
    att_dropout_broadcast: bool | None = None,
    causal_query_spatial_dim: Dim | None = None,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale · query · keys) · values, the softmax over `axis` without its padding (Vaswani et al., 2017).

    scale: by default key_dim^-0.5. causal_query_spatial_dim: axis of the query, whose position i sees keys up to i.
    Axes: those of the query, then further ones of the values; `axis` may be in the query, too.
    """
    plan = Plan(query, keys, values, key_dim, axis, causal_query_spatial_dim)
    factor = key_dim.padded_size() ** -0.5 if scale is None else float(scale)
    return attend(plan, query, keys, values, factor, att_dropout, att_dropout_broadcast)


def attend(
    plan: Plan,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    factor: float,
    att_dropout: float,
    broadcast: bool | None,
    seen: Tensor | None = None,
) -> Tensor:
    """`dot_attention` by a plan; `seen`: which keys a query sees, too."""
    q, k, v = plan.arrange(query, keys, values)
    drop = rate_now(att_dropout)
    if seen is None and plan.only_causal():
        mask, causal = None, True
    else:
        mask, causal = plan.mask(q.device, seen), False
    if drop and (att_dropout_broadcast_default() if broadcast is None else broadcast):
        mask = plan.mask(q.device, seen)
        energies = q @ k.transpose(-1, -2)
        least = lowest(energies.dtype) / max(factor, 1.0)  # no NaN without any keys
        weights = ops_attention.masked_softmax(energies, mask, lowest=least, scale=factor)
        found = dropped_weights(weights, drop, True) @ v
    else:
        lead = q.shape[:-2]
        flat = len(lead) > 2 and mask is None and lead == k.shape[:-2] == v.shape[:-2]
        if flat:  # torch's fast ways know two axes in front
            q, k, v = (x.flatten(0, -4) for x in (q, k, v))
        found = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=drop, is_causal=causal, scale=factor
        )
        if flat:
            found = found.unflatten(0, lead[:-1])
    return plan.result(found, query, values)


def rate_now(att_dropout: float) -> float:
    """The rate of the dropout of weights; 0 where this is no training."""
    return att_dropout if att_dropout and get_run_ctx().is_train_flag_enabled(func=dropout) else 0.0


def dropped_weights(weights: torch.Tensor, drop: float, broadcast: bool) -> torch.Tensor:
    """Weights after dropout; `broadcast`: with the same numbers for all queries. Shape: (…, queries, keys)"""
    if not drop:
        return weights
    if not broadcast:
        return functional.dropout(weights, drop)
    shape = (1,) * (weights.dim() - 1) + weights.shape[-1:]
    return weights * ops_dropout.dropout_mask(weights, shape, drop, None)


class Plan:
    """Which axes of query, keys and values go along with each other.

    batch: axes of the keys or values that the query has, too; lent: those that it lacks; own: the rest of the query
    (`axis` as one of queries among them); of_values: the rest of the values.
    """

    def __init__(
        self, query: Tensor, keys: Tensor, values: Tensor, key_dim: Dim, axis: Dim, causal: Dim | None
    ) -> None:
        axis_of(keys.dims, axis, f"dot_attention: the keys {keys}")
        axis_of(values.dims, axis, f"dot_attention: the values {values}")
        axis_of(query.dims, key_dim, f"dot_attention: the query {query}")
        self.axis, self.key_dim, self.causal = axis, key_dim, causal
        in_query = tuple(dim for dim in query.dims if dim != key_dim)
        in_keys = tuple(dim for dim in keys.dims if dim not in (axis, key_dim))
        rest = tuple(dim for dim in values.dims if dim != axis)
        self.own = tuple(dim for dim in in_query if dim == axis or (dim not in in_keys and dim not in rest))
        self.batch = tuple(dim for dim in in_query if dim not in self.own)
        self.lent = tuple(dim for dim in in_keys if dim not in self.batch)
        front = (*self.lent, *self.batch)
        self.front: Dims = front
        self.of_values = tuple(dim for dim in rest if dim not in front)
        if causal is not None:
            axis_of(query.dims, causal, f"dot_attention: the query {query}")

    def arrange(self, query: Tensor, keys: Tensor, values: Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Shape: (*front, queries, key), (*front, keys, key), (*front, keys, values)"""
        n, front = len(self.front), self.front
        q = arranged(query.raw_tensor, query.dims, (*front, *self.own, self.key_dim))
        if len(self.own) != 1:
            q = q.flatten(n, q.dim() - 2) if self.own else q.unsqueeze(-2)
        k = arranged(keys.raw_tensor, keys.dims, (*front, self.axis, self.key_dim))
        v = arranged(values.raw_tensor, values.dims, (*front, self.axis, *self.of_values))
        if len(self.of_values) != 1:
            v = v.flatten(n + 1) if self.of_values else v.unsqueeze(-1)
        return q, k, v

    def only_causal(self) -> bool:
        """Whether the mask is the triangle of a square, which needs no data."""
        return self.causal is not None and self.own == (self.causal,) and self._square() and not has_padding(self.axis)

    def _square(self) -> bool:
        return self.causal is not None and self.causal.padded_size() == self.axis.padded_size() > 1

    def mask(self, device: torch.device, seen: Tensor | None = None) -> torch.Tensor | None:
        """Which keys a query sees, broadcastable. Shape: (*front, queries, keys); None if all. Made once per batch."""
        key = ("attention mask", self.front, self.own, self.causal, device)
        found: torch.Tensor | None = self.axis.extent().memo(key, lambda: (self._mask(device),))[0]
        if seen is not None:
            order = (*self.front, *self.own, self.axis)
            raw = self._queries_as_one(arranged(seen.raw_tensor, seen.dims, order))
            found = raw if found is None else found & raw
        return found

    def _mask(self, device: torch.device) -> torch.Tensor | None:
        found = self._valid(device)
        if self.causal is not None:
            order = (*self.front, *self.own, self.axis)
            size, keys = self.causal.padded_size(), self.axis.padded_size()
            shape = [1] * len(order)
            shape[order.index(self.causal)], shape[-1] = size, keys
            frames = torch.arange(max(size, keys), device=device)
            seen = (frames[:keys] <= frames[:size].unsqueeze(-1)).reshape(shape)
            found = seen if found is None else found & seen
        return None if found is None else self._queries_as_one(found)

    def _queries_as_one(self, mask: torch.Tensor) -> torch.Tensor:
        """Shape: (*front, *own, keys) -> (*front, queries, keys)"""
        n = len(self.front)
        if not self.own:
            return mask.unsqueeze(-2)
        if len(self.own) == 1:
            return mask
        if any(size != 1 for size in mask.shape[n:-1]):
            mask = mask.expand(*mask.shape[:n], *(dim.padded_size() for dim in self.own), -1)
        return mask.flatten(n, n + len(self.own) - 1)

    def _valid(self, device: torch.device) -> torch.Tensor | None:
        """The keys that are no padding. Shape: (*front, *own, keys)"""
        if not has_padding(self.axis):
            return None
        order = (*self.front, *self.own, self.axis)
        mask = self.axis.get_mask(device=device)
        if any(dim not in order for dim in mask.dims):
            raise WrongUse(f"dot_attention: neither query nor keys have the axes of the sizes of {self.axis}")
        if self.axis not in self.own:
            found: torch.Tensor = arranged(mask.raw_tensor, mask.dims, order)
            return found
        # The axis of the keys is the last of the two.
        found = arranged(mask.raw_tensor, mask.dims, (*self.front, *self._others(), self.axis))
        return found.unsqueeze(len(self.front) + self.own.index(self.axis))

    def _others(self) -> Dims:
        return tuple(dim for dim in self.own if dim != self.axis)

    def result(self, raw: torch.Tensor, query: Tensor, values: Tensor) -> Tensor:
        """The values of each query with their axes."""
        n = len(self.front)
        if not self.own:
            raw = raw.squeeze(n)
        elif len(self.own) > 1:
            raw = raw.unflatten(n, [_size(query, dim) for dim in self.own])
        if not self.of_values:
            raw = raw.squeeze(-1)
        elif len(self.of_values) > 1:
            raw = raw.unflatten(-1, [_size(values, dim) for dim in self.of_values])
        have = (*self.front, *self.own, *self.of_values)
        wanted = (*(dim for dim in query.dims if dim != self.key_dim), *self.lent, *self.of_values)
        feature = values.feature_dim
        at = len(wanted) - len(self.of_values) + self.of_values.index(feature) if feature in self.of_values else None
        return values._new(arranged(raw, have, wanted), wanted, feature_axis=at, name="attention")


def _size(x: Tensor, dim: Dim) -> int:
    size: int = x.raw_tensor.shape[x.dims.index(dim)]
    return size


def has_padding(axis: Dim) -> bool:
    """Whether any sequence is shorter than the axis. Sizes are on the CPU: nothing is waited for."""
    if not axis.need_masking():
        return False
    sizes = as_torch(axis.get_size_tensor())
    if sizes.device.type != "cpu":
        return True

    def compute() -> tuple[bool, Any]:
        return bool((sizes < axis.padded_size()).any()), None

    found: bool = axis.extent().memo("has padding", compute)[0]
    return found
