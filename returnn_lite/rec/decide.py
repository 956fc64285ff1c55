"""`decide`, and layers that read or re-arrange the hypotheses of a search."""

from __future__ import annotations

from collections import deque
from typing import ClassVar

import torch

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.tensor import Beam, Dim, Lengths, Spec, Tensor, batch_dim

_NO_BEAM = "the layer needs the hypotheses of a search, but its source has none"


@layer("decide")
class Decide(Layer):
    """The best hypothesis of each beam; without search the source itself.  Shape: (T, B * beam) -> (B, T')

    `length_normalization`: scores are divided by the lengths before. The result has a beam of its own of size 1.
    """

    checks_n_out = False

    def __init__(self, *, length_normalization: bool = False) -> None:
        super().__init__()
        self.length_normalization = length_normalization

    def spec(self, x: Spec | None) -> Spec | None:
        """The source, batch-major."""
        if x is None or x.batch is None:
            return x
        return x.permuted((x.batch, *(i for i in range(x.rank) if i != x.batch)))

    def decided_beam(self) -> int | None:
        """One hypothesis."""
        return 1

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The hypotheses with the largest scores; of equal ones the first."""
        x = sources[0].batch_major()
        beam = x.beam
        if beam is None:
            return x
        scores = beam.scores
        if self.length_normalization and x.spec.time is not None:
            scores = scores / x.length(x.spec.dims[x.spec.time]).values.unflatten(0, (-1, beam.size))
        best = first_largest(scores)  # (B,)
        rows = torch.arange(best.shape[0], device=best.device) * beam.size + best
        decided = x.gather_batch(rows, Beam(1, scores.gather(1, best.unsqueeze(1)), rows, beam, decided=True))
        return self._cut(decided)

    def _cut(self, x: Tensor) -> Tensor:
        """Frames behind the longest of the chosen hypotheses are dropped."""
        if x.spec.time is None or not x.spec.dims[x.spec.time].dynamic:
            return x
        dim = x.spec.dims[x.spec.time]
        lengths = Lengths.of(x.length(dim).values)
        time = x.spec.time
        return x.each(lambda data: data.narrow(time, 0, lengths.max)).with_lengths({dim: lengths})


def first_largest(scores: torch.Tensor) -> torch.Tensor:
    """Index of the largest entry of the last axis; of equal ones the first.  Shape: (B, K) -> (B,)"""
    return (scores == scores.amax(-1, keepdim=True)).to(torch.int32).argmax(-1)


class _OfBeam(Layer):
    """Base of layers that need the hypotheses of a search."""

    checks_n_out = False
    sees_batch = True
    stays_in_loop: ClassVar[str] = "goes with a search choice"

    def beam_of(self, x: Tensor) -> Beam:
        """The hypotheses that the source holds. Raises ConfigError without search."""
        if x.beam is None:
            raise self.error(_NO_BEAM)
        return x.beam


@layer("decide_keep_beam")
class DecideKeepBeam(_OfBeam):
    """The source, which later choices do not re-order: in a loop every frame keeps the order of its own tick.

    Shape: (B * beam, …) -> the same
    """

    keeps_order: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The source."""
        return sources[0]


@layer("choice_get_beam_scores")
class ChoiceGetBeamScores(_OfBeam):
    """The scores of the hypotheses, natural log: in a loop after this tick, outside the final ones.

    Shape: any -> (B * beam,)
    """

    sources = "many"

    def __init__(self) -> None:
        super().__init__()

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """One number per hypothesis."""
        return Spec((batch_dim,), "float32", time=None, feature=None)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The scores."""
        beam = self.beam_of(sources[0])
        spec = Spec((batch_dim,), "float32", time=None, feature=None)
        return Tensor(beam.scores.flatten(), spec, sources[0].lengths, beam)


@layer("choice_get_src_beams")
class ChoiceGetSrcBeams(_OfBeam):
    """Which hypothesis of the tick before each one extends, counted from 0 in its sequence.

    Shape: any -> (B * beam,) int32
    """

    sources = "many"

    def __init__(self) -> None:
        super().__init__()

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """One number per hypothesis."""
        return Spec((batch_dim,), "int32", time=None, feature=None)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The numbers of the hypotheses."""
        beam = self.beam_of(sources[0])
        before = beam.parent.size if beam.parent is not None else 1
        spec = Spec((batch_dim,), "int32", time=None, feature=None)
        return Tensor((beam.source % before).to(torch.int32), spec, sources[0].lengths, beam)


@layer("split_batch_beam")
class SplitBatchBeam(_OfBeam):
    """The hypotheses as a static axis after the batch axis; no decision follows.

    Shape: (B * beam, …) -> (B, beam, …), `beam_dim` being the Dim of the new axis
    """

    from_node: Node

    def __init__(self, *, beam_dim: Dim | None = None) -> None:
        super().__init__()
        self.beam_dim = beam_dim

    def link(self, net: Linker, node: Node) -> None:
        """Notes the nodes from which the beam size is known later."""
        self.from_node = node.sources[0]

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """The source with one more axis, batch in front."""
        if x is None or x.batch is None:
            return x
        size = beam_size(self.from_node)
        if size is None:
            raise self.error(_NO_BEAM)
        order = (x.batch, *(i for i in range(x.rank) if i != x.batch))
        dims = [x.dims[i] for i in order]
        moved = x.permuted(order)
        beam = self.axis_dim(self.beam_dim, self.dim("beam", size, kind="spatial"))
        return moved.with_dims([dims[0], beam, *dims[1:]])

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The split batch axis; as lengths there are those of the best hypothesis, as in the reference."""
        x = sources[0].batch_major()
        beam = self.beam_of(x)
        best = torch.arange(x.data.shape[0], device=x.data.device)[:: beam.size] + first_largest(beam.scores)
        lengths = {d: n.gather(best) for d, n in x.lengths.items()}
        spec = self.spec(sources[0].spec)
        if spec is None:
            raise self.error("the axes of the source are not known")
        return Tensor(x.data.unflatten(0, (-1, beam.size)), spec, lengths)


def beam_size(node: Node) -> int | None:
    """The beam size that a node's output has in search, by the last choice it depends on; None without one."""
    seen: set[Node] = set()
    waiting = deque([node])
    while waiting:
        found = waiting.popleft()
        if found in seen:
            continue
        seen.add(found)
        size = found.layer.decided_beam()
        if size is not None:
            return size
        waiting += [*found.inputs, *([found.previous] if found.previous is not None else [])]
    return None
