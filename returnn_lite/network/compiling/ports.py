"""Tensors as lists of raw tensors, lengths and sizes, and back: what goes into a compiled function and comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, TypeAlias

import torch

from returnn_lite.tensor import Deferred, Dim, PreActivation, Tensor, batch_dim
from returnn_lite.tensor.lengths import Lengths

Key: TypeAlias = Any  # nested tuples of what is equal for all batches of one function
Place = tuple[int, int]  # the size of an axis: (number, 0), or (-1, n) if it is always n


class Shape(NamedTuple):
    """The sizes of the axes of a tensor, and their order in memory."""

    sizes: tuple[Place, ...]
    order: tuple[int, ...]


class Refused(Exception):
    """A layer that is not compiled; the text says why."""


class Inputs:
    """What a compiled function is given: raw `tensors`, the `lengths` of axes, and the `sizes` that differ by batch.

    `key`: what is equal for all batches of one function; `shapes`, `largest`: the sizes of the axes of the
    tensors, of the values of lengths, and the largest lengths, by the numbers of sizes.

    Raises Refused for hypotheses of a search.
    """

    def __init__(self, values: Sequence[Tensor]) -> None:
        self.sizes: list[int] = []
        self._numbers: dict[tuple[Dim, int], int] = {}
        self.tensors: list[torch.Tensor] = []
        self.shapes: list[Shape] = []
        self.largest: list[Place] = []
        found: dict[int, int] = {}
        self.lengths: list[Lengths] = []
        kinds = []
        for x in values:
            kinds.append(kind_of(x))
            for tensor, dims in leaves(x):
                self._add(tensor, dims)
            for dim, lengths in lengths_of(x):
                if id(lengths) not in found:
                    found[id(lengths)] = len(self.lengths)
                    self.lengths.append(lengths)
                    self.largest.append(self._place(dim, int(lengths.max)))
                kinds.append((dim, found[id(lengths)], lengths.dims))
        for lengths in self.lengths:
            self._add(lengths.values, lengths.dims)
        raw = tuple((x.dtype, x.device, x.requires_grad) for x in self.tensors)
        self.key: Key = (tuple(kinds), raw, tuple(self.shapes), tuple(self.largest))

    def _add(self, tensor: torch.Tensor, dims: Sequence[Dim]) -> None:
        order = memory_order(tensor)
        self.tensors.append(tensor if order is not None else tensor.contiguous())
        shape = tuple(self._place(d, n) for d, n in zip_longest(dims, tensor.shape))
        self.shapes.append(Shape(shape, order or tuple(range(tensor.dim()))))

    def _place(self, dim: Dim | None, size: int) -> Place:
        """The number of a size; axes of one Dim with equal sizes share it."""
        if dim is None or size < 2 or not (dim.is_batch or dim.dynamic):
            return -1, size
        number = self._numbers.setdefault((dim, size), len(self.sizes))
        if number == len(self.sizes):
            self.sizes.append(size)
        return number, 0


def memory_order(x: torch.Tensor) -> tuple[int, ...] | None:
    """The axes in the order in which they are in memory; None if they leave gaps there, or repeat numbers."""
    if x.is_contiguous():
        return tuple(range(x.dim()))
    order = tuple(sorted(range(x.dim()), key=x.stride, reverse=True))
    return order if x.permute(order).is_contiguous() else None


def kind_of(x: Tensor) -> Key:
    """What a Tensor is, but for its numbers and lengths."""
    if x.beam is not None:
        raise Refused("reads hypotheses of a search")
    pre = None if x.pre is None else x.pre.activation
    state = None if x.state is None else tuple(x.state)
    parts = None if x.parts is None else tuple((name, kind_of(part)) for name, part in x.parts.items())
    return type(x), x.spec, pre, state, x.sequence_loss is None, x.zero_padded, parts


def leaves(x: Tensor) -> Iterator[tuple[torch.Tensor, Sequence[Dim]]]:
    """The raw tensors of a Tensor, each with its (first) axes."""
    if not isinstance(x, Deferred):
        yield x.data, x.spec.dims
    if x.pre is not None:
        yield x.pre.data, x.spec.dims
    for value in (x.state or {}).values():
        yield value, (batch_dim,)
    if x.sequence_loss is not None:
        yield x.sequence_loss, (batch_dim,)
    for part in (x.parts or {}).values():
        yield from leaves(part)


def lengths_of(x: Tensor) -> Iterator[tuple[Dim, Lengths]]:
    """The lengths that a Tensor and its parts know."""
    yield from x.lengths.items()
    for part in (x.parts or {}).values():
        yield from lengths_of(part)


def rebuilt(x: Tensor, tensors: Iterator[torch.Tensor], lengths: Callable[[Lengths], Lengths]) -> Tensor:
    """A Tensor like `x` of other raw tensors (as `leaves` gives them) and lengths."""
    deferred = x if isinstance(x, Deferred) else None
    data = next(tensors)
    before = data if deferred is not None or x.pre is None else next(tensors)
    pre = None if x.pre is None else PreActivation(x.pre.activation, before)
    state = None if x.state is None else {key: next(tensors) for key in x.state}
    loss = None if x.sequence_loss is None else next(tensors)
    parts = None if x.parts is None else {key: rebuilt(part, tensors, lengths) for key, part in x.parts.items()}
    known = {dim: lengths(n) for dim, n in x.lengths.items()}
    made = Tensor(data, x.spec, known, None, pre, state, loss, x.zero_padded, parts)
    return made if deferred is None or pre is None else Deferred(made, pre, deferred.activation, deferred.over)
