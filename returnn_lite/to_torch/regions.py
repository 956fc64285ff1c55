"""Calls of our `ops` in a recording, put together: each becomes one call of a function in the written file."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from returnn_lite.to_torch.loops import repeats
from returnn_lite.to_torch.recorder import Call, Number, Op, Value, is_plain, leaves, nest


@dataclass(eq=False)
class Use:
    """One use of a helper: what goes in, what is computed, in order; numbers among the arguments, in order."""

    inputs: list[Value | Number]
    values: list[Value | Number]
    numbers: list[int | float]
    calls: list[Call] = field(default_factory=list)


@dataclass(eq=False)
class Helper:
    """A function of the written file and all its uses; its `name` is `base`, with a number for others of this name.

    `escaping`: which of its values go out, by number.
    """

    base: str
    doc: str
    name: str = ""
    uses: list[Use] = field(default_factory=list)
    escaping: set[int] = field(default_factory=set)
    parameters: dict[int, str] = field(default_factory=dict)  # numbers that are handed in: which, by what name
    needs_device: bool = False

    @property
    def __name__(self) -> str:
        return self.name or self.base

    @property
    def calls(self) -> list[Call]:
        """Its calls as in the first use."""
        return self.uses[0].calls


def without_loops(recordings: Sequence[Sequence[Call]]) -> list[list[Call]]:
    """The calls of several recordings, where no function of `ops` has a loop: those that it calls come in its place."""
    looped: set[str] = set()
    calls = [list(of_recording) for of_recording in recordings]
    while True:
        found: dict[str, list[list[Call]]] = {}
        for region in (region for of_recording in calls for region in _regions(of_recording)):
            if region[0].op is not None:
                found.setdefault(region[0].op.name, []).append(region)
        names = {name for name, regions in found.items() if _loops(regions)}
        if not names:
            return calls
        looped |= names
        calls = [[replace(c, ops=_after(c.ops, looped)) for c in of_recording] for of_recording in calls]


def _after(ops: tuple[Op, ...], looped: set[str]) -> tuple[Op, ...]:
    """The functions inside of those with loops."""
    return tuple(itertools.dropwhile(lambda op: op.name in looped, ops))


def _loops(regions: list[list[Call]]) -> bool:
    """Whether these calls of a function have loops, of other lengths for other sizes."""
    longest = max(regions, key=len)
    return len({len(region) for region in regions}) > 1 and repeats(longest)


def _regions(calls: Sequence[Call]) -> list[list[Call]]:
    """Consecutive calls of one call of a function of `ops`; others by themselves."""
    groups = itertools.groupby(calls, lambda c: (id(c.op), id(c)) if c.op is None else id(c.op))
    return [list(region) for _, region in groups]


def name_helpers(helpers: Sequence[Helper]) -> None:
    """Gives the functions of a file names of their own, in their order."""
    seen = Counter[str]()
    for helper in helpers:
        seen[helper.base] += 1
        helper.name = helper.base if seen[helper.base] == 1 else f"{helper.base}_{seen[helper.base]}"


class Grouping:
    """Turns the calls of one function of `ops` into a call of a Helper; equal ones share it."""

    def __init__(self) -> None:
        self.helpers: dict[Any, Helper] = {}

    def grouped(self, calls: Sequence[Call], outputs: set[Value | Number]) -> list[Call]:
        """The calls with helpers in place of regions of two calls and more."""
        regions = _regions(calls)
        readers: dict[Any, set[int]] = {}
        for i, region in enumerate(regions):
            for x in leaves([[c.args, c.kwargs] for c in region]):
                if isinstance(x, (Value, Number)):
                    readers.setdefault(x, set()).add(i)
        for x in outputs:
            readers.setdefault(x, set()).add(-1)
        grouped = []
        for i, region in enumerate(regions):
            if region[0].op is None or len(region) < 2:
                grouped += region
            else:
                grouped.append(self._call(region, lambda x, i=i: bool(readers.get(x, set()) - {i})))
        return grouped

    def _call(self, region: list[Call], is_read: Any) -> Call:
        use, key = structure(region)
        helper = self.helpers.get(key)
        if helper is None:
            helper = self.helpers[key] = self._new_helper(region[0])
        helper.uses.append(use)
        helper.escaping |= {i for i, x in enumerate(use.values) if is_read(x)}
        return Call(helper, tuple(use.inputs), {}, tuple(use.values), region[0].layer, (), use)

    def _new_helper(self, call: Call) -> Helper:
        name, doc = (call.op.name, call.op.doc) if call.op is not None else ("", "")
        return Helper(name, doc)


def structure(calls: Sequence[Call]) -> tuple[Use, Any]:
    """What goes in and out of these calls; and all but Values and ints of them, equal where they compute alike."""
    inputs: dict[Value | Number, int] = {}
    made: dict[Value | Number, int] = {}
    numbers: list[int | float] = []

    def marked(x: Any) -> Any:
        if isinstance(x, (Value, Number)):
            if x in made:
                return ("made", made[x])
            return ("input", inputs.setdefault(x, len(inputs)))
        if is_plain(x):
            numbers.append(x)
            return type(x).__name__
        return repr(x)

    key = []
    for call in calls:
        arguments = nest((call.args, call.kwargs), marked)
        outs = [x for x in leaves(call.out) if isinstance(x, (Value, Number))]
        for x in outs:
            if x not in inputs:
                made.setdefault(x, len(made))
        key.append((call.function, arguments, len(outs)))
    return Use(list(inputs), list(made), numbers, list(calls)), tuple(key)
