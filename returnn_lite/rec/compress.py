"""Masked frames of a tensor put together on an axis of their own, and back."""

from __future__ import annotations

import functools

import torch

from returnn_lite.tensor import Dim, Lengths, Spec, Tensor
from returnn_lite.tensor.align import place
from returnn_lite.tensor.masked import mask_all


def renamed(spec: Spec, old: Dim, new: Dim) -> Spec:
    """The Spec with the axis `new` in place of `old`, with the same roles."""

    def make() -> Spec:
        dims = (new if d == old else d for d in spec.dims)
        loop = frozenset(new if d == old else d for d in spec.loop)
        return Spec(dims, spec.dtype, sparse_dim=spec.sparse_dim, time=spec.time, feature=spec.feature, loop=loop)

    return spec.memo(("renamed", old, new), make) if old in spec.dims else spec


class Frames:
    """The frames along axis `dim` that a mask (any axes with `dim`, bool) chooses; `new` is the axis they get."""

    def __init__(self, mask: Tensor, dim: Dim, new: Dim) -> None:
        self.mask = mask
        self.dim = dim
        self.new = new
        self.axis = mask.spec.dims.index(dim)
        valid = mask_all(mask, [self.axis])
        self.chosen = mask.data if valid is None else mask.data & valid

    @functools.cached_property
    def lengths(self) -> Lengths:
        """How many frames were chosen."""
        others = tuple(d for d in self.mask.spec.dims if d != self.dim)
        counts = self.chosen.sum(self.axis, dtype=torch.int32)
        return Lengths(counts, int(counts.max()) if counts.numel() else 0, others)

    def compressed(self, x: Tensor) -> Tensor:
        """The chosen frames of `x` in their order, 0 behind them; no change without the axis.

        Shape: (B, T, …) -> (B, T', …)
        """
        if self.dim not in x.spec.dims:
            return x
        order = self.chosen.to(torch.int8).sort(dim=self.axis, descending=True, stable=True).indices
        first = order.narrow(self.axis, 0, self.lengths.max)
        made = self._gather(x, first, self.dim, self.new)
        made = made.with_lengths({self.new: self.lengths})
        valid = mask_all(made, [made.spec.dims.index(self.new)])
        if valid is not None:
            made.data = made.data.masked_fill(~valid, 0)
        return made

    def spread(self, x: Tensor, initial: torch.Tensor | float = 0.0) -> Tensor:
        """Every frame of the mask with the last chosen one before or at it; `initial` where there was none yet.

        Shape: (B, T', …) -> (B, T, …). `initial` broadcasts against the frames.
        """
        if self.new not in x.spec.dims:
            return x
        index = self.chosen.cumsum(self.axis) - 1
        at = x.spec.dims.index(self.new)
        if x.data.shape[at] == 0:
            shape = list(x.data.shape)
            shape[at] = 1
            x = x.with_data(x.data.new_zeros(shape))
        made = self._gather(x, index.clamp(0, x.data.shape[at] - 1), self.new, self.dim)
        none_yet = self._placed(index < 0, self.dim, made.spec)
        before = torch.as_tensor(initial, dtype=made.data.dtype, device=made.device)
        made.data = torch.where(none_yet, before, made.data)
        lengths = {d: n for d, n in made.lengths.items() if d != self.new}
        known = self.mask.lengths.get(self.dim)
        made.lengths = {**lengths, self.dim: known} if known is not None else lengths
        return made

    def _gather(self, x: Tensor, index: torch.Tensor, old: Dim, new: Dim) -> Tensor:
        """`x` at these positions of the axis `old`; the positions have the axes of the mask."""
        spec = renamed(x.spec, old, new)
        at = spec.dims.index(new)
        data = x.data
        wide = self._placed(index, new, spec)
        sizes = [max(n, m) for n, m in zip(data.shape, wide.shape, strict=True)]
        sizes[at] = wide.shape[at]
        whole = list(sizes)
        whole[at] = data.shape[at]
        known = {new: self.mask.lengths[new]} if new in self.mask.lengths else {new: self.lengths}
        made = Tensor(data.expand(whole).gather(at, wide.expand(sizes)), spec, {**x.lengths, **known}, x.beam)
        return made

    def _placed(self, values: torch.Tensor, axis: Dim, target: Spec) -> torch.Tensor:
        """Values with the axes of the mask, its frame axis being called `axis`, in the layout of `target`."""
        spec = renamed(self.mask.spec, self.dim, axis)
        return place(Tensor(values, spec, {}), target)
