"""Finds repetitions in a recording and rolls them up to loops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from returnn_lite.to_torch.functions import NUMBERS, changes_in_place, draws
from returnn_lite.to_torch.recorder import Call, Number, Tree, Value, is_plain, nest

TURNS = 4  # so many at least make a loop

Place: TypeAlias = tuple[int, int]  # a call of the body, a result of it


@dataclass(frozen=True)
class Part:
    """Consecutive elements of a list: `of` is the list of results of a call, or what a loop gives at `place`.

    `start`: of the first one, `end`: how many are left out at the end, `backward`: the last one comes first.
    """

    of: Call | Loop
    place: int | Place
    start: int
    end: int
    backward: bool = False


@dataclass(eq=False)
class Listed:
    """A list whose length depends on the data: single Values and parts of other lists."""

    parts: list[Value | Part]
    length: int

    def whole(self) -> Listed:
        """The list with all elements behind the last one."""
        *before, last = self.parts
        if not isinstance(last, Part) or last.backward:
            return self
        return Listed([*before, replace(last, end=0)], self.length + last.end)


@dataclass(frozen=True)
class Element:
    """The element of a list that belongs to the turn of the loop."""

    of: Listed


@dataclass(frozen=True, eq=False)
class Carried:
    """What the turn before gave at `place`; `first` in the first one."""

    first: Value
    place: Place

    def moved(self, now: Mapping[int, int]) -> Carried:
        """The same where calls have other numbers now."""
        return Carried(self.first, (now[self.place[0]], self.place[1]))


@dataclass(eq=False)
class Loop:
    """Calls that are repeated: `turns` times, each with results of its own.

    `inputs`: for each tensor that a turn reads where it comes from: `Element` or `Carried` by (call, number of the
    leaf); others are of the turn itself or from outside. `lists`: places of which all results are kept.
    """

    turns: list[list[Call]]
    inputs: dict[tuple[int, int], Element | Carried]
    lists: set[Place] = field(default_factory=set)
    layer: str = ""
    moved: dict[int, int] = field(default_factory=dict)  # calls that are left: their numbers before and now

    @property
    def carries(self) -> int:
        """How many values go from turn to turn."""
        return len({x.place for x in self.inputs.values() if isinstance(x, Carried)})

    @property
    def ticks_left(self) -> int:
        """How many turns could follow, if not all sequences had ended."""
        return max(call.ticks_left for call in self.turns[-1])

    def place_now(self, place: int | Place) -> Place:
        """Where a result stands since calls were left out."""
        if isinstance(place, int):
            raise TypeError("a place in a loop has two numbers")
        return self.moved[place[0]], place[1]

    def results(self, place: Place) -> list[Value]:
        """What all turns give there."""
        return [outs(turn[place[0]])[place[1]] for turn in self.turns]


Item: TypeAlias = "Call | Loop"


def outs(call: Call) -> list[Any]:
    """The results of a call."""
    return call.results


def reads(call: Call) -> list[Any]:
    """The leaves of the arguments of a call."""
    return call.arguments


def rolled(calls: Sequence[Call]) -> list[Item]:
    """The calls with loops in place of repetitions; lists that loops give are `Listed` where they are read."""
    rolling = Rolling(calls)
    return [_with_lists(item, rolling) if isinstance(item, Call) else item for item in rolling.items(0, len(calls))]


def repeats(calls: Sequence[Call]) -> bool:
    """Whether calls of one kind follow each other so often that they may be a loop."""
    return next(Rolling(calls).repetitions(0, len(calls)), None) is not None


class Rolling:
    """The repetitions of a recording; `lists`: where each Value stands in a list of results."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = list(calls)
        self.kinds = _kinds(calls)
        self.alike = list(_kinds(calls, by_params=False))
        self.lists: dict[Value, tuple[Call | Loop, int | Place, int, int]] = {}
        for call in calls:
            found = outs(call)
            if isinstance(call.out, (list, tuple)) and len(found) >= TURNS and call.use is None:
                self.lists.update({x: (call, 0, i, len(found)) for i, x in enumerate(found)})

    def items(self, start: int, end: int) -> list[Item]:
        """The calls of this range."""
        for begin, period, length in self.repetitions(start, end):
            found = self._best_loop(begin, period, length)
            if found is not None:
                first, loop = self._with_earlier_turns(start, *found)
                before = self.items(start, first)
                self._enlist(loop)
                return [*before, loop, *self.items(first + period * len(loop.turns), end)]
        return list(self.calls[start:end])

    def _best_loop(self, begin: int, period: int, length: int) -> tuple[int, Loop] | None:
        """The loop whose last turn is whole; else the one that carries least from turn to turn; else the longest."""
        rest = length % period
        found = self._loop(begin + rest, period, length // period)
        if found is not None:
            return found
        others = (self._loop(begin + s, period, (length - s) // period) for s in range(period) if s != rest)
        best = min((x for x in others if x is not None), key=lambda x: (x[1].carries, x[0]), default=None)
        return best or self._first_loop(begin, period, length)

    def _first_loop(self, begin: int, period: int, length: int) -> tuple[int, Loop] | None:
        """The longest loop at the beginning of a repetition, behind which another one follows."""
        found = None
        for start in range(period):
            low, high = TURNS - 1, (length - start) // period
            while low < high:
                count = (low + high + 1) // 2
                loop = self._loop(begin + start, period, count)
                if loop is None:
                    high = count - 1
                else:
                    low = count
                    found = loop if found is None or len(found[1].turns) < count else found
        return found

    def repetitions(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Start, period and length of repetitions, those that cover most first."""
        kinds = self.kinds[start:end]
        found = []
        for period in range(1, len(kinds) // TURNS + 1):
            equal = np.concatenate([[False], kinds[:-period] == kinds[period:], [False]])
            edges = np.flatnonzero(equal[1:] != equal[:-1]).reshape(-1, 2)
            for begin, stop in edges:
                length = int(stop - begin) + period
                if length >= TURNS * period:
                    found.append((length // period * period, -period, start + int(begin), length))
        for _, period, begin, length in sorted(found, reverse=True):
            yield begin, -period, length

    def _with_earlier_turns(self, start: int, first: int, loop: Loop) -> tuple[int, Loop]:
        """The loop with the turns before it that compute more besides; what does not depend on them goes first."""
        while True:
            body = self.alike[first : first + len(loop.turns[0])]
            turn: list[int] = []
            more: list[int] = []
            at = first
            while len(turn) < len(body) and at > start and len(more) <= len(body):
                at -= 1
                (turn if self.alike[at] == body[-1 - len(turn)] else more).append(at)
            more = more[::-1]
            made = {x for i in turn for x in outs(self.calls[i])}
            if len(turn) < len(body) or any(self._stays(self.calls[i], made) for i in more):
                return first, loop
            found = self._loop_of([[self.calls[i] for i in reversed(turn)], *loop.turns])
            if found is None:
                return first, loop
            order = [*more, *reversed(turn)]
            for kept in (self.calls, self.kinds, self.alike):
                kept[at:first] = [kept[i] for i in order]
            first, loop = at + len(more), found

    @staticmethod
    def _stays(call: Call, made: set[Any]) -> bool:
        """Whether a call must stay behind those that give `made`."""
        moves = not changes_in_place(call.function) and not draws(call.function) and call.function not in NUMBERS
        return not moves or any(x in made for x in reads(call) if isinstance(x, (Value, Number)))

    def _loop(self, begin: int, period: int, count: int) -> tuple[int, Loop] | None:
        """The loop of these turns, None if what they read does not follow a rule."""
        if count < TURNS:
            return None
        turns = [list(self.calls[begin + i * period : begin + (i + 1) * period]) for i in range(count)]
        loop = self._loop_of(turns)
        return None if loop is None else (begin, loop)

    def _loop_of(self, turns: list[list[Call]]) -> Loop | None:
        period = len(turns[0])
        made: dict[Any, tuple[int, Place]] = {}
        for i, turn in enumerate(turns):
            for j, call in enumerate(turn):
                for k, x in enumerate([] if changes_in_place(call.function) else outs(call)):
                    made.setdefault(x, (i, (j, k)))
        inputs = {}
        for j in range(period):
            for slot, read in enumerate(zip(*(reads(turn[j]) for turn in turns), strict=True)):
                if isinstance(read[0], (Value, Number)):
                    source = self._source(read, made)
                    if source is None:
                        return None
                    if isinstance(source, Element) and any(call.ticks_left for call in turns[-1]):
                        source = Element(source.of.whole())
                    if not isinstance(source, str):
                        inputs[j, slot] = source
        if not inputs:  # they all compute the same
            return None
        return Loop(turns, inputs, layer=turns[0][0].layer)

    def _source(self, read: tuple[Any, ...], made: dict[Any, tuple[int, Place]]) -> Any:
        """Where the turns take an argument from: "own", "outside", an Element or Carried; None if there is no rule."""
        places = [made.get(x) for x in read]
        if all(p is None for p in places) and all(x is read[0] for x in read):
            return "outside"
        if all(p is not None and p == (i, places[0][1]) for i, p in enumerate(places)):  # type: ignore[index]
            return "own"
        later = places[1:]
        if places[0] is None and all(p is not None and p == (i, later[0][1]) for i, p in enumerate(later)):  # type: ignore[index]
            return Carried(read[0], later[0][1])  # type: ignore[index]
        if any(p is not None for p in places):
            return None
        listed = self.listed(read)
        return Element(listed) if listed is not None else None

    def _enlist(self, loop: Loop) -> None:
        """All results of a loop are in lists from now on."""
        for j, call in enumerate(loop.turns[0]):
            for k, x in enumerate(outs(call)):
                if isinstance(x, Value):
                    results = loop.results((j, k))
                    self.lists.update({r: (loop, (j, k), i, len(results)) for i, r in enumerate(results)})

    def listed(self, values: Sequence[Any]) -> Listed | None:
        """These Values as parts of lists, None if they are all single."""
        parts: list[Value | Part] = []
        at = 0
        while at < len(values):
            length, part = self._part(values, at)
            if length > 1 and part is not None:
                parts.append(part)
            else:
                parts.append(values[at])
            at += max(length, 1)
        if not any(isinstance(part, Part) for part in parts) or len(parts) > 2 * TURNS:
            return None
        return Listed(parts, len(values))

    def _part(self, values: Sequence[Any], at: int) -> tuple[int, Part | None]:
        """The longest run of consecutive elements of a list from here on."""
        if values[at] not in self.lists:
            return 1, None
        of, place, first, total = self.lists[values[at]]
        for step in (1, -1):
            length = 1
            while at + length < len(values):
                if self.lists.get(values[at + length], ())[:3] != (of, place, first + step * length):
                    break
                length += 1
            if length > 1:
                low, high = sorted((first, first + step * (length - 1)))
                return length, Part(of, place, low, total - 1 - high, step < 0)
        return 1, None


def _with_lists(call: Call, rolling: Rolling) -> Call:
    """The call with `Listed` in place of lists of tensors that loops give."""

    def changed(tree: Tree) -> Tree:
        if isinstance(tree, (list, tuple)):
            if len(tree) >= TURNS and all(isinstance(x, Value) for x in tree):
                found = rolling.listed(tree)
                if found is not None:
                    return found
            items = [changed(item) for item in tree]
            return items if isinstance(tree, list) else tuple(items)
        return tree

    has_lists = any(isinstance(x, Value) and x in rolling.lists for x in reads(call))
    return replace(call, args=tuple(map(changed, call.args))) if has_lists else call


def _kinds(calls: Sequence[Call], *, by_params: bool = True) -> Any:
    """A number for each call, equal where they could be one call in a loop; `by_params`: of one set of parameters."""
    numbers: dict[Any, int] = {}

    def marked(x: Any) -> Any:
        if isinstance(x, Value):
            return x if by_params and x.source in ("param", "constant") else "value"
        return type(x).__name__ if is_plain(x) or isinstance(x, Number) else repr(x)

    kinds = [(c.function, nest((c.args, c.kwargs), marked), len(outs(c))) for c in calls]
    return np.array([numbers.setdefault(kind, len(numbers)) for kind in kinds])
