"""What a recording computes of parameters alone, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from returnn_lite.to_torch.functions import NUMBERS, changes_in_place, draws
from returnn_lite.to_torch.recorder import Call, Tree, Value, leaves, mapped


def values_of(call: Call) -> set[Value]:
    """The tensors that a call reads."""
    return {x for x in leaves(call.args, call.kwargs) if isinstance(x, Value)}


class Folding:
    """Takes off calls on parameters and constants alone; `made`: what they give, each once."""

    def __init__(self) -> None:
        self.made: dict[Any, Tree] = {}
        self.instead: dict[Value, Value] = {}

    def rest(self, calls: Sequence[Call]) -> list[Call]:
        """The other calls."""
        written = {call.args[0].storage for call in calls if changes_in_place(call.function)}
        kept = []
        for call in map(self._renamed, calls):
            if self._is_fixed(call) and not written & {x.storage for x in leaves(call.out) if isinstance(x, Value)}:
                self._fold(call)
            else:
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
        return bool(read) and all(v.source in ("param", "constant") for v in read)

    def _fold(self, call: Call) -> None:
        key = (call.function, *(x if isinstance(x, Value) else repr(x) for x in leaves(call.args, call.kwargs)))
        if key not in self.made:
            self.made[key] = _constants(call)
        for old, new in zip(leaves(call.out), leaves(self.made[key]), strict=True):
            self.instead[old] = new


def _constants(call: Call) -> Tree:
    """The results of a call on parameters, as Values with their tensors."""
    args, kwargs = mapped((call.args, call.kwargs), lambda x: x.tensor if isinstance(x, Value) else x)
    out = call.function(*args, **kwargs)
    root = next(v for v in leaves(call.args, call.kwargs) if isinstance(v, Value))
    name = f"{root.name.partition('.')[0] or 'constant'}.{call.function.__name__.strip('_')}"
    return mapped(out, lambda x: Value(tuple(x.shape), x.dtype, "constant", name, x.detach().clone()))
