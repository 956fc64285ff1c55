"""What goes from one tick of a loop to the next."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from returnn_lite.layers.core.node import Node
from returnn_lite.tensor import Beam, Tensor, to_beam
from returnn_lite.tensor.tensor import ancestor_index


@dataclass
class Carried:
    """Tensors (B, …) that a layer carries from tick to tick, and the beam their rows belong to."""

    tensors: dict[str, torch.Tensor]
    beam: Beam | None = None

    def on(self, beam: Beam | None) -> dict[str, torch.Tensor]:
        """The tensors with their rows re-ordered to `beam`."""
        if beam is self.beam or beam is None or not self.tensors:
            return self.tensors
        index = ancestor_index(beam, self.beam) if self.beam is not None else _repeating_rows(beam, self.tensors)
        return self.tensors if index is None else {k: v.index_select(0, index) for k, v in self.tensors.items()}

    def narrowed(self, rows: torch.Tensor, beam: Beam) -> Carried:
        """Only these rows, those of `beam`; the tensors must hold its parent's."""
        return Carried({k: v.index_select(0, rows) for k, v in self.on(beam.parent).items()}, beam)


def _repeating_rows(beam: Beam, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Every sequence `beam.size` times."""
    batch = next(iter(tensors.values())).shape[0]
    return torch.arange(batch, device=beam.source.device).repeat_interleave(beam.size)


@dataclass
class TickState:
    """Where the ticks are.

    `ended` bool (B * K,): which sequences have ended, `counted` int (B * K,): how many ticks they were long so far.
    `beam`: the hypotheses. `values`: outputs by node; `states`: what layers carry.
    """

    ended: Tensor
    counted: torch.Tensor
    beam: Beam | None
    values: dict[Node, Tensor] = field(default_factory=dict)
    states: dict[Node, Carried] = field(default_factory=dict)

    def count(self, now: Tensor, *, include_eos: bool) -> None:
        """Adds a tick to the lengths of the sequences that go on; `now`: which of them end with it."""
        before = to_beam(self.ended, self.beam)
        old = Carried({"n": self.counted}, self.ended.beam).on(self.beam)["n"]
        over = to_beam(now, self.beam).data | before.data
        runs = ~before.data if include_eos else ~over
        self.counted = old + runs.to(torch.int32)
        self.ended = Tensor(over, before.spec, {}, self.beam)

    def narrowed(self, stay: torch.Tensor, rows: torch.Tensor, beam: Beam) -> TickState:
        """Only the sequences `stay` int (B',), whose hypotheses are `rows` int (B' * K,) and make up `beam`."""

        def kept(x: Tensor) -> Tensor:
            return x.gather_batch(stay, None) if x.beam is None else x.gather_batch(rows, beam)

        return TickState(
            kept(self.ended), self.counted.index_select(0, rows), beam, {n: kept(x) for n, x in self.values.items()},
            {n: c.narrowed(rows, beam) for n, c in self.states.items()},
        )  # fmt: skip
