"""Attention: who sees whom, weights out of energies, weighted values."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from returnn_lite.ops.kernels import on_gpu
from returnn_lite.ops.random import drawing_from
from returnn_lite.ops.tanh import tanh


def causal_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    """True up to the own frame of each query; the queries are the last ones of the frames.  -> (queries, keys) bool"""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril_(keys - queries)


def masked_softmax(energies: Tensor, valid: Tensor | None, *, lowest: float = -math.inf, scale: float = 1.0) -> Tensor:
    """Softmax over the last axis of energies, `lowest` where not valid, times `scale`.

    Shape: (…, K), broadcastable bool -> (…, K)
    """
    return torch.softmax(_masked(energies, valid, lowest, scale), -1)


def masked_log_softmax(
    energies: Tensor, valid: Tensor | None, *, lowest: float = -math.inf, scale: float = 1.0
) -> Tensor:
    """The logarithm of `masked_softmax`.  Shape: (…, K), broadcastable bool -> (…, K)"""
    return torch.log_softmax(_masked(energies, valid, lowest, scale), -1)


def _masked(energies: Tensor, valid: Tensor | None, lowest: float, scale: float) -> Tensor:
    if valid is not None:
        energies = torch.where(valid, energies, lowest)
    return energies if scale == 1.0 else energies * scale


def attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    bias: Tensor | None = None,
    lowest: float = -math.inf,
    scale: float = 1.0,
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """softmax(scale q k' + bias) v (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762).

    Shape: (…, Q, D), (…, K, D), (…, K, V) -> (…, Q, V). `mask` (…, Q, K) bool: the keys that a query sees; `causal`:
    those of `causal_mask` instead. `bias` (…, Q, K): added to the energies. `lowest`: the energy of what is not seen.
    `dropout`: rate for the weights; their random numbers are `generator`'s, on a GPU drawn inside of the one call.
    """
    whole = causal and 1 < queries.shape[-2] == keys.shape[-2] and bias is None
    if causal and not whole:
        mask = causal_mask(queries.shape[-2], keys.shape[-2], queries.device)
    if lowest == -math.inf and (dropout == 0 or on_gpu(queries)):
        if bias is not None:
            mask = bias if mask is None else bias.masked_fill(~mask, -math.inf)
        with drawing_from(generator if dropout else None):
            return F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=mask, dropout_p=dropout, is_causal=whole, scale=scale
            )
    if whole:
        mask = causal_mask(queries.shape[-2], keys.shape[-2], queries.device)
    energies = queries @ keys.transpose(-1, -2)
    if scale != 1.0:
        energies = energies * scale
    if bias is not None:
        energies = energies + bias
    weights = masked_softmax(energies, mask, lowest=lowest)
    if dropout > 0:
        kept = torch.empty_like(weights).bernoulli_(1 - dropout, generator=generator)
        weights = weights * kept.mul_(1 / (1 - dropout))
    return weights @ values


def dot_energies(context: Tensor, query: Tensor) -> Tensor:
    """Inner products.  Shape: (…, T, D), (…, D) -> (…, T)"""
    return torch.einsum("...td,...d->...t", context, query)


def additive_energies(context: Tensor, query: Tensor, v: Tensor) -> Tensor:
    """<v, tanh(context + query)> (Bahdanau et al. 2014, https://arxiv.org/abs/1409.0473).

    Shape: (…, T, D), (…, 1, D), (D,) -> (…, T)
    """
    return tanh(context + query) @ v


def weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """The values summed over an axis, each times its weight.  Shape: (…, T), (…, T, V) -> (…, V)"""
    return torch.einsum("...t,...tv->...v", weights, values)


def gauss_window(locations: Tensor, size: int, std: float) -> tuple[Tensor, Tensor]:
    """A normal density at the `size` frames around each location; the weights do not sum to 1.

    Shape: any -> weights, positions int64 (…, size). Locations and `std` in frames.
    """
    first = locations.detach().round() - size // 2
    positions = first.unsqueeze(-1) + torch.arange(size, device=locations.device)
    distance = (locations.unsqueeze(-1) - positions) / std
    return torch.exp(-0.5 * distance.square()) / (std * math.sqrt(2 * math.pi)), positions.long()


def frames_at(x: Tensor, positions: Tensor, lengths: Tensor | None = None) -> Tensor:
    """The frames at these positions; those outside of a sequence count as its first or last one.

    Shape: (B, T, V), (…, B, P) int64, (B,) -> (…, B, P, V)
    """
    batch, frames, size = x.shape
    rows = torch.arange(batch, device=x.device).unsqueeze(1)
    ends = torch.as_tensor(frames, device=x.device) if lengths is None else lengths.unsqueeze(1)
    index = rows * frames + torch.minimum(positions.clamp(min=0), (ends - 1).clamp(min=0))
    return x.reshape(-1, size).index_select(0, index.flatten()).reshape(*index.shape, size)
