"""Self-attention to the past, over whole sequences, frame by frame, or after a prefix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from returnn_lite.frontend.concat import concat, cum_concat_step
from returnn_lite.frontend.const import zeros
from returnn_lite.frontend.dim import Dim, Dims, single_step_dim
from returnn_lite.frontend.dim_sizes import as_torch
from returnn_lite.frontend.dot_attention import Plan, attend, has_padding
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.positions import rotary_encoding
from returnn_lite.frontend.self_attention import SelfAttentionBase, _apply_rope
from returnn_lite.frontend.state import State
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.frontend.tensor_base import checked_dims


class CausalSelfAttentionState(State):
    """Keys `k_accum` and values `v_accum` of all frames so far, over `accum_axis`."""

    def __init__(self, *args: Any, k_accum: Any = None, v_accum: Any = None, accum_axis: Any = None) -> None:
        super().__init__(*args)
        if not args:
            self.k_accum, self.v_accum, self.accum_axis = k_accum, v_accum, accum_axis


class History(NamedTuple):
    """The frames so far. `past`: the axis of those before this call; None without any. `axis`: that of all.

    `step`: whether the query is one frame without an axis.
    """

    keys: Tensor
    values: Tensor
    axis: Dim
    past: Dim | None
    step: bool

    def offset(self, device: torch.device) -> tuple[torch.Tensor, Dims]:
        """The position of the first query. Shape: axes of the sizes, and these axes"""
        if self.past is None:
            return torch.zeros((), dtype=torch.int64, device=device), ()
        sizes = self.past.get_size_tensor()
        return as_torch(sizes).to(device), sizes.dims

    def same_for_all(self) -> bool:
        """Whether the first query has the same position in all sequences."""
        return self.past is None or not has_padding(self.past)

    def seen(self, query_axis: Dim, device: torch.device) -> Tensor | None:
        """Which frames a frame of the query sees, behind a prefix. Shape: [sizes' axes …, query, keys]"""
        if self.past is None or self.step:
            return None
        first, dims = self.offset(device)
        queries = torch.arange(query_axis.padded_size(), device=device) + first.unsqueeze(-1)
        keys = torch.arange(self.axis.padded_size(), device=device)
        return Tensor._new(keys <= queries.unsqueeze(-1), (*dims, query_axis, self.axis))


def history_of(k: Tensor, v: Tensor, axis: Dim, state: State | None, what: str) -> History:
    """The frames of the state and the new ones. WrongUse for a single step without a state."""
    if axis == single_step_dim:
        if state is None:
            raise WrongUse(f"{what}: a single step needs a `state`, at first that of `default_initial_state`")
        past = state.accum_axis
        accum = past + 1
        keys, values = (_appended(x, before, past, accum) for x, before in ((k, state.k_accum), (v, state.v_accum)))
        return History(keys, values, accum, past, True)
    if state is None or state.accum_axis.padded_size() == 0:
        return History(k, v, axis, None, False)
    past = state.accum_axis
    keys, accum = concat((state.k_accum, past), (k, axis), allow_broadcast=True)
    values, _ = concat((state.v_accum, past), (v, axis), allow_broadcast=True, out_dim=accum)
    return History(keys, values, accum, past, False)


def _appended(x: Tensor, before: Tensor, past: Dim, accum: Dim) -> Tensor:
    """One frame behind the others."""
    at = before.dims.index(past)
    front, behind = before.dims[:at], before.dims[at + 1 :]
    if past.need_masking() or x.dims != (*front, *behind):
        return cum_concat_step(x, prev_accum=before, axis=past, out_spatial_dim=accum)[0]
    raw = torch.cat([before.raw_tensor, x.raw_tensor.unsqueeze(at)], at)
    return x._new(raw, (*front, accum, *behind))


class CausalSelfAttention(SelfAttentionBase):
    """Each frame sees itself and those before it (Vaswani et al., 2017)."""

    def __call__(
        self, source: Tensor, axis: Dim, *, state: State | None = None
    ) -> tuple[Tensor, CausalSelfAttentionState]:
        """(tensor, new state). Axes: those of the source without its features, then `out_dim`.

        axis: `single_step_dim` for one frame, which needs the state of those before; with a state, other axes go on
        behind it.
        """
        q, k, v = self.forward_qkv(source)
        history = history_of(k, v, axis, state, type(self).__name__)
        found = self._attend(q, axis, history)
        new = CausalSelfAttentionState(k_accum=history.keys, v_accum=history.values, accum_axis=history.axis)
        return self.output(found), new

    def _attend(self, q: Tensor, axis: Dim, history: History) -> Tensor:
        return self._weighted(q, history.keys, axis, history)

    def _weighted(self, q: Tensor, k: Tensor, axis: Dim, history: History) -> Tensor:
        causal = axis if history.past is None and not history.step else None
        plan = Plan(q, k, history.values, self.key_dim_per_head, history.axis, causal)
        factor = self.key_dim_per_head.padded_size() ** -0.5
        seen = history.seen(axis, q.raw_tensor.device)
        drop = self.att_dropout
        return attend(plan, q, k, history.values, factor, drop, self.att_dropout_broadcast, seen)

    def default_initial_state(self, *, batch_dims: Sequence[Dim]) -> CausalSelfAttentionState:
        """No frames."""
        axis = Dim(0, name="self-att-history")
        dims = (*checked_dims(batch_dims, "default_initial_state"), axis, self.num_heads)
        return CausalSelfAttentionState(
            k_accum=zeros((*dims, self.key_dim_per_head)),
            v_accum=zeros((*dims, self.value_dim_per_head)),
            accum_axis=axis,
        )


class RotaryPosCausalSelfAttention(CausalSelfAttention):
    """Query and key are rotated by their position (Su et al., 2021). The state has keys that are not turned."""

    def _attend(self, q: Tensor, axis: Dim, history: History) -> Tensor:
        size = self.key_dim_per_head
        encoding = rotary_encoding(history.axis, feat_dim=size, device=q.device)
        k = _apply_rope(history.keys, encoding, size)
        if history.past is not None:
            encoding = rotary_encoding(_positions(axis, history, q.raw_tensor.device), feat_dim=size)
        return self._weighted(_apply_rope(q, encoding, size), k, axis, history)


def _positions(axis: Dim, history: History, device: torch.device) -> Tensor:
    """The positions of the queries behind a prefix. Shape: [sizes' axes …, query axis], or without it for a step"""
    first, dims = history.offset(device)
    if history.step:
        return Tensor._new(first, dims)
    frames = torch.arange(axis.padded_size(), device=device)
    return Tensor._new(first.unsqueeze(-1) + frames, (*dims, axis))
