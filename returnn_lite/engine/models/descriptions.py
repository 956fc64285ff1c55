"""Whether two descriptions of a net are equal, and where they differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from returnn_lite.config_value import ConfigValue
from returnn_lite.tensor import Dim
from returnn_lite.tensor.foreign import with_core_dims

DEPTH = 200  # of nets within nets


def same_description(a: ConfigValue, b: ConfigValue, fixed: Iterable[Dim] = ()) -> bool:
    """Deep equality of net descriptions; functions count as equal only if they are the same object.

    Axes may be objects made anew: the descriptions are equal if the axes of one are, one to one, those of the other,
    with the same kind, size and name. `fixed`: axes that are known elsewhere, too, and stand for themselves alone.
    """
    return _Comparison(fixed).same(with_core_dims(a, DEPTH), with_core_dims(b, DEPTH))


def description_diff(old: ConfigValue, new: ConfigValue, fixed: Iterable[Dim] = ()) -> Iterator[str]:
    """One line for every entry that differs."""
    return _Comparison(fixed).differences(with_core_dims(old, DEPTH), with_core_dims(new, DEPTH), "")


def dims_in(value: ConfigValue) -> set[Dim]:
    """All axes within dicts, lists and sets."""
    value = with_core_dims(value, 0)
    if isinstance(value, Dim):
        return {value}
    if isinstance(value, Mapping):
        return dims_in(list(value.keys())) | dims_in(list(value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return {dim for item in value for dim in dims_in(item)}
    return set()


class _Comparison:
    """Two descriptions, and which axis of one is which of the other as far as that is known."""

    def __init__(self, fixed: Iterable[Dim]) -> None:
        self.pairs: dict[Dim, Dim] = {}
        self.taken: set[Dim] = set()
        for dim in fixed:
            self._pair(dim.base, dim.base)

    def same(self, a: ConfigValue, b: ConfigValue) -> bool:
        """Whether two parts are equal."""
        if isinstance(a, Dim) and isinstance(b, Dim):
            return self._same_dim(a, b)
        if isinstance(a, dict) and isinstance(b, dict):
            return self._same_dict(a, b)
        if isinstance(a, list | tuple) and type(a) is type(b):
            return len(a) == len(b) and all(map(self.same, a, b))
        if isinstance(a, set | frozenset) and type(a) is type(b):
            return len(a) == len(b) and self._matched(a, b) is not None
        if isinstance(a, np.ndarray | torch.Tensor) or isinstance(b, np.ndarray | torch.Tensor):
            return type(a) is type(b) and a.shape == b.shape and bool((a == b).all())
        return bool(a is b or (type(a) is type(b) or not callable(a)) and a == b)

    def differences(self, old: ConfigValue, new: ConfigValue, path: str) -> Iterator[str]:
        """One line for every entry that differs."""
        if isinstance(old, dict) and isinstance(new, dict):
            partners = {key: self._partner(key, new) for key in old}
            for key in sorted({*old, *new}, key=str):
                where = f"{path}[{key!r}]"
                if key in old and partners[key] is None:
                    yield f"{where} removed"
                elif key in old:
                    yield from self.differences(old[key], new[partners[key]], where)
                elif not any(key is partner for partner in partners.values()):
                    yield f"{where} added: {new[key]!r}"
        elif not self.same(old, new):
            yield f"{path}: {old!r} -> {new!r}"

    def _partner(self, key: Any, others: dict[Any, Any]) -> Any:
        """The key of the other dict that is equal to this one; None if there is none."""
        if not isinstance(key, Dim):
            return key if key in others else None
        return next((other for other in others if isinstance(other, Dim) and self._same_dim(key, other)), None)

    def _same_dict(self, a: dict[Any, Any], b: dict[Any, Any]) -> bool:
        if len(a) != len(b):
            return False
        # A pair of keys that are no axes need not be looked for.
        keys = {key: key for key in a if key in b and not isinstance(key, Dim)}
        rest = self._matched([k for k in a if k not in keys], [k for k in b if k not in keys])
        return rest is not None and all(self.same(a[key], b[other]) for key, other in {**keys, **rest}.items())

    def _matched(self, a: Iterable[Any], b: Iterable[Any]) -> dict[Any, Any] | None:
        """{item of a: the equal item of b}, for hashable items without order; None if one has none. Axes that are known
        already come first."""
        left, found = list(b), {}
        for item in sorted(a, key=lambda item: isinstance(item, Dim) and item.base not in self.pairs):
            partner = next((other for other in left if self.same(item, other)), None)
            if partner is None:
                return None
            found[item] = partner
            left = [other for other in left if other is not partner]
        return found

    def _same_dim(self, a: Dim, b: Dim) -> bool:
        if (a.kind, a.size, a.name) != (b.kind, b.size, b.name):
            return False
        a, b = a.base, b.base
        if a in self.pairs or b in self.taken:
            return self.pairs.get(a) == b
        if a.op or b.op:
            return a.op == b.op and len(a.parts) == len(b.parts) and all(map(self.same, a.parts, b.parts))
        if a != b and (a.is_batch or b.is_batch or (a.kind, a.size, a.name) != (b.kind, b.size, b.name)):
            return False
        self._pair(a, b)
        return True

    def _pair(self, a: Dim, b: Dim) -> None:
        self.pairs[a] = b
        self.taken.add(b)
