"""Self-attention, without and with rotary positions; attention to an encoder."""

from __future__ import annotations

from typing import Any

import returnn_lite.ops.positions as ops_positions
from returnn_lite.frontend import init
from returnn_lite.frontend.axes import merge_dims, split_dims
from returnn_lite.frontend.concat import split
from returnn_lite.frontend.defaults import att_dropout_broadcast_default
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.dot_attention import dot_attention
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged
from returnn_lite.frontend.linear import Linear, moved_last
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.positions import rotary_encoding
from returnn_lite.frontend.state import State
from returnn_lite.frontend.tensor import Tensor


def heads_of(total: Dim, heads: Dim, what: str) -> Dim:
    """The part of an axis for each head. WrongUse if it is not a whole number."""
    size, count = total.dimension, heads.dimension
    if not size or not count or size % count:
        raise WrongUse(f"{what}: axis {total} must be a multiple of the number of heads {heads}")
    return total.div_left(heads)


def split_heads(x: Tensor, whole: Dim, heads: Dim, parts: list[Dim]) -> tuple[Tensor, ...]:
    """An axis as heads, each with these parts one after the other. Axes of each: the others, heads, part."""
    if x.dims[-1] is not whole:
        total = sum(parts[1:], start=parts[0])
        return split(split_dims(x, axis=whole, dims=[heads, total]), axis=total, out_dims=parts)
    sizes = [part.padded_size() for part in parts]
    raw = x.raw_tensor.unflatten(-1, (heads.padded_size(), sum(sizes)))
    dims = (*x.dims[:-1], heads)
    return tuple(x._new(piece, (*dims, part)) for piece, part in zip(raw.split(sizes, -1), parts, strict=True))


def merge_heads(x: Tensor, heads: Dim, part: Dim, out_dim: Dim) -> Tensor:
    """The heads one after the other, as `out_dim`."""
    if x.dims[-1] is part and x.dims[-2] is heads:
        return x._new(x.raw_tensor.flatten(-2), (*x.dims[:-2], out_dim))
    return merge_dims(x, dims=[heads, part], out_dim=out_dim)[0]


class _Heads(Module):
    """What all kinds have: heads, and a projection of their values."""

    def _setup(
        self,
        proj_dim: Dim | None,
        key_dim_total: Dim,
        value_dim_total: Dim,
        num_heads: int | Dim,
        att_dropout: float,
        att_dropout_broadcast: bool | None,
    ) -> None:
        what = type(self).__name__
        self.key_dim_total, self.value_dim_total = key_dim_total, value_dim_total
        self.num_heads = num_heads if isinstance(num_heads, Dim) else Dim(num_heads, name="num_heads")
        self.key_dim_per_head = heads_of(key_dim_total, self.num_heads, what)
        self.value_dim_per_head = heads_of(value_dim_total, self.num_heads, what)
        self.out_dim = value_dim_total if proj_dim is None else proj_dim
        self.att_dropout = att_dropout
        broadcast = att_dropout_broadcast
        self.att_dropout_broadcast = att_dropout_broadcast_default() if broadcast is None else broadcast
        self.proj: Any

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, kv_axis: Dim, **options: Any) -> Tensor:
        """The weighted values of all heads, projected."""
        found = dot_attention(
            q,
            k,
            v,
            key_dim=self.key_dim_per_head,
            axis=kv_axis,
            att_dropout=self.att_dropout,
            att_dropout_broadcast=self.att_dropout_broadcast,
            **options,
        )
        return self.output(found)

    def output(self, values: Tensor) -> Tensor:
        """The heads' values one after the other, projected."""
        merged = merge_heads(values, self.num_heads, self.value_dim_per_head, self.value_dim_total)
        return merged if self.proj is None else self.proj(merged)


class SelfAttentionBase(_Heads):
    """Query, key and value of each frame by one product. Parameters: `qkv`, in it per head query, key, value; `proj`.

    in_dim: axis of the input. proj_dim: axis of the output; None for no projection.
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
        att_dropout: float = 0.1,
        att_dropout_broadcast: bool | None = None,
    ) -> None:
        self.in_dim = in_dim
        self._setup(proj_dim, key_dim_total, value_dim_total, num_heads, att_dropout, att_dropout_broadcast)
        self.qkv_dim_total = 2 * key_dim_total + value_dim_total
        self.qkv_dim_per_head = 2 * self.key_dim_per_head + self.value_dim_per_head
        self.qkv = Linear(in_dim, self.qkv_dim_total, with_bias=with_bias)
        self.proj = None if proj_dim is None else Linear(value_dim_total, proj_dim, with_bias=with_bias)

    def forward_qkv(self, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(query, key, value) with the axes of the source, but its features as heads and features of a head."""
        parts = [self.key_dim_per_head, self.key_dim_per_head, self.value_dim_per_head]
        q, k, v = split_heads(self.qkv(source), self.qkv_dim_total, self.num_heads, parts)
        return q, k, v


class SelfAttention(SelfAttentionBase):
    """Each frame sees all frames (Vaswani et al., 2017)."""

    def __call__(self, source: Tensor, *, axis: Dim) -> Tensor:
        """Axes: those of the source without its features, then `out_dim`."""
        q, k, v = self.forward_qkv(source)
        return self.attention(q, k, v, kv_axis=axis)


def _apply_rope(x: Tensor, pos_enc: Tensor, feat_dim: Dim) -> Tensor:
    """Each pair of neighbours turned by the angle of its position; `pos_enc` has the sines, then the cosines."""
    raw, rest = moved_last(x, feat_dim, "rotary positions")
    encoding = arranged(pos_enc.raw_tensor, pos_enc.dims, (*rest, feat_dim)).to(raw.dtype)
    found = ops_positions.rotated(raw, encoding)
    return x._new(arranged(found, (*rest, feat_dim), x.dims), x.dims, name=x.name)


_apply_rope_real = _apply_rope


class RotaryPosSelfAttention(SelfAttention):
    """Query and key are rotated by their position (Su et al., 2021)."""

    def __call__(self, source: Tensor, *, axis: Dim) -> Tensor:
        """Axes: those of the source without its features, then `out_dim`."""
        q, k, v = self.forward_qkv(source)
        encoding = rotary_encoding(axis, feat_dim=self.key_dim_per_head, device=q.device)
        q, k = (_apply_rope(x, encoding, self.key_dim_per_head) for x in (q, k))
        return self.attention(q, k, v, kv_axis=axis)


class CrossAttention(_Heads):
    """Each query sees all frames of an encoder. Parameters: `kv`, in it per head key, value; `q`; `proj`."""

    def __init__(
        self,
        encoder_dim: Dim,
        query_in_dim: Dim,
        proj_dim: Dim | None,
        *,
        key_dim_total: Dim,
        value_dim_total: Dim,
        num_heads: int | Dim,
        with_bias: bool = True,
        att_dropout: float = 0.1,
        att_dropout_broadcast: bool | None = None,
    ) -> None:
        self.encoder_dim, self.query_in_dim = encoder_dim, query_in_dim
        self._setup(proj_dim, key_dim_total, value_dim_total, num_heads, att_dropout, att_dropout_broadcast)
        self.kv_dim_total = key_dim_total + value_dim_total
        self.kv_dim_per_head = self.key_dim_per_head + self.value_dim_per_head
        self.kv = Linear(encoder_dim, self.kv_dim_total, with_bias=with_bias)
        self.kv.weight.initial = init.Glorot(scale=3 / 4)
        self.q = Linear(query_in_dim, key_dim_total, with_bias=with_bias)
        self.q.weight.initial = init.Glorot(scale=1 / 2)
        self.proj = None if proj_dim is None else Linear(value_dim_total, proj_dim, with_bias=with_bias)

    def transform_encoder(self, encoder: Tensor, *, axis: Dim) -> State:
        """What calls need of the encoder: keys `k` and values `v` over `kv_axis`."""
        k, v = self.forward_kv(encoder)
        return State(k=k, v=v, kv_axis=axis)

    def forward_kv(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """(keys, values) with the axes of the encoder, but its features as heads and features of a head."""
        parts = [self.key_dim_per_head, self.value_dim_per_head]
        k, v = split_heads(self.kv(source), self.kv_dim_total, self.num_heads, parts)
        return k, v

    def forward_query(self, source: Tensor) -> Tensor:
        """The query, its features as heads and features of a head."""
        (q,) = split_heads(self.q(source), self.key_dim_total, self.num_heads, [self.key_dim_per_head])
        return q

    def __call__(self, q: Tensor, encoder: State) -> Tensor:
        """Axes: those of the query input without its features, then `out_dim`."""
        return self.attention(self.forward_query(q), encoder.k, encoder.v, kv_axis=encoder.kv_axis)
