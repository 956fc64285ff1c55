"""One run of a loop: what goes before, the ticks, what comes after. Training, forward and search all run this."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from returnn_lite.layers.core.context import RunState
from returnn_lite.rec.program import LoopProgram
from returnn_lite.rec.ticks import Ticks
from returnn_lite.rec.trace import Trace
from returnn_lite.rec.whole import WholeValues, on_beam
from returnn_lite.tensor import Tensor

LAST = "last:"  # the part of a loop that is an inner layer's last frame


def values_before(program: LoopProgram, outer: Mapping[str, Tensor], run: RunState) -> WholeValues:
    """What is known before the first tick."""
    whole = WholeValues(program, outer, run)
    for node in program.before:
        if node not in program.fusion.absorbed:
            run.before(node)
            whole.values[node] = whole.compute(node)
    return whole


def run_loop(program: LoopProgram, outer: Mapping[str, Tensor], run: RunState, *, gradients: bool = True) -> Tensor:
    """The output of a loop for what it reads from outside; all layers that may be read from outside are its parts.

    Without `gradients` none go through the ticks; what runs before and after them has its own.
    """
    whole = values_before(program, outer, run)
    absorbed = program.fusion.absorbed
    beam = None
    if program.inside:
        run.before(program.inside[0])
        with torch.set_grad_enabled(torch.is_grad_enabled() and gradients):
            trace = Trace(program, Ticks(program, whole, run).run(), whole)
        beam = trace.beam
        whole.end(trace.size, trace.lengths, {n: trace.stacked(n) for n in program.collect}, beam)
    done = {} if run.wanted is None else program.last_reads
    for node in program.after:
        if node in absorbed:
            continue
        run.before(node)
        whole.values[node] = on_beam(whole.compute(node), beam)
        for read in done.get(node, ()):
            del whole.values[read]
    left = whole.values if run.wanted is None else program.seen
    parts = {label: whole.leaving(node) for label, node in program.nodes.items() if node in left}
    for label, node in program.nodes.items():
        if node.layer.options.need_last:
            parts[f"{LAST}{label}"] = whole.last(node)
    output = whole.leaving(program.nodes["output"]).copy()
    output.parts = parts
    return output
