"""Values of a loop's layers over its whole axis."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from returnn_lite.layers.core.context import RunState
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.stateful import Stateful, ticking
from returnn_lite.layers.eval import Eval
from returnn_lite.network.building import compute
from returnn_lite.rec.initial import Initial, first_output
from returnn_lite.rec.inputs import InnerSource, counter
from returnn_lite.rec.program import LoopProgram
from returnn_lite.rec.varying import first_frame, varies
from returnn_lite.tensor import Beam, Dim, Lengths, Spec, Tensor, latest_beam, to_beam
from returnn_lite.tensor.align import first_beam, merged_lengths, place


class WholeValues:
    """What one run of a loop computes over its axis, from the tensors `outer` that it reads from outside.

    `values` have the loop axis (in front), or lack it where a layer does not depend on it. Data with frames of another
    axis, of other lengths, keeps that one (also in front): no tick can read it, layers moved out can. `size` is the
    number of ticks, None as long as the loop has to find it out; `lengths` those of its axis, if they are known;
    `base_beam` the hypotheses that come in from outside.
    """

    def __init__(self, program: LoopProgram, outer: Mapping[str, Tensor], run: RunState) -> None:
        self.program = program
        self.layer = program.layer
        self.outer = outer
        self.dim: Dim = program.dim
        self.values: dict[Node, Tensor] = {}
        self._starting: set[Node] = set()  # layers whose first output is being computed
        self.size, self.lengths = self._known_length()
        self.initial = self._initial(run)
        self.base_beam = first_beam(outer.values())

    def _initial(self, run: RunState) -> Initial:
        """For as many sequences as a tensor has that the loop or the net reads, or the batch if none reads anything."""
        outer = list(self.outer.values())
        first = next((x for x in [*outer, *run.data.values()] if x.spec.batch is not None), None)
        if first is not None:
            return Initial(first.shape[first.spec.batch or 0], first.device, merged_lengths(outer or [first]))
        if run.batch is None:
            raise self.layer.error("neither the loop nor any other layer reads data that has a batch axis")
        return Initial(run.batch, self.layer.context.device, merged_lengths(outer) if outer else {})

    def _known_length(self) -> tuple[int | None, Lengths | None]:
        """Number of ticks and the lengths, where they are known before the loop runs."""
        key = self.program.inputs.key
        if key is None:
            return self.dim.size, None
        x, own = self.outer[key], self.program.inputs.dim
        dim = own if own is not None and own in x.spec.dims else x.spec.time_dim
        if dim is None:
            raise self.layer.error(f"{key!r} has no time axis to loop over: {x.spec}")
        return x.size(dim), x.length(dim) if dim.dynamic else None

    @property
    def offset(self) -> int:
        """The first value of ":i"."""
        return self.layer.context.tick_offset if self.program.options.global_offset else 0

    # --- reading ------------------------------------------------------------------------------------------------------

    def value(self, node: Node) -> Tensor:
        """The value of a node over the whole axis."""
        waiting, opened = [node], set[Node]()
        while waiting:
            needed = [n for n in self._needed(waiting[-1]) if n not in self.values]
            if needed:
                if waiting[-1] in opened or waiting[-1] in self.program.all_inside:
                    raise waiting[-1].layer.error("is read before it was computed")
                opened.add(waiting[-1])
                waiting += needed
            else:
                ready = waiting.pop()
                if ready not in self.values:
                    self.values[ready] = self._read(ready)
        return self.values[node]

    def at_start(self, node: Node) -> Tensor:
        """What the first tick reads of a node: of "prev:" the initial output."""
        if node.previous is not None:
            return self.first_output(node.previous)
        return first_frame(self.value(node), self.dim)

    def _needed(self, node: Node) -> list[Node]:
        """The values that the value of a node is made of."""
        if node in self.values or isinstance(node.layer, InnerSource):
            return []
        if node.previous is not None:
            initial = node.previous.initial
            return [node.previous, *([initial] if initial is not None else ())]
        return self.program.fusion.calls.get(node, node).inputs

    def _read(self, node: Node) -> Tensor:
        layer = node.layer
        if node.previous is not None:
            return self._shifted(node.previous)
        if isinstance(layer, InnerSource):
            if layer.kind == "counter":
                return self._counter()
            x = self.outer[layer.key]
            return x if layer.kind == "outer" else self._entered(x, layer.key)
        if node in self.program.fusion.absorbed:
            return self.compute(node)
        if layer.hidden_state or any(self.dim in self.values[n].spec.loop for n in node.inputs):
            raise layer.error("is read before it was computed")
        return self.compute(node)

    def _entered(self, x: Tensor, key: str) -> Tensor:
        """A tensor from outside with its time axis as the loop axis, in front."""
        own = self.program.inputs.frame_dim(key, x.spec)
        at = x.spec.dims.index(own)
        x = x.permuted((at, *(i for i in range(x.spec.rank) if i != at)))
        if not self._fits(x, own):
            return x.with_data(x.data, x.spec.enter_loop(own))
        spec = x.spec.memo(("entered", self.dim), lambda: _renamed(x.spec, self.dim).enter_loop(self.dim))
        lengths = {**x.lengths}
        if self.lengths is not None:
            lengths[self.dim] = self.lengths
        return Tensor(x.data, spec, lengths, x.beam)

    def _fits(self, x: Tensor, own: Dim) -> bool:
        """Whether the axis in front, `own`, is as long as that of the loop, for every sequence."""
        if own == self.program.inputs.dim or self.size is None:
            return True
        if x.shape[0] != self.size:
            return False
        lengths = x.length(own).values if own.dynamic else None
        if lengths is None or self.lengths is None or lengths.shape != self.lengths.values.shape:
            return True
        return torch.equal(lengths.to(self.lengths.values.dtype), self.lengths.values)

    def axis_of(self, *tensors: Tensor) -> Dim | None:
        """The loop axis that any of the tensors has: that of this loop, or else the foreign one; None if none has."""
        found = [d for x in tensors for d in x.spec.dims if d in x.spec.loop]
        return self.dim if self.dim in found else next(iter(found), None)

    def _counter(self) -> Tensor:
        """All values of ":i"."""
        spec = counter(0, self.initial.device).spec.with_loop(self.dim)
        start = self.offset
        ticks = torch.arange(start, start + (self.size or 0), dtype=torch.int32, device=self.initial.device)
        return Tensor(ticks, spec, {self.dim: self.lengths} if self.lengths is not None else {})

    def _shifted(self, of: Node) -> Tensor:
        """ "prev:" of a layer over the whole axis: its initial output in front, the last frame dropped."""
        x = self.value(of)
        if self.axis_of(x) is None:
            x = self._repeated(x)
        elif (axis := self.axis_of(x)) != x.spec.dims[0]:
            at = x.spec.dims.index(axis)
            x = x.permuted((at, *(i for i in range(x.spec.rank) if i != at)))
        first = self.first_output(of)
        first = to_beam(first, x.beam)
        data = first.data.to(x.data.dtype)
        if first.spec.rank and first.data.dim() < x.data.dim() - 1:
            data = data.reshape(data.shape + (1,) * (x.data.dim() - 1 - data.dim()))
        shifted = torch.cat([data.expand(x.shape[1:]).unsqueeze(0), x.data[:-1]])
        return x.with_data(shifted[: x.shape[0]])  # no frame at all, if there are no ticks

    def _repeated(self, x: Tensor) -> Tensor:
        """A tensor without the loop axis, repeated along it."""
        spec = x.spec.with_loop(self.dim)
        data = x.data.unsqueeze(0).expand((self.size or 0, *x.shape))
        lengths = {**x.lengths, **({self.dim: self.lengths} if self.lengths is not None else {})}
        return Tensor(data, spec, lengths, x.beam)

    def first_output(self, node: Node) -> Tensor:
        """What "prev:" of a layer reads at the first tick."""
        inside, starting = self.program.all_inside, self._starting

        def known(read: Node) -> bool:  # a layer cannot begin with what itself gave before
            return read not in inside if read.previous is None else read.previous not in starting

        starting.add(node)
        first = first_output(self.initial, node, self.at_start, known)
        starting.discard(node)
        if self.base_beam is not None and first.spec.batch is not None and first.beam is None:
            first = first.copy()
            first.beam = self.base_beam
        return first

    # --- computing ----------------------------------------------------------------------------------------------------

    def compute(self, node: Node) -> Tensor:
        """A layer over the whole axis."""
        node = self.program.fusion.calls.get(node, node)
        values = {n: self.value(n) for n in node.inputs}
        if node.layer.is_recurrent() and self.axis_of(*values.values()) is None:
            values = {n: self._repeated(x) if varies(x, self.dim) else x for n, x in values.items()}
        layer = ticking(node)
        return compute(node, values) if layer is None else self._over(node, layer, values)

    def _over(self, node: Node, layer: Stateful, values: dict[Node, Tensor]) -> Tensor:
        """A layer with a state of its own, over the whole axis."""
        beam = latest_beam(list(values.values()))
        sources = [to_beam(values[n], beam) for n in node.sources]
        refs = {k: to_beam(values[n], beam) for k, n in node.refs.items()}
        axis = self.axis_of(*sources) or self.dim
        if not layer.takes_whole_sources and self.axis_of(*sources) is None:
            sources = [self._repeated(x) for x in sources]
        made = layer.over(axis, sources, refs)
        for step in node.after:
            made = step(made, sources)
        return made

    # --- what leaves the loop -----------------------------------------------------------------------------------------

    def last(self, node: Node) -> Tensor:
        """A layer at the last frame of each sequence; its initial output for sequences without frames."""
        x = self.value(node)
        axis = self.axis_of(x) or self.dim
        if axis not in x.spec.loop:
            x = self._repeated(x)
        at, spec = x.spec.dims.index(axis), x.spec.in_loop(axis)
        if self.lengths is None or spec.batch is None:
            return x.with_data(x.data.select(at, -1), spec)
        first = to_beam(self.first_output(node), x.beam)
        whole = torch.cat([place(first, spec).unsqueeze(0).expand((1, *first.shape)), x.data.movedim(at, 0)])
        index = x.length(axis).values.to(torch.int64)
        shape = [1] * spec.rank
        shape[spec.batch] = -1
        index = index.reshape(shape).expand(whole.shape[1:]).unsqueeze(0)
        return x.with_data(whole.gather(0, index).squeeze(0), spec)

    def leaving(self, node: Node) -> Tensor:
        """The value of a node as the net outside sees it: the loop axis is its time axis.

        What code of a config has summed up over the frames has none, and stays so.
        """
        x = self.value(node)
        if isinstance(node.layer, Eval) and self.axis_of(x) is None and self.axis_of(*map(self.value, node.inputs)):
            return x
        axis = self.axis_of(x) or self.dim
        if axis not in x.spec.loop:
            x = self._repeated(x)
        outside = self.program.inputs.dim or axis
        new = outside if axis == self.dim else axis
        spec = x.spec.memo(("leaving", axis, new), lambda: _time_first(x.spec, axis, new))
        left = x.with_lengths({new: x.length(axis)}) if new != axis and new.dynamic else x.copy()
        left.spec = spec
        if left.state is not None:
            left.state = None
        return left

    def end(self, size: int, lengths: Lengths | None, frames: Mapping[Node, Tensor], beam: Beam | None) -> None:
        """Takes over what the ticks have found out; all values are put on the final hypotheses."""
        self.size, self.lengths = size, lengths
        self.values |= frames
        self.values = {n: on_beam(x, beam) for n, x in self.values.items()}


def on_beam(x: Tensor, beam: Beam | None) -> Tensor:
    """A value as the final hypotheses of a search have it."""
    return to_beam(x, beam) if x.beam is not beam else x


def _renamed(spec: Spec, dim: Dim) -> Spec:
    """The first axis called `dim`."""
    dims = (dim, *spec.dims[1:])
    return Spec(dims, spec.dtype, sparse_dim=spec.sparse_dim, time=spec.time, feature=spec.feature, loop=spec.loop)


def _time_first(spec: Spec, dim: Dim, new: Dim) -> Spec:
    """The loop axis `dim` as the time axis `new`, all others as ordinary ones."""
    at = spec.dims.index(dim)
    left = spec.leave_loop(dim).roles(time=at)
    for other in left.loop:
        left = left.leave_loop(other)
    return left if new == dim else left.with_dims([*left.dims[:at], new, *left.dims[at + 1 :]], time=at)
