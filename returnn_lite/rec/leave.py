"""Sequences whose hypotheses have all ended leave the batch of a search: the ticks left compute the others only.

What such a sequence would do for the rest of the search is known: each hypothesis goes on by label 0 at no cost, all
keep their order, and length normalisation scales their scores alike (see `beam.let_end`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from returnn_lite.tensor import Beam, Tensor

if TYPE_CHECKING:
    from returnn_lite.layers.core.node import Node
    from returnn_lite.rec.ticks import Ticks

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


class Presence:
    """Which sequences of a search are still in its batch: `sequences` int [B'], numbers of those present."""

    def __init__(self, batch: int, device: torch.device) -> None:
        self.batch = batch
        self.sequences = torch.arange(batch, device=device)
        self.departures: list[Departure] = []

    def places(self, size: int) -> torch.Tensor:
        """Where the hypotheses present belong in the whole batch.  Shape: -> (B' * size,)"""
        return _rows(self.sequences, size)

    def leave(self, ticks: Ticks, goes_on: torch.Tensor, tick: int) -> None:
        """Takes the sequences that do not go on (`goes_on` bool [B']) out of everything that `ticks` holds."""
        beam, counted = ticks.beam, ticks.counted
        if beam is None or counted is None or ticks.ended is None:
            raise RuntimeError("only hypotheses of a search leave")
        here = torch.arange(len(goes_on), device=goes_on.device)
        stay, gone = here[goes_on], here[~goes_on]
        kept, left = _rows(stay, beam.size), _rows(gone, beam.size)
        staying = Beam(beam.size, beam.scores.index_select(0, stay), kept, beam)
        places = _rows(self.sequences.index_select(0, gone), beam.size)
        scores = beam.scores.index_select(0, gone)
        self.departures.append(Departure(tick, left, places, scores, counted.index_select(0, left), staying))
        self.sequences = self.sequences.index_select(0, stay)
        ticks.values = {n: _narrowed(x, stay, kept, staying) for n, x in ticks.values.items()}
        ticks.states = {n: c.narrowed(kept, staying) for n, c in ticks.states.items()}
        ticks.ended = _narrowed(ticks.ended, stay, kept, staying)
        ticks.counted = counted.index_select(0, kept)
        ticks.beam = ticks.beams[-1] = staying

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
        return whole.unflatten(0, (self.batch, last.size))


def presence(ticks: Ticks) -> Presence | None:
    """For a search whose sequences may leave its batch; None if they may not."""
    run = ticks.run_of
    inside: list[Any] = [n.layer for n in ticks.inside]
    choices = [layer for layer in inside if getattr(layer, "makes_beam", False)]
    searches = run.size is None and run.base_beam is None and len(choices) == 1 and choices[0].settles
    if not searches or run.layer.training or run.layer.compiled is not None:
        return None
    if ticks.sequences or ticks.varying or any(x.sees_batch or x.options.batch_norm for x in inside):
        return None
    return Presence(run.initial.batch, run.initial.device) if all(map(_keeps_batch, ticks.inside)) else None


def _keeps_batch(node: Node) -> bool:
    """Whether a layer puts no sequences together."""
    apart = node.spec is None or node.spec.batch is not None
    return apart or all(n.spec is None or n.spec.batch is None for n in node.inputs)


def _rows(sequences: torch.Tensor, size: int) -> torch.Tensor:
    """The rows of all hypotheses of these sequences.  Shape: (N,) -> (N * size,)"""
    return (sequences.unsqueeze(1) * size + torch.arange(size, device=sequences.device)).flatten()


def _narrowed(x: Tensor, stay: torch.Tensor, kept: torch.Tensor, beam: Beam) -> Tensor:
    """The sequences `stay`, or their hypotheses `kept`, of a value."""
    return x.gather_batch(stay, None) if x.beam is None else x.gather_batch(kept, beam)
