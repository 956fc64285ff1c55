"""Edit distances of label sequences: `edit_distance`, and tick by tick `edit_distance_table`, `optimal_completions`."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.stateful import LoopConstants, LoopStart, State, Stateful, Tick
from returnn_lite.ops import edit_distance as distances
from returnn_lite.tensor import Dim, Spec, Tensor, batch_dim
from returnn_lite.tensor.align import joined
from returnn_lite.tensor.spec import vector


@layer("edit_distance")
class EditDistance(Layer):
    """Least number of insertions, deletions, substitutions from `a` to `b`.  Shape: (B, N), (B, M) -> (B,) int32"""

    sources = "none"
    recurrent = True

    def __init__(
        self, *, a: LayerRef, b: LayerRef, a_spatial_dim: Dim | None = None, b_spatial_dim: Dim | None = None
    ) -> None:
        super().__init__()
        self.a = a
        self.b = b
        self.a_spatial_dim = a_spatial_dim
        self.b_spatial_dim = b_spatial_dim

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """(B,)"""
        for name, spec in refs.items():
            if spec is not None:
                check_labels(self, name, spec)
        return vector("int32")

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The distances."""
        a, b = refs["a"], refs["b"]
        distance = distances.edit_distance(*labels(a, self.a_spatial_dim), *labels(b, self.b_spatial_dim))
        return joined(distance, vector("int32"), [a, b])


def check_labels(layer: Layer, option: str, x: Spec) -> None:
    """ConfigError unless these are sequences of labels."""
    if not x.sparse or x.batch is None or x.rank != 2:
        raise layer.error(f"`{option}` must be labels (B, N), but is {x} instead")


def labels(x: Tensor, dim: Dim | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (B, N) and their lengths (B,)."""
    x = x.batch_major()
    dim = x.spec.dims[1] if dim is None else dim
    if dim.dynamic:
        return x.data, x.length(dim).values
    return x.data, torch.full((x.data.shape[0],), x.data.shape[1], dtype=torch.int32, device=x.device)


class OfTarget(Layer):
    """Base of layers that compare with a target (B, N), the whole sequence also inside of loops."""

    recurrent = True
    checks_n_out = False

    async def link(self, net: Linker, node: Node) -> None:
        """Refers to the target."""
        node.refs["target"] = await net.ask_target(self.options.target)

    def check_target(self, target: Spec) -> None:
        """ConfigError for frames of labels."""
        if target.time is None:
            text = '`target` must be whole sequences of labels (in a loop: "layer:base:data:classes")'
            raise self.error(f"{text}, but is {target} instead")
        check_labels(self, "target", target)


@layer("edit_distance_table")
class EditDistanceTable(OfTarget, Stateful):
    """Row t of the table: distances of the first t + 1 labels to the first 0, 1, …, N of the target.

    Shape: in a loop (B,) -> (B, N + 1); (B, T) -> (B, T, N + 1), int32. Labels `blank_idx` leave the row as it is.
    """

    def __init__(self, *, debug: bool = False, blank_idx: int | None = None) -> None:
        super().__init__()
        self.blank_idx = blank_idx

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The axes of the source, and one longer by 1 than the target."""
        x, target = sources[0], refs["target"]
        if target is None:
            return None
        self.check_target(target)
        dims = (batch_dim,) if x is None else x.dims
        loop = frozenset() if x is None else x.loop
        return Spec((*dims, target.dims[1 - (target.batch or 0)] + 1), "int32", loop=loop)

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """All rows."""
        if x.spec.time is None:
            raise self.error(f"the source needs a time axis outside of loops, but is {x.spec}")
        return self._rows(x, x.spec.time, refs["target"])

    def over(self, dim: Dim, sources: list[Tensor], refs: dict[str, Tensor]) -> Tensor:
        """All ticks of a loop."""
        return self._rows(sources[0], sources[0].spec.dims.index(dim), refs["target"])

    def _rows(self, x: Tensor, axis: int, target: Tensor) -> Tensor:
        """The rows for the frames of an axis."""
        row, rows = self._first(target), []
        for frame in x.data.unbind(axis):
            row = self._next(row, frame, target)
            rows.append(row)
        spec = self.spec(x.spec, target=target.spec)
        stacked = torch.stack(rows, axis) if rows else row.unsqueeze(axis)[:0]
        return joined(stacked, spec or x.spec, [x, target])

    @staticmethod
    def _first(target: Tensor) -> torch.Tensor:
        """The row before the first label."""
        return distances.first_row(*labels(target))

    def _next(self, row: torch.Tensor, label: torch.Tensor, target: Tensor) -> torch.Tensor:
        """The row behind one more label."""
        return distances.next_row(row, label, *labels(target), blank=self.blank_idx)

    def first_state(self, make: LoopStart, refs: Mapping[str, Tensor]) -> State:
        """The row before the first label."""
        return {"state": self._first(refs["target"])}

    def initial_output(self, make: LoopStart, spec: Spec, state: State | None = None) -> Tensor:
        """The row before the first label."""
        if state is None:
            return super().initial_output(make, spec)
        return Tensor(state["state"], spec, make.lengths)

    def step(self, constants: LoopConstants, sources: list[Tensor], state: State, tick: Tick) -> tuple[Tensor, State]:
        """The next row; that of the last tick for sequences that have ended."""
        x, target = sources[0], tick.refs["target"]
        row = self._next(state["state"], x.data, target)
        ended = tick.ended()
        if ended is not None:
            row = torch.where(ended.unsqueeze(1), state["state"], row)
        return joined(row, self.spec(x.spec, target=target.spec) or x.spec, [x, target]), {"state": row}


@layer("optimal_completions")
class OptimalCompletions(OfTarget):
    """For each next label the distance that an optimal continuation can still reach (Sabour et al. 2018).

    The source is "prev:" of an `edit_distance_table`.  Shape: (B, N + 1) -> (B, V) int32. The blank keeps the distance.
    """

    def __init__(self, *, debug: bool = False, blank_idx: int | None = None) -> None:
        super().__init__()
        self.blank_idx = blank_idx

    def _classes(self, target: Spec) -> Dim:
        size = max(target.dim or 0, 0 if self.blank_idx is None else self.blank_idx + 1)
        found = target.feature_dim
        return found if found is not None and found.size == size else self.dim("classes", size)

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The last axis becomes the classes."""
        x, target = sources[0], refs["target"]
        if target is None:
            return None
        self.check_target(target)
        dims = (batch_dim,) if x is None else x.dims[:-1]
        out = (*dims, self._classes(target))
        return Spec(out, "int32", feature=len(out) - 1, loop=frozenset() if x is None else x.loop)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The least distance in the row that would follow."""
        x, target = sources[0], refs["target"]
        spec = self.spec(x.spec, target=target.spec)
        at = x.spec.batch or 0
        rows = x.data.movedim(at, -2)  # (…, B, N + 1)
        classes = self._classes(target.spec).size or 0
        best = distances.optimal_completions(rows, *labels(target), classes, blank=self.blank_idx)
        return joined(best.movedim(-2, at), spec or x.spec, [x, target])
