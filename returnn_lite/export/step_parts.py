"""The start and a step of a decoder as parts to export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from returnn_lite.export.net_part import Real, short_examples
from returnn_lite.export.part import Example, Part
from returnn_lite.export.ports import AxisNames, Port, lengths_port
from returnn_lite.export.program import Arrays
from returnn_lite.network.network import Network
from returnn_lite.rec.step_function import ENDED, LABELS, LOG_PROBS, TICK, TICKS, StepFunction
from returnn_lite.to_torch.batches import BATCHES, as_inputs, batch
from returnn_lite.to_torch.module import Recording, make_module
from returnn_lite.to_torch.recorder import Recorder
from returnn_lite.to_torch.scope import Unwritable
from returnn_lite.to_torch.task import keys_read, layer_comments

# (sequences, frames, hypotheses, ticks before) of the steps that are recorded, and of those that are compared
RECORDED = ((2, 23, 2, 1), (3, 38, 1, 3), (2, 29, 3, 2), (1, 31, 5, 4), (3, 41, 3, 6), (2, 33, 1, 5))
STEPS = ((2, 37, 3, 2), (4, 31, 2, 1), (1, 17, 1, 4), (3, 25, 4, 7), (2, 40, 2, 11))
STARTS = ((3, 37), (4, 31), (1, 17), (5, 40), (2, 25))
NEXT = "next_"


def loop_parts(net: Network, loop: str, real: Real) -> list[Part]:
    """The "start" (data and lengths -> first scores, state) and the "step" (labels, state -> scores, state)."""
    function = StepFunction(net, loop)
    net.context.keeps_batch = True
    try:
        return [_start(net, function, real), _step(net, function, real)]
    except Unwritable as exc:
        raise exc.as_error() from exc
    finally:
        net.context.keeps_batch = False


# --- the start --------------------------------------------------------------------------------------------------------


def _start(net: Network, function: StepFunction, real: Real) -> Part:
    def recorded(count: int, frames: int, keys: Sequence[str] | None) -> Recording:
        data, lengths = batch(net, count, frames)
        recorder = Recorder(as_inputs(data, lengths, keys), dict(net.params))
        with recorder:
            outputs = function.start(data, lengths)
        return Recording(recorder, {name: recorder.value(x) for name, x in outputs.items()})

    keys = keys_read(net, recorded(*BATCHES[0], None))
    module = make_module([recorded(*size, keys) for size in BATCHES], "", "", layer_comments(net))
    examples = [_started(function, f"a start of {n} sequences of {t} frames", *batch(net, n, t)) for n, t in STARTS]
    examples += short_examples(net, function.start)
    if real is not None:
        examples.append(_started(function, "a start on the data", *real))
    names, (data, lengths) = AxisNames(), batch(net, *STARTS[0])
    inputs = [names.port(key, net.extern_data.spec(key), "data") for key in data if key in keys]
    inputs += [lengths_port(f"{key}_lengths", "lengths", x) for key, x in lengths.items() if key in keys]
    outputs = _Sizes("batch").ports([example.wanted for example in examples], partial(_role, function))
    outputs = [replace(port, feeds=port.name) if port.role in ("state", "fixed", "frame") else port for port in outputs]
    return Part("_start", module, tuple(inputs), tuple(outputs), examples)


def _started(function: StepFunction, name: str, data: Arrays, lengths: Arrays) -> Example:
    return Example(name, as_inputs(data, lengths), function.start(data, lengths))


# --- a step -----------------------------------------------------------------------------------------------------------


def _step(net: Network, function: StepFunction, real: Real) -> Part:
    def recorded(given: Arrays) -> Recording:
        recorder = Recorder(given, dict(net.params))
        with recorder:
            outputs = _outputs(function, given)
        return Recording(recorder, {name: recorder.value(x) for name, x in outputs.items()})

    def arrived(count: int, frames: int, width: int, ticks: int) -> Arrays:
        return before_step(function, *batch(net, count, frames), width, ticks)

    module = make_module([recorded(arrived(*size)) for size in RECORDED], "", "", layer_comments(net))
    examples = [
        _stepped(function, f"step {t} of {n} sequences of {f} frames, {k} hypotheses", arrived(n, f, k, t))
        for n, f, k, t in STEPS
    ]
    if real is not None:
        examples.append(_stepped(function, "a step on the data", before_step(function, *real, 3, 2)))
    sizes, role = _Sizes("rows"), partial(_role, function)
    inputs = sizes.ports([example.inputs for example in examples], role)
    outputs = sizes.ports([example.wanted for example in examples], role)
    outputs = [replace(p, feeds=p.name.removeprefix(NEXT)) if p.role == "state" else p for p in outputs]
    classes = function.label_spec.sparse_dim
    inputs[0] = replace(inputs[0], classes=classes.size if classes is not None else None)
    return Part("_step", module, tuple(inputs), tuple(outputs), examples)


def before_step(function: StepFunction, data: Arrays, lengths: Arrays, width: int, ticks: int) -> Arrays:
    """What goes into a step after `ticks` others, with random labels and `width` hypotheses of each sequence."""
    made = function.start(data, lengths)
    generator = torch.Generator().manual_seed(ticks)
    rows = torch.arange(made[LOG_PROBS].shape[0]).repeat_interleave(width)
    at_rows = {name: x[rows] if x.dim() else x for name, x in made.items() if name not in (LOG_PROBS, TICKS)}
    whole = {name: at_rows[name] for name in function.frames}
    for tick in range(1, ticks + 1):
        classes = made[LOG_PROBS].shape[-1]
        labels = torch.randint(classes, rows.shape, generator=generator, dtype=torch.int32)
        given = {LABELS: labels, **at_rows, **{name: x[:, min(tick, x.shape[1] - 1)] for name, x in whole.items()}}
        if function.counts:
            given[TICK] = torch.tensor(tick, dtype=torch.int32)
        if tick < ticks:
            at_rows |= {name: x for name, x in function.step(given).items() if name in at_rows}
    return given


def _stepped(function: StepFunction, name: str, given: Arrays) -> Example:
    return Example(name, given, _outputs(function, given))


def _outputs(function: StepFunction, given: Arrays) -> Arrays:
    """What a step gives; the new state is called otherwise than the old one."""
    return {NEXT + name if name in function.state else name: x for name, x in function.step(given).items()}


# --- ports ------------------------------------------------------------------------------------------------------------


class _Sizes:
    """The axes of tensors of several examples: those of one size in all of them, and names for the others.

    Axes that are of equal sizes in each example have one name; `rows`: that of the first axis.
    """

    def __init__(self, rows: str) -> None:
        self.rows = rows
        self.names: dict[tuple[int, ...], str] = {}

    def ports(self, examples: Sequence[Arrays], roles: Callable[[str], str]) -> list[Port]:
        """The ports of all tensors."""
        found = []
        for name, first in examples[0].items():
            sizes = list(zip(*(example[name].shape for example in examples), strict=True))
            names = (f"{name}_axis{i}" if i else self.rows for i in range(len(sizes)))
            axes = tuple(map(self._axis, sizes, names))
            found.append(Port(name, str(first.dtype).removeprefix("torch."), axes, roles(name)))
        return found

    def _axis(self, sizes: tuple[int, ...], name: str) -> int | str:
        return sizes[0] if len(set(sizes)) == 1 else self.names.setdefault(sizes, name)


def _role(function: StepFunction, name: str) -> str:
    """What a tensor is: what it is called, "state", or "fixed" for all steps."""
    if name in (LOG_PROBS, ENDED, LABELS, TICK, TICKS):
        return name
    if name in function.frames:
        return "frame"
    return "state" if name.removeprefix(NEXT) in function.state else "fixed"
