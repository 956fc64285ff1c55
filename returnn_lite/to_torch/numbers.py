"""Numbers that a model in torch reads off lengths, such as the longest one, as sizes of what goes in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from returnn_lite.to_torch.functions import NUMBERS
from returnn_lite.to_torch.recorder import Call, Number, Recorder, mapped
from returnn_lite.to_torch.sizes import Samples, expression


def sizes_for_numbers(recorders: Sequence[Recorder]) -> None:
    """Puts ints in place of numbers that are expressions of the sizes of inputs in all recordings.

    What is written of ints is such an expression. Recordings of unlike calls stay as they are.
    """
    calls = [recorder.calls for recorder in recorders]
    if len({tuple(call.function for call in of_one) for of_one in calls}) > 1:
        return
    known = _sizes(recorders)
    values: dict[Number, int | float] = {}
    dropped = set()
    for i, row in enumerate(zip(*calls, strict=True)):
        numbers = [call.out for call in row if call.function in NUMBERS and isinstance(call.out, Number)]
        differ = len(numbers) == len(row) and len({n.value for n in numbers}) > 1
        if differ and expression(tuple(n.value for n in numbers), [], known) is not None:
            values.update({n: n.value for n in numbers})
            dropped.add(i)
    for recorder in recorders:
        recorder.calls = [_with(call, values) for i, call in enumerate(recorder.calls) if i not in dropped]


def _sizes(recorders: Sequence[Recorder]) -> list[tuple[Samples, str]]:
    """The sizes of the inputs that differ."""
    found = []
    for name in recorders[0].inputs:
        shapes = [recorder.inputs[name].shape for recorder in recorders]
        found += [(sizes, name) for sizes in zip(*shapes, strict=True) if len(set(sizes)) > 1]
    return found


def _with(call: Call, values: dict[Number, int | float]) -> Call:
    def new(x: Any) -> Any:
        return values.get(x, x) if isinstance(x, Number) else x

    return replace(call, args=mapped(call.args, new), kwargs=mapped(call.kwargs, new))
