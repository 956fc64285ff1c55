"""`returnn.util.math`: functions by points, such as learning rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from returnn_lite.errors import ConfigError, user_line


class _ByPoints:
    """A function of one number. `values`: y by x. kw_name: the keyword that is x; then the call may have others, if
    `ignore_other_kwargs`.
    """

    def __init__(
        self, values: Mapping[float, float], *, kw_name: str | None = None, ignore_other_kwargs: bool = False
    ) -> None:
        if not values:
            raise ConfigError(user_line(), f"{type(self).__name__} must have at least one point")
        points = sorted(values.items())
        self.x, self.y = (np.array(row, dtype="float64") for row in zip(*points, strict=True))
        self.kw_name, self.ignore_other_kwargs = kw_name, ignore_other_kwargs

    def __repr__(self) -> str:
        points = dict(zip(self.x.tolist(), self.y.tolist(), strict=True))
        return f"{type(self).__name__}({points}, kw_name={self.kw_name!r})"

    def __call__(self, *args: float, **kwargs: Any) -> float:
        """y at x, which is the argument, or the keyword `kw_name`."""
        if self.kw_name is not None and self.kw_name in kwargs:
            args = (*args, kwargs.pop(self.kw_name))
        if len(args) != 1 or (kwargs and not self.ignore_other_kwargs):
            wanted = "one number" if self.kw_name is None else f"the keyword {self.kw_name!r}"
            got = [*args, *kwargs]
            raise ConfigError(user_line(), f"{type(self).__name__} must be called with {wanted}, but got {got}")
        return self.at(float(args[0]))

    def at(self, x: float) -> float:
        """y at x."""
        raise NotImplementedError


class PiecewiseLinear(_ByPoints):
    """Linear between the points, constant outside."""

    def at(self, x: float) -> float:
        """y at x."""
        return float(np.interp(x, self.x, self.y))


class StepFunction(_ByPoints):
    """The value of the nearest point, of two equally near ones the lower."""

    def at(self, x: float) -> float:
        """y at x."""
        return float(self.y[np.abs(self.x - x).argmin()])


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def next_power_of_two(n: int) -> int:
    """The smallest power of two that is not below n."""
    return 1 << max(n - 1, 0).bit_length()


def names() -> dict[str, Any]:
    """The names of the module."""
    return {
        "PiecewiseLinear": PiecewiseLinear,
        "StepFunction": StepFunction,
        "ceil_div": ceil_div,
        "next_power_of_two": next_power_of_two,
    }
