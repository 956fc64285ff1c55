"""Attention of one query per sequence: `dot_attention`, `concat_attention`, `gauss_window_attention`."""

from __future__ import annotations

import torch

from returnn_lite.config.option_types import PositiveFloat, PositiveInt
from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.registry import layer
from returnn_lite.ops.attention import (
    additive_energies,
    dot_energies,
    frames_at,
    gauss_window,
    masked_softmax,
    weighted_sum,
)
from returnn_lite.tensor import Dim, Spec, Tensor, batch_dim
from returnn_lite.tensor.align import joined, place
from returnn_lite.tensor.masked import mask


class StepAttention(Layer):
    """Base: a query (B, D), mostly of one tick of a loop, attends to the frames of `base` (B, T, V).  -> (B, V)"""

    base: LayerRef

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """(B, V)"""
        base, query = refs["base"], sources[0]
        if base is None:
            return None
        if base.time is None or base.feature is None:
            raise self.error(f"`base` needs a time axis and features, but is {base} instead")
        if query is not None and query.time is not None:
            raise self.error(f"the source must be one query per sequence, (B, D), but is {query} instead")
        loops = _loops(query, base)
        dims = (*loops, batch_dim, *self._inner_dims(), base.dims[base.feature])
        return Spec(dims, base.dtype, time=None, feature=len(dims) - 1, loop=frozenset(loops))

    def _inner_dims(self) -> tuple[Dim, ...]:
        """Axes of the result between batch and features."""
        return ()

    @staticmethod
    def _placed(x: Tensor, base: Tensor, loops: list[Dim]) -> torch.Tensor:
        """The data of `x` as (*loops, B, T, features); axes it lacks have size 1."""
        if x.spec.feature is None or base.spec.time_dim is None:
            raise ValueError(f"{x.spec} needs features")
        dims = (*loops, batch_dim, base.spec.time_dim, x.spec.dims[x.spec.feature])
        return place(x, Spec(dims, x.spec.dtype, feature=len(dims) - 1, loop=frozenset(loops)))


def _loops(*specs: Spec | None) -> list[Dim]:
    """The loop axes of all of them."""
    return list(dict.fromkeys(d for s in specs if s is not None for d in s.dims if d in s.loop))


class EnergyAttention(StepAttention):
    """Base of those that compare the query with `base_ctx` (B, T, D): softmax of energies, without the padding."""

    def __init__(self, *, base: LayerRef, base_ctx: LayerRef) -> None:
        super().__init__()
        self.base = base
        self.base_ctx = base_ctx

    def energies(self, context: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """(…, B, T, D), (…, B, 1, D) -> (…, B, T)"""
        raise NotImplementedError

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The weighted frames of `base`."""
        query, base, context = sources[0], refs["base"], refs["base_ctx"]
        if query.spec.dim != context.spec.dim:
            raise self.error(f"the source must have the {context.spec.dim} features of `base_ctx`, but is {query.spec}")
        loops = _loops(query.spec, base.spec, context.spec)
        values = self._placed(base, base, loops)
        energies = self.energies(self._placed(context, base, loops), self._placed(query, base, loops))
        frames = Spec((*loops, batch_dim, base.spec.time_dim or batch_dim), loop=frozenset(loops), feature=None)
        valid = mask(Tensor(energies, frames, base.lengths), len(loops) + 1)
        out = weighted_sum(masked_softmax(energies, valid), values)
        return joined(out, self.spec(query.spec, base=base.spec) or frames, [query, base])


@layer("dot_attention")
class DotAttention(EnergyAttention):
    """Weights softmax_t(factor <base_ctx_t, query>), sum of `base`.  Shape: (B, D), base (B, T, V) -> (B, V)"""

    def __init__(self, *, base: LayerRef, base_ctx: LayerRef, energy_factor: float | None = None) -> None:
        super().__init__(base=base, base_ctx=base_ctx)
        self.energy_factor = energy_factor

    def energies(self, context: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """Inner products."""
        energies = dot_energies(context, query.squeeze(-2))
        return energies * self.energy_factor if self.energy_factor else energies


@layer("concat_attention")
class ConcatAttention(EnergyAttention):
    """Weights softmax_t(<v, tanh(base_ctx_t + query)>), sum of `base`.  Shape: (B, D), base (B, T, V) -> (B, V)

    Parameter: `v` (D,). (Bahdanau et al. 2014, https://arxiv.org/abs/1409.0473)
    """

    def __init__(self, *, base: LayerRef, base_ctx: LayerRef) -> None:
        super().__init__(base=base, base_ctx=base_ctx)

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """`v`."""
        self.v = self.param("v", (sources[0].dim or 0,), "glorot_uniform")

    def energies(self, context: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """One hidden layer."""
        return additive_energies(context, query, self.v)


@layer("gauss_window_attention")
class GaussWindowAttention(StepAttention):
    """Sum of the `window_size` frames around a location, weighted by a normal density (which does not sum to 1).

    Shape: locations (B,) or (B, 1), base (B, T, V) -> (B, V). `std` in frames. With `inner_size` S the locations
    l + i `inner_size_step` - S / 2 for i < S: (B, S, V). Frames outside the sequence count as its first or last one.
    """

    def __init__(
        self,
        *,
        base: LayerRef,
        window_size: PositiveInt,
        std: PositiveFloat = 1.0,
        inner_size: PositiveInt | None = None,
        inner_size_step: float = 0.5,
    ) -> None:
        super().__init__()
        self.base = base
        self.window_size = window_size
        self.std = std
        self.inner_size = inner_size
        self.inner_step = inner_size_step

    def _inner_dims(self) -> tuple[Dim, ...]:
        return (self.dim("inner", self.inner_size, "spatial"),) if self.inner_size else ()

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The weighted frames around the locations."""
        x, base = sources[0], refs["base"]
        spec = self.spec(x.spec, base=base.spec)
        if spec is None or base.spec.loop or x.spec.dim not in (None, 1):
            raise self.error(f"the source must be a location per sequence, but is {x.spec} instead; base: {base.spec}")
        order = x.spec.order(x.spec.batch or 0)
        locations = x.data.permute(order).reshape([x.data.shape[i] for i in order if i != x.spec.feature])  # (…, B)
        if self.inner_size:
            steps = torch.arange(self.inner_size, device=x.device) * self.inner_step - self.inner_size / 2
            locations = locations.unsqueeze(-1) + steps
        weights, positions = gauss_window(locations, self.window_size, self.std)  # (…, B[, S], W)
        frames = self._gathered(base, positions)
        return joined(weighted_sum(weights, frames), spec, [x, base])

    def _gathered(self, base: Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The frames at these positions (…, B[, S], W).  -> (…, B[, S], W, V)"""
        time = base.spec.time_dim
        base = base.permuted(tuple(i for i in (base.spec.batch, base.spec.time, base.spec.feature) if i is not None))
        lengths = base.length(time).values if time is not None and time.dynamic else None
        if not self.inner_size:
            return frames_at(base.data, positions, lengths)
        flat = frames_at(base.data, positions.flatten(-2), lengths)
        frames: torch.Tensor = flat.unflatten(-2, positions.shape[-2:])
        return frames
