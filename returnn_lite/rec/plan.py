"""The plan of a loop: which of its layers run before, inside and after it. A pure function of the dependency graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush


@dataclass(frozen=True)
class Item:
    """A layer of the loop: what it reads of the same tick and of the previous one.

    `stays`: why it must run inside, "" if nothing forbids to move it. `not_before`: why it cannot run before the loop.
    `together`: layers with which it stands: where one of them is inside, so is it.
    """

    name: str
    current: frozenset[str] = frozenset()
    previous: frozenset[str] = frozenset()
    stays: str = ""
    not_before: str = ""
    together: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Plan:
    """Names of the layers in the order in which they run; `reasons` for each layer inside."""

    before: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)

    def with_parts(self, parts: Mapping[str, list[str]]) -> Plan:
        """The plan with further layers (by the name of another one) that run right behind it."""

        def whole(place: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(found for name in place for found in (name, *parts.get(name, ())))

        more = {part: f"part of {name}" for name in self.reasons for part in parts.get(name, ())}
        return Plan(whole(self.before), whole(self.inside), whole(self.after), {**self.reasons, **more})

    def text(self) -> str:
        """The plan for the log: one line per place, and the reason per layer inside."""
        lines = [f"  before the loop: {', '.join(self.before) or 'nothing'}"]
        lines += [f"  inside: {name} ({self.reasons[name]})" for name in self.inside] or ["  inside: nothing"]
        return "\n".join([*lines, f"  after the loop: {', '.join(self.after) or 'nothing'}"])


def make_plan(items: Iterable[Item], *, optimize: bool = True) -> Plan:
    """Moves layers out of the loop: what nothing else inside reads behind it, what reads nothing inside before it.

    `items` in an order in which each layer comes after those it reads in the same tick.
    """
    items = list(items)
    plan = _moved(items, optimize)
    while partners := {item.name: item.together & plan.reasons.keys() for item in items if _is_apart(item, plan)}:
        kept = {name: f"stands with {', '.join(sorted(found))}" for name, found in partners.items()}
        items = [replace(item, stays=kept.get(item.name, item.stays)) for item in items]
        plan = _moved(items, optimize)
    return plan


def _is_apart(item: Item, plan: Plan) -> bool:
    """Whether it is outside, and one that it stands with is inside."""
    return item.name not in plan.reasons and not plan.reasons.keys().isdisjoint(item.together)


def _moved(items: list[Item], optimize: bool) -> Plan:
    """The plan of layers of which none stands with another."""
    left = _Left(items)
    before: list[str] = []
    after: list[str] = []
    while optimize:
        moved = left.last()
        if moved is not None:
            after.append(moved.name)
        else:
            moved = left.first()
            if moved is None:
                break
            before.append(moved.name)
        left.remove(moved)
    inside = tuple(item.name for item in items if item.name in left.items)
    reasons = {name: _reason(left.items[name], left.items, optimize) for name in inside}
    return Plan(tuple(before), inside, tuple(reversed(after)), reasons)


class _Left:
    """The layers not moved out yet, and which of them can be moved: this is kept up to date, not searched."""

    def __init__(self, items: list[Item]) -> None:
        self.items = {item.name: item for item in items}
        self._number = {item.name: i for i, item in enumerate(items)}
        self._order = items
        self._readers: dict[str, list[str]] = {name: [] for name in self.items}
        self._read_by = dict.fromkeys(self.items, 0)  # how many of those left read it
        self._reads = dict.fromkeys(self.items, 0)  # how many of those left it reads
        for item in items:
            for name in item.current | item.previous:
                if name in self.items:
                    self._readers[name].append(item.name)
                    self._read_by[name] += 1
                    self._reads[item.name] += 1
        self._last: list[int] = []  # heap of negative numbers
        self._first: list[int] = []  # heap of numbers
        for item in items:
            self._offer(item)

    def _offer(self, item: Item) -> None:
        """Notes a layer that has become free to move."""
        if item.stays:
            return
        if not self._read_by[item.name]:
            heappush(self._last, -self._number[item.name])
        if not self._reads[item.name] and not item.not_before:
            heappush(self._first, self._number[item.name])

    def last(self) -> Item | None:
        """The last layer that no layer left reads, itself included."""
        return self._taken(self._last, -1)

    def first(self) -> Item | None:
        """The first layer that reads no layer left."""
        return self._taken(self._first, 1)

    def _taken(self, heap: list[int], sign: int) -> Item | None:
        while heap:
            item = self._order[sign * heappop(heap)]
            if item.name in self.items:
                return item
        return None

    def remove(self, item: Item) -> None:
        """Takes a layer out."""
        del self.items[item.name]
        for name in item.current | item.previous:
            if name in self.items:
                self._read_by[name] -= 1
                if not self._read_by[name]:
                    self._offer(self.items[name])
        for name in self._readers[item.name]:
            if name in self.items:
                self._reads[name] -= 1
                if not self._reads[name]:
                    self._offer(self.items[name])


def _reason(item: Item, left: Mapping[str, Item], optimize: bool) -> str:
    if item.stays:
        return item.stays
    if not optimize:
        return "optimize_move_layers_out is off"
    previous = sorted(n for n in item.previous if n in left)
    current = sorted(n for n in item.current if n in left)
    if not previous and not current:
        return item.not_before
    parts = [f"reads {', '.join(previous)} of the previous tick"] if previous else []
    parts += [f"reads {', '.join(current)}, which runs inside"] if current else []
    return " and ".join(parts)
