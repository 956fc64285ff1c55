"""What a recording computes of parameters alone, computed once."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from returnn_lite.to_torch.functions import NUMBERS, changes_in_place, draws
from returnn_lite.to_torch.recorder import Call, Recorder, Tree, Value, is_plain, leaves, mapped


def values_of(call: Call) -> set[Value]:
    """The tensors that a call reads."""
    return {x for x in leaves(call.args, call.kwargs) if isinstance(x, Value)}


Key: TypeAlias = Hashable  # what a call on parameters computes, equal in all recordings


def folded(recordings: Sequence[Recorder]) -> list[Folding]:
    """The calls of each recording but those on parameters alone; what follows from the sizes of a batch is left."""
    varying: frozenset[Key] = frozenset()
    while True:
        foldings = [Folding(recorder.calls, varying) for recorder in recordings]
        met = {kind for folding in foldings for kind in folding.keys}
        own = [[folding.keys[kind] for folding in foldings if kind in folding.keys] for kind in met]
        more = {kind for kind, keys in zip(met, own, strict=True) if any(k != keys[0] for k in keys)}
        if not more:
            return foldings
        varying |= more


class Folding:
    """Takes off calls on parameters and constants alone, but those of the kinds `varying`.

    `made`: what they give, each once, `instead`: the Values in place of their results, `calls`: the others. `keys`: of
    each kind of call, which leaves numbers aside, those that were met.
    """

    def __init__(self, calls: Sequence[Call], varying: frozenset[Key] = frozenset()) -> None:
        self.varying = varying
        self.made: dict[Key, Tree] = {}
        self.instead: dict[Value, Value] = {}
        self.identities: dict[Value, Key] = {}
        self.keys: dict[Key, set[Key]] = {}
        self.params: set[str] = set()  # that calls on parameters alone read
        self.calls = self._rest(calls)

    def _rest(self, calls: Sequence[Call]) -> list[Call]:
        written = {call.args[0].storage for call in calls if changes_in_place(call.function)}
        kept = []
        for call in map(self._renamed, calls):
            changed = written & {x.storage for x in leaves(call.out) if isinstance(x, Value)}
            if changed or not self._is_fixed(call) or not self._fold(call):
                kept.append(call)
        return kept

    def _renamed(self, call: Call) -> Call:
        def new(x: Any) -> Any:
            return self.instead.get(x, x) if isinstance(x, Value) else x

        return replace(call, args=mapped(call.args, new), kwargs=mapped(call.kwargs, new), out=mapped(call.out, new))

    def _is_fixed(self, call: Call) -> bool:
        if call.function in NUMBERS or changes_in_place(call.function) or draws(call.function):
            return False
        read = values_of(call)
        if all(not v.shape and not v.dtype.is_floating_point for v in read):
            return False  # they may count the turns of a loop
        return all(v.source in ("param", "constant") for v in read)

    def _fold(self, call: Call) -> bool:
        """Computes the call, unless its kind is left."""
        arguments = [self._identity(x) if isinstance(x, Value) else x for x in leaves(call.args, call.kwargs)]
        key = (call.function, *map(repr, arguments))
        kind = (call.function, *("number" if is_plain(x) else repr(x) for x in arguments))
        if kind in self.varying:
            return False
        self.keys.setdefault(kind, set()).add(key)
        self.params |= {x.name for x in values_of(call) if x.source == "param"}
        if key not in self.made:
            self.made[key] = _constants(call)
            for old, new in zip(leaves(call.out), leaves(self.made[key]), strict=True):
                local = next((op.names[old] for op in reversed(call.ops) if old in op.names), "")
                if local and "/" in new.name:
                    new.name = f"{new.name.rpartition('/')[0]}/{local}"
            for i, x in enumerate(leaves(self.made[key])):
                self.identities[x] = (hash(key), i)
        for old, new in zip(leaves(call.out), leaves(self.made[key]), strict=True):
            self.instead[old] = new
        return True

    def _identity(self, x: Value) -> Key:
        """Equal for Values that are the same in all recordings."""
        if x not in self.identities:
            self.identities[x] = x.name if x.source == "param" else content(x)
        return self.identities[x]


def content(x: Value) -> Key:
    """The numbers of a constant."""
    return (x.dtype, x.shape, None if x.tensor is None else hash(x.tensor.contiguous().flatten().numpy().tobytes()))


def short_name(name: str) -> str:
    """The name of a parameter without what was done to it, and without what `batch_norm` repeats."""
    return re.sub(r"(/batch_norm/)\w*_", r"\1", name.partition(".")[0])


def _constants(call: Call) -> Tree:
    """The results of a call on parameters, as Values with their tensors."""
    args, kwargs = mapped((call.args, call.kwargs), lambda x: x.tensor if isinstance(x, Value) else x)
    out = call.function(*args, **kwargs)
    root = next(v for v in leaves(call.args, call.kwargs) if isinstance(v, Value))
    name = f"{short_name(root.name) or 'constant'}.{call.function.__name__.strip('_')}"
    return mapped(out, lambda x: Value(tuple(x.shape), x.dtype, "constant", name, x.detach().clone()))
