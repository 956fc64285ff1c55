"""Self-attention by relative positions (Dai et al. 2019; Shaw et al. 2018)."""

from __future__ import annotations

from typing import Any

import torch

import returnn_lite.ops.attention as ops_attention
import returnn_lite.ops.positions as ops_positions
from returnn_lite.frontend import init
from returnn_lite.frontend.causal_attention import CausalSelfAttention, History
from returnn_lite.frontend.dim import Dim, single_step_dim
from returnn_lite.frontend.dot_attention import Plan, dropped_weights, rate_now
from returnn_lite.frontend.dropout import dropout
from returnn_lite.frontend.layout import arranged, axis_of
from returnn_lite.frontend.linear import Linear
from returnn_lite.frontend.parameter import Parameter
from returnn_lite.frontend.positions import LearnedRelativePositionalEncoding, relative_positional_encoding
from returnn_lite.frontend.reduce import lowest
from returnn_lite.frontend.self_attention import SelfAttentionBase, split_heads
from returnn_lite.frontend.tensor import Tensor


def _rel_pos_enc_shift(x: Tensor, axis: Dim, pos_emb_spatial_dim: Dim, hist_dim: Dim) -> Tensor:
    """From distances to keys: [.., T, R] -> [.., T, T'], column j of row i is j - i + T - 1; the new axis is last."""
    for dim in (axis, pos_emb_spatial_dim):
        axis_of(x.dims, dim, f"relative shift: {x}")
    rest = tuple(dim for dim in x.dims if dim not in (axis, pos_emb_spatial_dim))
    raw = ops_positions.relative_shift(arranged(x.raw_tensor, x.dims, (*rest, axis, pos_emb_spatial_dim)))
    return x._new(raw, (*rest, axis, hist_dim))


class RelPosMixin(SelfAttentionBase):
    """Scores ((q_i + u) k_j + (q_i + v) P(j - i)) / sqrt(key features), P the vector of a distance.

    Parameters: those of self-attention, `pos_bias_u` and `pos_bias_v` [heads, key features] (`with_pos_bias`),
    `linear_pos.weight` (`with_linear_pos`), `learned_pos_emb.pos_emb` (`learnable_pos_emb`; else sinusoids).
    separate_pos_emb_per_head: whether each head has a P of its own.
    """

    def __init__(
        self,
        in_dim: Dim,
        proj_dim: Dim | None,
        *,
        key_dim_total: Dim,
        value_dim_total: Dim,
        num_heads: int | Dim,
        with_bias: bool = True,
        with_linear_pos: bool = True,
        with_pos_bias: bool = True,
        learnable_pos_emb: bool = False,
        learnable_pos_emb_clipping: int = 16,
        separate_pos_emb_per_head: bool = True,
        pos_emb_dropout: float = 0.0,
        att_dropout: float = 0.1,
    ) -> None:
        super().__init__(
            in_dim,
            proj_dim,
            key_dim_total=key_dim_total,
            value_dim_total=value_dim_total,
            num_heads=num_heads,
            with_bias=with_bias,
            att_dropout=att_dropout,
        )
        self.separate_pos_emb_per_head, self.pos_emb_dropout = separate_pos_emb_per_head, pos_emb_dropout
        size = key_dim_total if separate_pos_emb_per_head else self.key_dim_per_head
        self.pos_emb_feat_dim = in_dim if with_linear_pos else size
        self.linear_pos: Any = Linear(in_dim, size, with_bias=False) if with_linear_pos else None
        self.learned_pos_emb: Any = None
        if learnable_pos_emb:
            self.learned_pos_emb = LearnedRelativePositionalEncoding(
                self.pos_emb_feat_dim, clipping=learnable_pos_emb_clipping
            )
        self.pos_bias_u: Any = None
        self.pos_bias_v: Any = None
        if with_pos_bias:
            self.pos_bias_u = Parameter((self.num_heads, self.key_dim_per_head))
            self.pos_bias_v = Parameter((self.num_heads, self.key_dim_per_head))
            self.pos_bias_u.initial = init.Glorot()
            self.pos_bias_v.initial = init.Glorot()

    _rel_shift = staticmethod(_rel_pos_enc_shift)

    def _position_vectors(self, query_axis: Dim, axis: Dim, offset: int, device: str | None) -> tuple[Tensor, Dim]:
        """The vectors P of all distances: ([R, (heads,) key features], R)."""
        if self.learned_pos_emb is not None:
            vectors, rows = self.learned_pos_emb(
                query_spatial_dim=query_axis, key_value_spatial_dim=axis, query_offset=offset
            )
        else:
            vectors, rows = relative_positional_encoding(
                query_spatial_dim=query_axis,
                key_value_spatial_dim=axis,
                feat_dim=self.pos_emb_feat_dim,
                query_offset=offset,
                device=device,
            )
        if self.pos_emb_dropout:
            vectors = dropout(vectors, self.pos_emb_dropout)
        if self.linear_pos is not None:
            vectors = self.linear_pos(vectors)
        if self.separate_pos_emb_per_head:
            (vectors,) = split_heads(vectors, self.key_dim_total, self.num_heads, [self.key_dim_per_head])
        return vectors, rows

    def _rel_attend(self, q: Tensor, query_axis: Dim, history: History, causal: Dim | None) -> Tensor:
        """The values of all heads, weighted."""
        size, axis, values = self.key_dim_per_head, history.axis, history.values
        plan = Plan(q, history.keys, values, size, axis, causal)
        raw_q, raw_k, raw_v = plan.arrange(q, history.keys, values)
        dims = (*plan.front, size)
        u, v = raw_q, raw_q
        if self.pos_bias_u is not None:
            u, v = (
                raw_q + x.copy_compatible_to_dims_raw(dims).unsqueeze(-2) for x in (self.pos_bias_u, self.pos_bias_v)
            )
        by_position = self._position_energies(v, plan, query_axis, history, q)
        lead = by_position.shape[:-2]
        factor = size.padded_size() ** -0.5
        scores = torch.baddbmm(
            by_position.flatten(0, -3),
            u.expand(*lead, -1, -1).flatten(0, -3),
            raw_k.expand(*lead, -1, -1).flatten(0, -3).transpose(-1, -2),
            beta=factor,
            alpha=factor,
        ).unflatten(0, lead)
        mask = plan.mask(scores.device, history.seen(query_axis, scores.device))
        weights = ops_attention.masked_softmax(scores, mask, lowest=lowest(scores.dtype))  # no NaN without any keys
        weights = dropped_weights(weights, rate_now(self.att_dropout), self.att_dropout_broadcast)
        return plan.result(weights @ raw_v, q, values)

    def _position_energies(
        self, raw_q: torch.Tensor, plan: Plan, query_axis: Dim, history: History, q: Tensor
    ) -> torch.Tensor:
        """The products of queries and the vectors of the distances to all keys. Shape: (*front, queries, keys)"""
        size, axis = self.key_dim_per_head, history.axis
        if history.same_for_all():
            offset = history.past.padded_size() if history.past is not None and not history.step else 0
            vectors, rows = self._position_vectors(query_axis, axis, offset, q.device)
            raw = arranged(vectors.raw_tensor, vectors.dims, (*plan.front, rows, size))
            energies = raw_q @ raw.transpose(-1, -2)
            return energies if history.step else ops_positions.relative_shift(energies)
        vectors, rows = self._position_vectors(axis, axis, 0, q.device)
        raw = arranged(vectors.raw_tensor, vectors.dims, (*plan.front, rows, size))
        energies = raw_q @ raw.transpose(-1, -2)
        first, dims = history.offset(raw_q.device)
        queries = first.unsqueeze(-1) + torch.arange(raw_q.shape[-2], device=raw_q.device)
        keys = torch.arange(axis.padded_size(), device=raw_q.device)
        index = keys - queries.unsqueeze(-1) + keys.shape[0] - 1
        index = arranged(index.clamp(min=0), (*dims, query_axis, axis), (*plan.front, query_axis, axis))
        found: torch.Tensor = energies.gather(-1, index.expand(*energies.shape[:-1], -1))
        return found


class RelPosSelfAttention(RelPosMixin):
    """Each frame sees all frames, also by their distances; options as of `RelPosMixin`."""

    def __call__(self, source: Tensor, *, axis: Dim) -> Tensor:
        """Axes: those of the source without its features, then `out_dim`."""
        q, k, v = self.forward_qkv(source)
        return self.output(self._rel_attend(q, axis, History(k, v, axis, None, False), None))


class RelPosCausalSelfAttention(RelPosMixin, CausalSelfAttention):
    """`RelPosSelfAttention` to the past only; called as `CausalSelfAttention`."""

    def _attend(self, q: Tensor, axis: Dim, history: History) -> Tensor:
        causal = axis if history.past is None and axis != single_step_dim else None
        return self._rel_attend(q, axis, history, causal)
