"""`Lengths`: how long each sequence is along one dynamic axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from returnn_lite.ops.masked import frame_mask
from returnn_lite.tensor.dim import Dim, apply, batch_dim


@dataclass(eq=False, slots=True)
class Lengths:
    """Lengths of a dynamic axis: `values` int [B] on the computing device, `max` their maximum (the padded size).

    `max` is kept as a number so that no step waits for the device to learn it. `dims` names the axes of `values`; it is
    (batch,) but for lengths that differ per loop frame.
    """

    values: torch.Tensor
    max: int
    dims: tuple[Dim, ...] = (batch_dim,)
    _masks: dict[tuple[int, bool], torch.Tensor] = field(default_factory=dict, repr=False)
    _tiled: dict[int, Lengths] = field(default_factory=dict, repr=False)
    _single: Lengths | None = field(default=None, repr=False)  # what it is tiled from

    @staticmethod
    def of(values: torch.Tensor) -> Lengths:
        """Lengths with `max` read off the values (one wait for the device)."""
        return Lengths(values, int(values.max()) if values.numel() else 0)

    def mask(self, size: int | None = None, *, with_first: bool = False) -> torch.Tensor:
        """Bool (*dims, size): True at valid positions; made once per size.

        with_first: the first position is True in any case: a softmax over nothing is NaN, which gradients would spread.
        """
        size = self.max if size is None else size
        if not isinstance(size, int):  # a symbol, while a graph is recorded
            return frame_mask(self.values.clamp(min=1) if with_first else self.values, size)
        mask = self._masks.get((size, with_first))
        if mask is None:
            mask = frame_mask(self.values.clamp(min=1) if with_first else self.values, size)
            self._masks[size, with_first] = mask
        return mask

    def tile(self, beam: int) -> Lengths:
        """The lengths of a batch in which every sequence stands `beam` times, beam index fastest."""
        tiled = self._tiled.get(beam)
        if tiled is None:
            if batch_dim not in self.dims:
                return self
            axis = self.dims.index(batch_dim)
            values = self.values.repeat_interleave(beam, axis) if beam > 1 else self.values
            tiled = self._tiled[beam] = Lengths(values, self.max, self.dims, _single=self)
        return tiled

    def every(self, step: int) -> Lengths:
        """The lengths of every `step`-th batch entry."""
        if step == 1 or batch_dim not in self.dims:
            return self
        axis = self.dims.index(batch_dim)
        picked = self.values[(slice(None),) * axis + (slice(None, None, step),)]
        return Lengths(picked, self.max, self.dims)

    def first(self, count: int) -> Lengths:
        """The lengths of the first batch entries."""
        if batch_dim not in self.dims:
            return self
        return Lengths(self.values.narrow(self.dims.index(batch_dim), 0, count), self.max, self.dims)

    def repeated(self, before: int, after: int) -> Lengths:
        """The lengths of a batch merged with other axes: each `after` times in a row, all of them `before` times."""
        if batch_dim not in self.dims:
            return self
        axis = self.dims.index(batch_dim)
        values = torch.cat([self.values.repeat_interleave(after, axis)] * before, axis)
        return Lengths(values, self.max, self.dims)

    def following(self, index: torch.Tensor, beam: int) -> Lengths:
        """The lengths of `beam` hypotheses per sequence, each of which extends the batch entry `index`.

        Where all hypotheses of a sequence are of one length, the index does not matter.
        """
        return self.gather(index) if self._single is None else self._single.tile(beam)

    def gather(self, index: torch.Tensor) -> Lengths:
        """The lengths of the batch entries `index`."""
        if batch_dim not in self.dims:
            return self
        return Lengths(self.values.index_select(self.dims.index(batch_dim), index), self.max, self.dims)


def derive(dim: Dim, known: Mapping[Dim, Lengths]) -> Lengths:
    """The lengths of `dim`: as known, or computed from the lengths of the Dims it is derived from.

    Raises KeyError when a part is unknown.
    """
    found = known.get(dim)
    if found is not None:
        return found
    made: dict[Dim, Lengths] = {}
    waiting = [dim]
    while waiting:
        last = waiting[-1]
        op, parts = (last.op, last.parts) if last.op else ("same", (_meaning(last, known),))
        dynamic = (p for p in parts if isinstance(p, Dim) and p.size is None)
        missing = [p for p in dynamic if p not in known and p not in made]
        if missing:
            waiting += missing
        else:
            waiting.pop()
            made[last] = _derived(op, [_length_of(p, known, made) for p in parts])
    return made[dim]


def _meaning(dim: Dim, known: Mapping[Dim, Lengths]) -> Dim:
    """What an axis was declared to be, in the net whose lengths are known."""
    for meaning in dim.meanings:
        if all(leaf in known for leaf in _leaves(meaning, known)):
            return meaning
    raise KeyError(f"no lengths known for axis {dim}")


def _leaves(dim: Dim, known: Mapping[Dim, Lengths]) -> set[Dim]:
    """The dynamic axes that the lengths of `dim` come down to: known ones, and those that nothing is derived from."""
    found: set[Dim] = set()
    waiting, seen = [dim], set[Dim]()
    while waiting:
        last = waiting.pop()
        if last in known or not last.op:
            found.add(last)
        elif last not in seen:
            seen.add(last)
            waiting += [p for p in last.parts if isinstance(p, Dim) and p.size is None]
    return found


def _length_of(part: Dim | int, known: Mapping[Dim, Lengths], made: Mapping[Dim, Lengths]) -> Lengths | int:
    """A number, or the lengths that are known."""
    if isinstance(part, int):
        return part
    if part.size is not None:
        return part.size
    return known[part] if part in known else made[part]


def _derived(op: str, parts: list[Lengths | int]) -> Lengths:
    """The lengths of a Dim from those of the Dims it is derived from."""
    if op == "same" and isinstance(parts[0], Lengths):
        return parts[0]
    largest = apply(op, [p.max if isinstance(p, Lengths) else p for p in parts])
    operands = [p.values if isinstance(p, Lengths) else p for p in parts]
    dims = next(p.dims for p in parts if isinstance(p, Lengths))
    return Lengths(_apply_values(op, operands), largest, dims)


def _apply_values(op: str, parts: list[torch.Tensor | int]) -> torch.Tensor:
    """`dim.apply` on tensors of lengths."""
    total = parts[0]
    for part in parts[1:]:
        if op == "+":
            total = total + part
        elif op == "*":
            total = total * part
        elif op == "ceildiv":
            total = -((-total) // part)
        elif op == "//":
            total = total // part
        elif op == "min":
            total = torch.as_tensor(total).clamp(max=part)
    values = torch.as_tensor(total)
    return values.clamp(min=0) if op == "+" else values
