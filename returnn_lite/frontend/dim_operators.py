"""The operators of axes, and the methods that divide or subtract at a given side."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from returnn_lite.frontend import dim_math
from returnn_lite.frontend.dim_sizes import SizedAxis
from returnn_lite.frontend.errors import WrongUse

D = TypeVar("D", bound=SizedAxis)


class DimOperators(SizedAxis):
    """Arithmetic with axes and ints; the same expression is the same axis. A difference of sizes is at least 0."""

    __slots__ = ()

    def __add__(self: D, other: D | int) -> D:
        return dim_math.add(self, _part(other))

    def __radd__(self: D, other: D | int) -> D:
        return dim_math.add(_part(other), self)

    def __sub__(self: D, other: D | int) -> D:
        return dim_math.add(self, _minus(other))

    def __rsub__(self: D, other: D | int) -> D:
        return dim_math.add(_part(other), dim_math.negative(self))

    def sub_right(self: D, other: D | int) -> D:
        """self - other"""
        return dim_math.add(self, _minus(other))

    def sub_left(self: D, other: D | int) -> D:
        """-other + self"""
        return dim_math.add(_minus(other), self)

    def __mul__(self: D, other: D | int) -> D:
        return dim_math.mul(self, _part(other))

    def __rmul__(self: D, other: D | int) -> D:
        return dim_math.mul(_part(other), self)

    def __floordiv__(self: D, other: D | int) -> D:
        return dim_math.divide("floordiv", self, _part(other))

    def __rfloordiv__(self: D, other: D | int) -> D:
        return dim_math.divide("floordiv", _part(other), self)

    def __truediv__(self: D, other: D | int) -> D:
        return dim_math.divide("truediv", self, _part(other))

    def __rtruediv__(self: D, other: D | int) -> D:
        return dim_math.divide("truediv", _part(other), self)

    def __neg__(self: D) -> D:
        return dim_math.negative(self)

    def div_right(self: D, other: D | int) -> D:
        """self / other, rounded down"""
        return dim_math.divide("truediv", self, _part(other))

    def div_left(self: D, other: D | int) -> D:
        """self / other, rounded down, where `other` is the left factor"""
        return dim_math.divide_left("truediv_left", _part(other), self)

    def ceildiv_right(self: D, other: D | int) -> D:
        """self / other, rounded up"""
        return dim_math.divide("ceildiv", self, _part(other))

    def ceildiv_left(self: D, other: D | int) -> D:
        """self / other, rounded up, where `other` is the left factor"""
        return dim_math.divide_left("ceildiv_left", _part(other), self)

    ceildiv = ceildiv_right  # as layer nets call it

    def __index__(self) -> int:
        raise WrongUse(f"axis {self} is not a number; its size in the batch is its get_dim_value()")

    __int__ = __index__


def _part(value: D | int) -> D | int:
    if isinstance(value, DimOperators):
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    raise WrongUse(f"arithmetic with an axis needs an axis or an int, but got {value!r} instead")


def _minus(value: D | int) -> D | int:
    found = _part(value)
    return -found if isinstance(found, int) else dim_math.negative(found)
