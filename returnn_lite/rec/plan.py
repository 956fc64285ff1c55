"""The plan of a loop: which of its layers run before, inside and after it. A pure function of the dependency graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Item:
    """A layer of the loop: what it reads of the same tick and of the previous one.

    `stays`: why it must run inside, "" if nothing forbids to move it. `not_before`: why it cannot run before the loop.
    """

    name: str
    current: frozenset[str] = frozenset()
    previous: frozenset[str] = frozenset()
    stays: str = ""
    not_before: str = ""


@dataclass
class Plan:
    """Names of the layers in the order in which they run; `reasons` for each layer inside."""

    before: list[str] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)

    def put_behind(self, name: str, part: str) -> None:
        """A further layer that runs right behind another one."""
        for place in (self.before, self.inside, self.after):
            if name in place:
                place.insert(place.index(name) + 1, part)
        if name in self.reasons:
            self.reasons[part] = f"part of {name}"

    def text(self) -> str:
        """The plan for the log: one line per place, and the reason per layer inside."""
        lines = [f"  before the loop: {', '.join(self.before) or 'nothing'}"]
        lines += [f"  inside: {name} ({self.reasons[name]})" for name in self.inside] or ["  inside: nothing"]
        return "\n".join([*lines, f"  after the loop: {', '.join(self.after) or 'nothing'}"])


def make_plan(items: Iterable[Item], *, optimize: bool = True) -> Plan:
    """Moves layers out of the loop: what nothing else inside reads behind it, what reads nothing inside before it.

    `items` in an order in which each layer comes after those it reads in the same tick.
    """
    left = {item.name: item for item in items}
    order = list(left)
    plan = Plan()
    while optimize:
        moved = _last(left, order)
        if moved:
            plan.after.insert(0, moved)
        else:
            moved = _first(left, order)
            if not moved:
                break
            plan.before.append(moved)
        del left[moved]
    plan.inside = [name for name in order if name in left]
    plan.reasons = {name: _reason(left[name], left, optimize) for name in plan.inside}
    return plan


def _last(left: Mapping[str, Item], order: list[str]) -> str | None:
    """A layer that no layer inside reads, itself included."""
    read = {name for item in left.values() for name in item.current | item.previous}
    return next((n for n in reversed(order) if n in left and not left[n].stays and n not in read), None)


def _first(left: Mapping[str, Item], order: list[str]) -> str | None:
    """A layer that reads no layer inside."""
    free = (n for n in order if n in left and not left[n].stays and not left[n].not_before)
    return next((n for n in free if not _reads(left[n], left)), None)


def _reads(item: Item, left: Mapping[str, Item]) -> list[str]:
    return sorted(name for name in item.current | item.previous if name in left)


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
