"""Loop axes folded into the batch axis and back, for layers moved out of a loop that keep a state per batch entry."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from returnn_lite.tensor import Dim, Lengths, Spec, Tensor, batch_dim


class Folding:
    """The loop axes that any of the tensors has, in front of the batch axis: row = frame * batch + sequence."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.sizes: dict[Dim, int] = {}
        self.lengths: dict[Dim, Lengths] = {}
        self.beam = None
        self.batch = 0
        for x in tensors:
            for dim in x.spec.dims:
                if dim in x.spec.loop:
                    self.sizes[dim] = x.size(dim)
            self.lengths |= x.lengths
            self.beam = self.beam or x.beam
            if x.spec.batch is not None:
                self.batch = x.data.shape[x.spec.batch]

    def fold(self, x: Tensor) -> Tensor:
        """Shape: (L, B, …) or (B, …) -> (L * B, …); no change without any of these axes"""
        loops = [d for d in self.sizes if d in x.spec.dims]
        if x.spec.batch is None and not loops:
            return x
        bare = x.spec
        for dim in loops:
            bare = bare.in_loop(dim)
        if bare.batch is None:
            raise ValueError(f"{x.spec} has a loop axis but no batch axis")
        order = [x.spec.dims.index(d) for d in loops] + [i for i, d in enumerate(x.spec.dims) if d not in loops]
        data = x.data.permute(order)
        for at, (dim, size) in enumerate(self.sizes.items()):
            if dim not in loops:
                data = data.unsqueeze(at).expand(*data.shape[:at], size, *data.shape[at:])
        count = len(self.sizes)
        data = data.movedim(bare.batch + count, count).flatten(0, count).movedim(0, bare.batch)
        return Tensor(data, bare, {d: self._folded(n) for d, n in x.lengths.items() if d not in self.sizes})

    def _folded(self, lengths: Lengths) -> Lengths:
        shape = [*self.sizes.values(), self.batch]
        values = lengths.values
        if values.dim() == 0 or batch_dim not in lengths.dims:
            return lengths
        if len(lengths.dims) == 1:
            values = values.expand(shape)
        return Lengths(values.reshape(-1), lengths.max)

    def unfold(self, x: Tensor) -> Tensor:
        """Shape: (…, L * B, …) -> (L, …, B, …)"""
        at = x.spec.batch
        if at is None:
            return x
        sizes = list(self.sizes.values())
        data = x.data.unflatten(at, (*sizes, self.batch))
        data = data.movedim(tuple(range(at, at + len(sizes))), tuple(range(len(sizes))))
        spec = x.spec
        for dim in reversed(self.sizes):
            spec = spec.with_loop(dim)
        lengths = {**{d: self._unfolded(n) for d, n in x.lengths.items()}, **self.lengths}
        parts = {k: self.unfold(y) for k, y in x.parts.items()} if x.parts else None
        return Tensor(data, spec, lengths, self.beam, parts=parts)

    def _unfolded(self, lengths: Lengths) -> Lengths:
        values: torch.Tensor = lengths.values
        if values.dim() != 1 or values.shape[0] != math.prod(self.sizes.values()) * self.batch:
            return lengths
        dims = (*self.sizes, batch_dim)
        return Lengths(values.reshape([*self.sizes.values(), self.batch]), lengths.max, dims)


def loop_axes(specs: Iterable[Spec]) -> bool:
    """Whether any of the Specs carries axes of a loop around."""
    return any(s.loop for s in specs)
