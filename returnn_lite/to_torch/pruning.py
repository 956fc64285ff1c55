"""A rolled recording without what no output needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from returnn_lite.to_torch.functions import changes_in_place
from returnn_lite.to_torch.loops import Carried, Element, Item, Listed, Loop, Part, Place, outs, reads
from returnn_lite.to_torch.recorder import Call, Number, Value
from returnn_lite.to_torch.regions import Helper


def ends_loop(call: Call) -> bool:
    """Whether a call asks if all sequences have ended."""
    return call.function is torch.Tensor.__bool__


class Live:
    """What is needed after some point: results, lists of loops, storages of tensors."""

    def __init__(self, results: Iterable[Any]) -> None:
        self.results: set[Any] = set()
        self.storages: set[int] = set()
        self.lists: set[tuple[Loop, Place]] = set()
        self.add(results)

    def add(self, read: Iterable[Any]) -> None:
        """Takes up what a call reads."""
        for x in read:
            if isinstance(x, Listed):
                self.add(part for part in x.parts if isinstance(part, Value))
                for part in x.parts:
                    if isinstance(part, Part) and isinstance(part.of, Loop) and not isinstance(part.place, int):
                        self.lists.add((part.of, part.place))
                    elif isinstance(part, Part) and isinstance(part.of, Call):
                        self.add(outs(part.of))
            elif isinstance(x, (Value, Number)):
                self.results.add(x)
                if isinstance(x, Value) and x.storage:
                    self.storages.add(x.storage)

    def needs(self, call: Call) -> bool:
        """Whether a call computes or changes any of it."""
        if self.results & {x for x in outs(call) if isinstance(x, (Value, Number))}:
            return True
        return bool(self.storages & written(call))


def written(call: Call) -> set[int]:
    """The storages that a call changes in place."""
    if isinstance(call.function, Helper):
        first = call.function.uses[0].inputs
        inside = {s for inner in call.function.calls for s in written(inner)}
        return {
            x.storage
            for x, own in zip(call.args, first, strict=True)
            if isinstance(own, Value) and own.storage in inside
        }
    return {call.args[0].storage} if changes_in_place(call.function) else set()


def pruned(items: Sequence[Item], live: Live) -> list[Item]:
    """The items that are needed; `live` is then what they need in turn."""
    kept: list[Item] = []
    for item in reversed(items):
        if isinstance(item, Call):
            if live.needs(item):
                kept.append(item)
                live.add(reads(item))
        else:
            smaller = _pruned_loop(item, live)
            if smaller is not None:
                kept.append(smaller)
    return kept[::-1]


def needed_calls(calls: Sequence[Call], results: Iterable[Any]) -> list[int]:
    """The numbers of the calls that these results need."""
    live, kept = Live(results), []
    for i in range(len(calls) - 1, -1, -1):
        if live.needs(calls[i]):
            kept.append(i)
            live.add(reads(calls[i]))
    return kept[::-1]


def _pruned_loop(loop: Loop, live: Live) -> Loop | None:
    """The loop with the calls that are needed of it, None if none is."""
    last = loop.turns[-1]
    listed = {place for of, place in live.lists if of is loop}
    wanted = [
        x for j, call in enumerate(last) for k, x in enumerate(outs(call)) if x in live.results or (j, k) in listed
    ]
    if not wanted and not any(live.storages & written(call) for call in last):
        return None
    inside = Live(wanted)
    inside.storages |= live.storages
    order = _needed_in_turns(loop, inside)
    now = {before: i for i, before in enumerate(order)}
    kept: dict[tuple[int, int], Element | Carried] = {}
    for (j, slot), source in loop.inputs.items():
        if j in now:
            live.add([source.first if isinstance(source, Carried) else source.of])
            kept[now[j], slot] = source.moved(now) if isinstance(source, Carried) else source
    loop.turns, loop.inputs, loop.moved = [[turn[j] for j in order] for turn in loop.turns], kept, now
    loop.lists = {(now[j], k) for j, k in listed}
    made = {x for call in last for x in outs(call)}
    live.add(x for call in loop.turns[0] for x in reads(call) if x not in made)
    return loop


def _needed_in_turns(loop: Loop, live: Live) -> list[int]:
    """The numbers of the calls that a turn needs for what is live, and for what later turns need of it."""
    last, keep, before = loop.turns[-1], set[int](), -1
    while len(keep) > before:
        before = len(keep)
        for j in range(len(last) - 1, -1, -1):
            if j not in keep and (live.needs(last[j]) or ends_loop(last[j])):
                keep.add(j)
                live.add(reads(last[j]))
        for (j, _), source in loop.inputs.items():
            if j in keep and isinstance(source, Carried):
                live.add([outs(last[source.place[0]])[source.place[1]]])
    return sorted(keep)
