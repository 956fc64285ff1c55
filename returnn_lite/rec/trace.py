"""Frames collected tick by tick, put together: in search every final hypothesis is followed back to its ancestors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from returnn_lite.layers.core.node import Node
from returnn_lite.rec.program import LoopProgram
from returnn_lite.rec.ticks import TickRecord
from returnn_lite.rec.whole import WholeValues
from returnn_lite.tensor import Beam, Dim, Lengths, PreActivation, Tensor


@dataclass
class Rows:
    """Where the final hypotheses come from at one tick.

    `of`: for each beam met in the tick (by identity; 0 = the batch before the loop) the row of every final hypothesis.
    `absent` bool (B * K,): those whose sequence had left the batch; None without any.
    """

    of: dict[int, torch.Tensor]
    absent: torch.Tensor | None


class Trace:
    """What the ticks of a loop left: `size` and `lengths` of its axis, the final `beam`, the frames of each layer."""

    def __init__(self, program: LoopProgram, record: TickRecord, whole: WholeValues) -> None:
        self.program = program
        self.record = record
        self.whole = whole
        self.lengths = whole.lengths
        if whole.size is None:
            self.lengths = Lengths.of(self._counted(record.counted))
            self.size = self.lengths.max
        else:
            self.size = whole.size
        self.beam: Beam | None = None
        self._in_order: torch.Tensor | None = None  # the rows of the final hypotheses
        self._rows: list[Rows] = []
        if record.beam is not None and record.beam is not whole.base_beam:
            self._rows, source = self._ancestors(record.beam)
            self.beam = self._final_beam(record.beam, source)
            if whole.size is not None and self.lengths is not None:
                self.lengths = self.lengths.gather(source)

    def _counted(self, counted: torch.Tensor) -> torch.Tensor:
        """The lengths of all hypotheses, those of sequences that left the batch included."""
        active, beam = self.record.active, self.record.beam
        return counted if active is None or beam is None else active.whole_counts(counted, beam.size)

    def _final_beam(self, last: Beam, source: torch.Tensor) -> Beam:
        """The hypotheses as they leave the loop: scores divided by the longest length where a choice normalises."""
        choices = self.program.choices
        normalises = bool(choices) and choices[-1].length_normalization
        scores, active = last.scores, self.record.active
        if active is not None:
            scores = active.whole_scores(last, len(self.record.beams), choices[-1].exponent if normalises else None)
        if normalises and self.lengths is not None:
            scores = scores / (self.lengths.max + (0 if self.program.options.include_eos else 1))
        return Beam(last.size, scores, source, self.whole.base_beam)

    def _ancestors(self, last: Beam) -> tuple[list[Rows], torch.Tensor]:
        """For each tick the rows of all final hypotheses; and their rows in the batch before the loop."""
        active, device = self.record.active, last.source.device
        departures = active.departures if active is not None else []
        left = {id(d.beam): d for d in departures}
        index, absent = torch.arange(last.scores.numel(), device=device), None
        if active is not None and departures:
            whole = torch.zeros(active.batch * last.size, dtype=index.dtype, device=device)
            index = whole.index_copy(0, active.places(last.size), index)
            absent = torch.ones_like(whole, dtype=torch.bool).index_fill(0, active.places(last.size), False)
        else:
            self._in_order = index
        rows: list[Rows] = []
        ends = self.record.beams
        for tick in range(len(ends) - 1, -1, -1):
            beam = ends[tick]
            stop = ends[tick - 1] if tick else self.whole.base_beam
            found: dict[int, torch.Tensor] = {}
            while beam is not None and beam is not stop:
                found[id(beam)] = index
                index = index_of(beam, index)
                if absent is not None and id(beam) in left:
                    gone = left[id(beam)]
                    index = index.index_copy(0, gone.places, gone.rows)
                    absent = None if gone is departures[0] else absent.index_fill(0, gone.places, False)
                beam = beam.parent
            found[id(stop) if stop is not None else 0] = index
            rows.append(Rows(found, absent))
        return rows[::-1], index

    def stacked(self, node: Node) -> Tensor:
        """All frames of a layer, the loop axis in front."""
        frames = self.record.frames[node][: self.size]
        if not frames:
            return self._empty(node)
        if self.beam is not None and not node.layer.keeps_order:
            frames = [self._resolved(x, tick) for tick, x in enumerate(frames)]
        first = frames[0]
        spec = first.spec.memo(("loop", self.program.dim), lambda: first.spec.with_loop(self.program.dim))
        lengths = {**first.lengths}
        if self.lengths is not None:
            lengths[self.program.dim] = self.lengths
        pre = None
        if first.pre is not None and node.layer.options.loss:
            pre = PreActivation(first.pre.activation, torch.stack([x.pre.data for x in frames if x.pre is not None]))
        data = [x.data for x in frames]
        if any(x.shape != data[0].shape for x in data):
            lengths |= _grown(frames, self.program.dim)
            data = _of_one_size(data)
        return Tensor(torch.stack(data), spec, lengths, self.beam or self.whole.base_beam, pre=pre)

    def _resolved(self, x: Tensor, tick: int) -> Tensor:
        """A frame in the order of the final hypotheses."""
        if x.spec.batch is None:
            return x
        rows = self._rows[tick]
        key = id(x.beam) if x.beam is not None else 0
        if key in rows.of and self.beam is not None:
            index, size = rows.of[key], self.beam.size
            if index is self._in_order:
                return x
            found = x.taken(index, self.beam, {d: n.following(index, size) for d, n in x.lengths.items()})
            return found if rows.absent is None else _with_zeros(found, rows.absent)
        if x.beam is None and self.beam is not None:
            return x.tile(self.beam) if rows.absent is None else self._returned(x, rows, rows.absent)
        raise RuntimeError(f"a frame {x.spec} belongs to no beam of this loop")

    def _returned(self, x: Tensor, rows: Rows, absent: torch.Tensor) -> Tensor:
        """A frame without hypotheses of the sequences that were present, repeated for the final hypotheses of all."""
        size = self.beam.size if self.beam is not None else 1
        sequences = [*rows.of.values()][-2] // size  # the last ones are the rows before the choice of this tick
        return _with_zeros(x.gather_batch(sequences, self.beam), absent)

    def _empty(self, node: Node) -> Tensor:
        """No tick at all."""
        if node.spec is None:
            raise node.layer.error("the axes of this layer are not known")
        x = self.whole.initial.zeros(node.spec)
        if self.beam is not None:
            x = x.gather_batch(self.beam.source, self.beam)
        lengths = {**x.lengths, **({self.program.dim: self.lengths} if self.lengths is not None else {})}
        beam = self.beam or self.whole.base_beam
        return Tensor(x.data.unsqueeze(0)[:0], x.spec.with_loop(self.program.dim), lengths, beam)


def _grown(frames: list[Tensor], dim: Dim) -> dict[Dim, Lengths]:
    """The lengths of axes that grow with the ticks: others at each frame of the loop axis `dim`."""
    grown = {d for d, n in frames[0].lengths.items() if not n.dims and d in frames[0].spec.dims}
    parts = {d: [x.lengths[d] for x in frames] for d in grown}
    return {d: Lengths(torch.stack([n.values for n in p]), max(n.max for n in p), (dim,)) for d, p in parts.items()}


def _of_one_size(frames: list[torch.Tensor]) -> list[torch.Tensor]:
    """The frames with 0 after the ends of axes that grow with the ticks."""
    sizes = [max(n) for n in zip(*(x.shape for x in frames), strict=True)]
    pads = [[p for n, size in zip(x.shape[::-1], sizes[::-1], strict=True) for p in (0, size - n)] for x in frames]
    return [F.pad(x, pad) for x, pad in zip(frames, pads, strict=True)]


def _with_zeros(x: Tensor, rows: torch.Tensor) -> Tensor:
    """`x` with 0 in these rows (bool (B,)) of its batch axis."""
    at = x.spec.batch or 0
    changed = x.copy()
    changed.data = x.data.masked_fill(rows.reshape(-1, *[1] * (x.data.dim() - at - 1)), 0)
    return changed


def index_of(beam: Beam, rows: torch.Tensor) -> torch.Tensor:
    """The rows that the hypotheses in `rows` of `beam` extend."""
    return rows if beam.in_place else beam.source.index_select(0, rows)
