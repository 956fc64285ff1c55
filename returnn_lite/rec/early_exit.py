"""Sequences whose hypotheses have all ended leave the batch of a search: the ticks left compute the others only.

What such a sequence would do for the rest of the search is known: each hypothesis goes on by label 0 at no cost, all
keep their order, and length normalisation scales their scores alike (see `beam.let_end`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from returnn_lite.layers.core.node import Node
from returnn_lite.rec.program import LoopProgram
from returnn_lite.rec.tick_state import TickState
from returnn_lite.tensor import Beam

SHARE = 4  # leaving copies whatever the ticks read; it pays if at least one in so many sequences can go


@dataclass
class Departure:
    """Sequences that left behind tick `tick`.

    `rows` int [N * K]: their hypotheses in the batch of that tick, `places`: in the whole batch; `scores` float [N, K]
    and `counted` int [N * K] as they were. `beam`: the hypotheses that stayed.
    """

    tick: int
    rows: torch.Tensor
    places: torch.Tensor
    scores: torch.Tensor
    counted: torch.Tensor
    beam: Beam


class ActiveSequences:
    """Which sequences of a search are still in its batch: `sequences` int [B'], numbers of those present."""

    def __init__(self, batch: int, device: torch.device) -> None:
        self.batch = batch
        self.sequences = torch.arange(batch, device=device)
        self.departures: list[Departure] = []

    def places(self, size: int) -> torch.Tensor:
        """Where the hypotheses present belong in the whole batch.  Shape: -> (B' * size,)"""
        return _rows(self.sequences, size)

    def after(self, state: TickState, tick: int) -> tuple[TickState, bool]:
        """The state behind a tick, without the sequences that have ended if enough have; whether any goes on."""
        if state.beam is None:
            return state, not bool(state.ended.data.all())
        goes_on = ~state.ended.data.reshape(-1, state.beam.size).all(1)
        count = int(goes_on.sum())
        if 0 < count <= len(goes_on) - max(1, len(goes_on) // SHARE):
            state = self._left(state, state.beam, goes_on, tick)
        return state, count > 0

    def _left(self, state: TickState, beam: Beam, goes_on: torch.Tensor, tick: int) -> TickState:
        """The state of the sequences that go on (bool [B'])."""
        here = torch.arange(len(goes_on), device=goes_on.device)
        stay, gone = here[goes_on], here[~goes_on]
        kept, left = _rows(stay, beam.size), _rows(gone, beam.size)
        staying = Beam(beam.size, beam.scores.index_select(0, stay), kept, beam)
        places = _rows(self.sequences.index_select(0, gone), beam.size)
        scores = beam.scores.index_select(0, gone)
        self.departures.append(Departure(tick, left, places, scores, state.counted.index_select(0, left), staying))
        self.sequences = self.sequences.index_select(0, stay)
        return state.narrowed(stay, kept, staying)

    def whole_counts(self, counted: torch.Tensor, size: int) -> torch.Tensor:
        """The lengths of all hypotheses, those that left included.  Shape: (B' * size,) -> (B * size,)"""
        whole = counted.new_empty(self.batch * size).index_copy(0, self.places(size), counted)
        for d in self.departures:
            whole = whole.index_copy(0, d.places, d.counted)
        return whole

    def whole_scores(self, last: Beam, ticks: int, exponent: float | None) -> torch.Tensor:
        """The scores of all hypotheses after `ticks` ticks.  Shape: (B, K)

        `exponent`: that of the length normalisation, by which scores of ended hypotheses grow; None without it.
        """
        whole = last.scores.new_empty(self.batch * last.size)
        whole = whole.index_copy(0, self.places(last.size), last.scores.flatten())
        for d in self.departures:
            grown = 1.0 if exponent is None else (ticks / (d.tick + 1)) ** exponent
            whole = whole.index_copy(0, d.places, d.scores.flatten() * grown)
        return whole.reshape(self.batch, last.size)


def may_leave(program: LoopProgram) -> bool:
    """Whether sequences of a search may leave its batch, as far as the program tells.

    One choice decides on the end, hypotheses keep their order behind it, and no layer looks at other sequences.
    """
    choices = program.choices
    if program.end is None or len(choices) != 1 or not choices[0].settles or program.compiled is not None:
        return False
    sees_batch = any(n.layer.sees_batch or n.layer.options.batch_norm for n in program.inside)
    return not sees_batch and all(map(_keeps_batch, program.inside))


def _keeps_batch(node: Node) -> bool:
    """Whether a layer puts no sequences together."""
    apart = node.spec is None or node.spec.batch is not None
    return apart or all(n.spec is None or n.spec.batch is None for n in node.inputs)


def _rows(sequences: torch.Tensor, size: int) -> torch.Tensor:
    """The rows of all hypotheses of these sequences.  Shape: (N,) -> (N * size,)"""
    return (sequences.unsqueeze(1) * size + torch.arange(size, device=sequences.device)).flatten()
