"""`self_attention`: every frame attends to the frames of its own sequence, in several heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from returnn_lite.config.option_types import PositiveInt, Rate
from returnn_lite.layers.core.base import LayerRef
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.stateful import LoopConstants, LoopStart, State, Stateful, Tick
from returnn_lite.layers.relative_position import RelativeRows
from returnn_lite.ops.attention import attention
from returnn_lite.ops.linear import linear
from returnn_lite.tensor import Dim, Spec, Tensor

_KEPT = ("keep_over_epoch", "keep_over_epoch_no_init")


@layer("self_attention")
class SelfAttention(Stateful):
    """softmax(q k^T / sqrt(key dim per head)) v per head (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762).

    Shape: (B, T, F) -> (B, T, n_out); in a loop (B, F) -> (B, n_out). Frames after the sequence end are not attended
    to; with `attention_left_only` (needed in loops) no later frame is. `key_shift` (T, T, key dim per head): added to
    the keys, by query. `attention_dropout`: on the weights. `initial_state` "keep_over_epoch": keys and values of the
    previous batches come first; with `restrict_state_to_last_seq` only those of the last one. Parameter: `QKV`
    (F, 2 total_key_dim + n_out); its columns are q, k, v of the first head, then of the second …
    """

    recurrent = True

    def __init__(
        self,
        *,
        n_out: PositiveInt | None = None,
        num_heads: PositiveInt,
        total_key_dim: PositiveInt,
        key_shift: LayerRef | None = None,
        forward_weights_init: Any = "glorot_uniform",
        attention_dropout: Rate = 0.0,
        attention_left_only: bool = False,
        initial_state: Any = None,
        restrict_state_to_last_seq: bool = False,
        state_var_lengths: None = None,
    ) -> None:
        super().__init__()
        self.n_out = n_out
        self.num_heads = num_heads
        self.key_dim, rest = divmod(total_key_dim, num_heads)
        if rest:
            text = f"`total_key_dim` must be divisible by `num_heads` ({num_heads})"
            raise self.error(f"{text}, but is {total_key_dim} instead")
        if initial_state not in (None, 0, "zeros", *_KEPT):
            known = ", ".join(_KEPT)
            raise self.error(f"`initial_state` must be None or one of {known}, but is {initial_state!r} instead")
        if state_var_lengths is not None:
            raise self.error("`state_var_lengths` must be None: it only applies to compiled graphs")
        if not 0 <= attention_dropout < 1:
            raise self.error(f"`attention_dropout` must be in [0, 1), but is {attention_dropout} instead")
        self.key_shift = key_shift
        self.weights_init = forward_weights_init
        self.dropout = float(attention_dropout)
        self.left_only = attention_left_only
        self.initial_state = initial_state
        self.last_only = restrict_state_to_last_seq
        self.kept: State | None = None
        self.kept_epoch: int | None = None

    @property
    def differs_by_step(self) -> str:
        """Keys and values may be kept over batches."""
        return "keeps its state over batches" if self.initial_state in _KEPT else ""

    # --- axes and parameters ------------------------------------------------------------------------------------------

    def _values_size(self) -> int:
        """Size of the values of all heads."""
        size = self.n_out or getattr(self.options.out_dim, "size", None)
        if size is None or size % self.num_heads:
            raise self.error(f"`n_out` must be divisible by `num_heads` ({self.num_heads}), but is {size} instead")
        return int(size)

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """Batch in front, time and features last."""
        if x is None:
            return None
        if x.sparse or x.feature is None:
            raise self.error(f"the source must be dense, but is {x} instead")
        shift = refs.get("key_shift")
        if shift is not None and shift.dim != self.key_dim:
            raise self.error(f"`key_shift` must have {self.key_dim} features (one head), but has {shift.dim} instead")
        return x.permuted(self._order(x)).with_feature(self.feature_dim(self._values_size(), x))

    @staticmethod
    def _order(x: Spec) -> tuple[int, ...]:
        """Loop axes, batch, others, time, features."""
        last = [i for i in (x.time, x.feature) if i is not None]
        front = x.order(*([x.batch] if x.batch is not None else []))
        return (*(i for i in front if i not in last), *last)

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """`QKV`."""
        self._values_size()
        columns = self.num_heads * 2 * self.key_dim + self._values_size()
        self.QKV = self.param("QKV", (sources[0].dim or 0, columns), self.weights_init)

    # --- all frames ---------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """All frames of the time axis."""
        time = x.spec.time_dim
        if time is None:
            raise self.error(f"the source needs a time axis outside of loops, but is {x.spec}")
        x = x.permuted(self._order(x.spec))
        valid = None if self.left_only or not time.dynamic else x.length(time).mask(x.data.shape[-2], with_first=True)
        data = self._attended(x.data, x.spec.rank - 2, valid, refs.get("key_shift"), x.spec.batch)
        return x.with_data(data, self.spec(x.spec))

    def over(self, dim: Dim, sources: list[Tensor], refs: dict[str, Tensor]) -> Tensor:
        """All ticks of a loop: its axis is the time axis."""
        x = self.run_input(sources)
        x = x.permuted(self._order(x.spec))
        at, batch = x.spec.dims.index(dim), x.spec.batch
        valid = None
        if not self.left_only and dim in x.lengths:
            valid = x.length(dim).mask(x.data.shape[at], with_first=True)
        batch = None if batch is None else batch - (at < batch)
        data = self._attended(x.data, at, valid, refs.get("key_shift"), batch)
        return x.with_data(data, self.spec(x.spec))

    def _attended(
        self, x: torch.Tensor, at: int, valid: torch.Tensor | None, shift: Tensor | None, batch: int | None
    ) -> torch.Tensor:
        """The attention over the axis `at` of x, whose features are last.

        `valid`: bool (B, T), of the frames; the first one is. `batch`: the batch axis among those besides `at`.
        """
        queries, keys, values = self._projected(x, at)
        rest = queries.shape[:-3]
        before = self._kept_state(rest)
        self._keep(before, keys, values)
        if before is not None:
            keys, values = torch.cat([before["k_left"], keys], -2), torch.cat([before["v_left"], values], -2)
        mask = self._mask(rest, valid, keys.shape[-2], batch)
        return self._merged(self._attention(queries, keys, values, mask, shift, causal=self.left_only), at)

    def _projected(self, x: torch.Tensor, at: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values of the heads.  Shape: (…, F), T at `at` -> (…, heads, T, key or value dim)"""
        qkv = linear(x, self.QKV.t()).unflatten(-1, (self.num_heads, -1)).movedim(at, -2)
        queries, keys, values = qkv.split([self.key_dim, self.key_dim, qkv.shape[-1] - 2 * self.key_dim], -1)
        return queries, keys, values

    def _mask(
        self, rest: tuple[int, ...], valid: torch.Tensor | None, keys: int, batch: int | None
    ) -> torch.Tensor | None:
        """Bool, broadcastable to the energies (…, heads, T, keys): the keys that are seen; all those before frame 0.

        rest: the sizes of the axes in front of the heads.
        """
        if valid is None:
            return None
        frames = valid.shape[-1]
        shape = [n if i == batch and valid.dim() > 1 else 1 for i, n in enumerate(rest)]
        seen = valid.reshape(*shape, 1, 1, frames)
        return seen if keys == frames else F.pad(seen, (keys - frames, 0), value=True)

    def _attention(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor | None,
        shift: Tensor | None,
        *,
        causal: bool = False,
    ) -> torch.Tensor:
        """The weighted values.  Shape: (…, heads, Q, key dim), … -> (…, heads, Q, value dim)"""
        scale, bias = self.key_dim**-0.5, None
        if shift is not None:
            queries, scale = queries * scale, 1.0
            bias = _shifts(queries, shift)
        return attention(
            queries,
            keys,
            values,
            mask=mask,
            causal=causal,
            bias=bias,
            scale=scale,
            lowest=-float(self.context.config.float("inf_value", float("inf"))),
            dropout=self.dropout if self.training else 0.0,
            generator=self.context.generator,
        )

    def _merged(self, heads: torch.Tensor, at: int) -> torch.Tensor:
        """(…, heads, T, value dim) -> (…, n_out), T at `at`"""
        return heads.movedim(-2, at).flatten(-2)

    # --- tick by tick -------------------------------------------------------------------------------------------------

    def first_state(self, make: LoopStart, refs: Mapping[str, Tensor]) -> State:
        """No frames yet, or those of the previous batch."""
        if not self.left_only:
            raise self.error("`attention_left_only` must be True inside a loop, but is False instead")
        kept = self._kept_state((make.batch,))
        if kept is not None:
            return kept
        sizes = {"k_left": self.key_dim, "v_left": self._values_size() // self.num_heads}
        shape = (make.batch, self.num_heads, 0)
        return {k: torch.zeros(*shape, n, dtype=self.QKV.dtype, device=make.device) for k, n in sizes.items()}

    def step(self, constants: LoopConstants, sources: list[Tensor], state: State, tick: Tick) -> tuple[Tensor, State]:
        """The present frame as query; it joins the keys and values."""
        x = self.run_input(sources)
        x = x.permuted(self._order(x.spec))
        at = x.spec.rank - 1
        queries, keys, values = self._projected(x.data.unsqueeze(at), at)
        new = {"k_left": torch.cat([state["k_left"], keys], -2), "v_left": torch.cat([state["v_left"], values], -2)}
        mask = None
        if "seen" in state:
            new["seen"] = F.pad(state["seen"], (0, 1), value=True)
            mask = new["seen"][:, None, None, :]
        shift = tick.refs.get("key_shift")
        if self.initial_state in _KEPT:
            frames = tick.number + 1 if self.last_only else new["k_left"].shape[2]
            self.kept = {k: v[:, :, -frames:].detach() for k, v in new.items()}
            self.kept_epoch = self.context.epoch
        out = self._merged(self._attention(queries, new["k_left"], new["v_left"], mask, shift), at).squeeze(at)
        return x.with_data(out, self.spec(x.spec)), new

    def merged_state(self, keep: torch.Tensor, new: State, old: State) -> State:
        """The frame stays among the keys, but where it does not count no later query sees it."""
        before = new["k_left"].shape[2] - 1
        seen = old["seen"] if "seen" in old else torch.ones(keep.shape[0], before, dtype=torch.bool, device=keep.device)
        return {**new, "seen": torch.cat([seen, keep.unsqueeze(1)], 1)}

    # --- kept over batches --------------------------------------------------------------------------------------------

    def _kept_state(self, batch: tuple[int, ...]) -> State | None:
        """Keys and values of the previous batches; none at the start of an epoch."""
        if self.initial_state not in _KEPT or self.kept is None:
            return None
        if self.initial_state == _KEPT[0] and self.kept_epoch != self.context.epoch:
            return None
        if self.kept["k_left"].shape[: len(batch)] != torch.Size(batch):
            raise self.error("a state kept over batches needs batches of one size")
        return self.kept

    def _keep(self, before: State | None, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Notes keys and values for the next batch, if asked to."""
        if self.initial_state not in _KEPT:
            return
        new = {"k_left": keys.detach(), "v_left": values.detach()}
        if before is not None and not self.last_only:
            new = {k: torch.cat([before[k], v], -2) for k, v in new.items()}
        self.kept, self.kept_epoch = new, self.context.epoch


def _shifts(queries: torch.Tensor, shift: Tensor) -> torch.Tensor:
    """What `key_shift` adds to the energies.  Shape: (…, Q, key dim), (Q, keys, key dim) -> (…, Q, keys)"""
    if isinstance(shift, RelativeRows):
        return shift.energies(queries)
    rows = shift.data if shift.spec.rank == 3 else shift.data.squeeze(1)  # in front: the axis of a loop, one query each
    return torch.einsum("...qd,qkd->...qk", queries, rows)
