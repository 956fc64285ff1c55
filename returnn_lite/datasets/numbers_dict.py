"""`NumbersDict`: numbers by data key, with arithmetic key by key."""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Number = Any  # int, float, bool; what configs put in
Operation = Callable[[Number, Number], Number]


class NumbersDict(dict[str, Number]):
    """Numbers by key, and maybe one (`value`) for all other keys.

    Arithmetic, comparison, `max` and `min` go key by key; other operands are a number (for all keys), a dict, or
    another NumbersDict. A key that one side lacks counts as 0 there in sums and differences, as 1 in products and
    quotients, and not at all in `max`, `min` and `any_compare`.
    """

    def __init__(
        self,
        auto_convert: Mapping[str, Number] | Number | None = None,
        numbers_dict: Mapping[str, Number] | None = None,
        broadcast_value: Number | None = None,
    ) -> None:
        given = auto_convert if auto_convert is not None else numbers_dict
        self.value: Number | None = broadcast_value
        if isinstance(given, NumbersDict):
            self.value = given.value if broadcast_value is None else broadcast_value
        elif given is not None and not isinstance(given, Mapping):
            self.value, given = given, None
        super().__init__(given or {})

    @classmethod
    def constant_like(cls, const_number: Number, numbers_dict: Mapping[str, Number]) -> NumbersDict:
        """The same number for the keys of another."""
        like = cls(numbers_dict)
        value = None if like.value is None else const_number
        return cls(numbers_dict=dict.fromkeys(like, const_number), broadcast_value=value)

    # --- access ---

    @property
    def dict(self) -> builtins.dict[str, Number]:
        """The numbers that belong to keys."""
        return builtins.dict(self)

    def __missing__(self, key: str) -> Number:
        if self.value is None:
            raise KeyError(key)
        return self.value

    def get(self, key: str, default: Number = None) -> Number:
        """The number of a key."""
        return self[key] if key in self or self.value is not None else default

    def copy(self) -> NumbersDict:
        """Another one with the same numbers."""
        return type(self)(self)

    def copy_like(self, numbers_dict: Mapping[str, Number]) -> NumbersDict:
        """These numbers with exactly the keys of another; KeyError where one is missing."""
        return type(self)(numbers_dict={key: self[key] for key in numbers_dict}, broadcast_value=self.value)

    @property
    def keys_set(self) -> set[str]:
        """The keys with a number of their own."""
        return set(self)

    @classmethod
    def keys_union(cls, seq: Iterable[Mapping[str, Number]]) -> set[str]:
        """All keys of several."""
        return set().union(*seq)

    def has_values(self) -> bool:
        """Whether there is any number."""
        return len(self) > 0 or self.value is not None

    __bool__ = has_values

    def __repr__(self) -> str:
        value = [] if self.value is None else [f"broadcast_value={self.value!r}"]
        return f"NumbersDict({', '.join([*([repr(self.dict)] if len(self) or not value else []), *value])})"

    # --- key by key ---

    def _joined(self, other: Number | Mapping[str, Number], function: Operation, missing: Number | None) -> NumbersDict:
        """function(a, b) for all keys. What one side lacks is `missing`, or if that is None the other side's number."""
        there = other if isinstance(other, NumbersDict) else NumbersDict(other)

        def of(a: Number | None, b: Number | None) -> Number | None:
            if a is None and b is None:
                return None
            if missing is None and (a is None or b is None):
                return b if a is None else a
            return function(missing if a is None else a, missing if b is None else b)

        keys = [*self, *(key for key in there if key not in self)]
        numbers = {key: of(self.get(key), there.get(key)) for key in keys}
        return NumbersDict(numbers_dict=numbers, broadcast_value=of(self.value, there.value))

    def _common(
        self, other: Number | Mapping[str, Number], function: Operation, with_default: bool = True
    ) -> NumbersDict:
        """function(a, b) for the keys that both sides have a number for."""
        there = other if isinstance(other, NumbersDict) else NumbersDict(other)
        keys = [*self, *(key for key in there if key not in self)]
        numbers = {
            key: function(self[key], there[key])
            for key in keys
            if self.get(key) is not None and there.get(key) is not None
        }
        both = with_default and self.value is not None and there.value is not None
        return NumbersDict(numbers_dict=numbers, broadcast_value=function(self.value, there.value) if both else None)

    def unary_op(self, op: Callable[[Number], Number]) -> NumbersDict:
        """A function of every number."""
        value = None if self.value is None else op(self.value)
        return NumbersDict(numbers_dict={key: op(number) for key, number in self.items()}, broadcast_value=value)

    def __add__(self, other: Number | Mapping[str, Number]) -> NumbersDict:
        return self._joined(other, operator.add, 0)

    def __radd__(self, other: Number | Mapping[str, Number]) -> NumbersDict:
        return self._joined(other, operator.add, 0)  # sum() begins with the number 0

    def __sub__(self, other: Number | Mapping[str, Number]) -> NumbersDict:
        return self._joined(other, operator.sub, 0)

    def __rsub__(self, other: Number | Mapping[str, Number]) -> NumbersDict:
        return self._joined(other, lambda a, b: b - a, 0)

    def __mul__(self, other: Number | Mapping[str, Number]) -> NumbersDict:
        return self._joined(other, operator.mul, 1)

    def __rmul__(self, other: Number | Mapping[str, Number]) -> NumbersDict:
        return self._joined(other, operator.mul, 1)

    def __truediv__(self, other: Number | Mapping[str, Number]) -> NumbersDict:
        return self._joined(other, operator.truediv, 1)

    def __rtruediv__(self, other: Number | Mapping[str, Number]) -> NumbersDict:
        return self._joined(other, lambda a, b: b / a, 1)

    def __floordiv__(self, other: Number | Mapping[str, Number]) -> NumbersDict:
        return self._joined(other, operator.floordiv, 1)

    def __rfloordiv__(self, other: Number | Mapping[str, Number]) -> NumbersDict:
        return self._joined(other, lambda a, b: b // a, 1)

    def __mod__(self, other: Number | Mapping[str, Number]) -> NumbersDict:
        return self._common(other, operator.mod)

    def __neg__(self) -> NumbersDict:
        return self.unary_op(operator.neg)

    # --- comparison ---

    def __eq__(self, other: object) -> bool:
        """Whether all numbers are equal; a key that one side lacks makes them unequal."""
        if isinstance(other, Mapping):
            there = NumbersDict(other)
            return self.keys_set | there.keys_set == set(self._common(there, operator.eq)) and (
                self.value == there.value and all(self._common(there, operator.eq).values())
            )
        return self.has_values() and all(number == other for number in self._all())

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def elem_eq(self, other: Number | Mapping[str, Number], result_with_default: bool = True) -> NumbersDict:
        """Key by key whether they are equal; of the numbers for all other keys only where that is wanted."""
        return self._common(other, operator.eq, result_with_default)

    def any_compare(self, other: Number | Mapping[str, Number], cmp: Operation) -> bool:
        """Whether a comparison holds for any key that both have."""
        return any(self._common(other, cmp)._all())

    # --- the largest and the smallest ---

    @classmethod
    def max(cls, items: Iterable[Number | Mapping[str, Number]]) -> NumbersDict:
        """The largest number of each key."""
        return cls._best(items, builtins.max)

    @classmethod
    def min(cls, items: Iterable[Number | Mapping[str, Number]]) -> NumbersDict:
        """The smallest number of each key."""
        return cls._best(items, builtins.min)

    @classmethod
    def _best(cls, items: Iterable[Number | Mapping[str, Number]], better: Operation) -> NumbersDict:
        found = None
        for item in items:
            found = cls(item) if found is None else found._joined(item, better, None)
        if found is None:
            raise ValueError(f"{better.__name__} of no numbers")
        return found

    def max_value(self) -> Number:
        """The largest number."""
        return builtins.max(self._all())

    def min_value(self) -> Number:
        """The smallest number."""
        return builtins.min(self._all())

    def _all(self) -> list[Number]:
        return [*self.values(), *([] if self.value is None else [self.value])]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (None, self.dict, self.value)
