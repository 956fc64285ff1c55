"""Arithmetic with axes: the operations, which results are one and the same axis, and the names of results."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from returnn_lite.frontend.dim_op import Op
from returnn_lite.frontend.dim_sizes import SizedAxis

D = TypeVar("D", bound=SizedAxis)

_SYMBOLS = {"add": "+", "mul": "*", "floordiv": "//", "truediv": "/", "ceildiv": "ceildiv"}
_RIGHT_DIVISIONS = ("floordiv", "truediv", "ceildiv")
_LEFT_DIVISIONS = ("truediv_left", "ceildiv_left")


@functools.cache
def constant(value: int, make: Callable[..., D]) -> D:
    """The axis of a number; the same for the same number."""
    return make(value, name=str(value), auto=True, op=Op("constant", [], {"value": value}))


def constant_value(dim: SizedAxis | int) -> int | None:
    """The number of a constant, None for an axis."""
    if isinstance(dim, int):
        return dim
    op = dim.derived_from_op
    return op.attribs["value"] if op is not None and op.kind == "constant" else None


def add(a: D | int, b: D | int) -> D:
    """The axis a + b, one of them an axis."""
    for number, other in ((a, b), (b, a)):
        if constant_value(number) == 0 and not isinstance(other, int):
            return other
    left, right = _parts(a, "add"), _parts(b, "add")
    if left is not None and _cancel(left[1], b):
        return left[0]
    if right is not None and _cancel(right[0], a):
        return right[1]
    if not isinstance(a, int) and not isinstance(b, int) and constant_value(a) is None and a == b:
        return mul(2, a)
    return _derive("add", a, b)


def mul(a: D | int, b: D | int) -> D:
    """The axis a * b, one of them an axis."""
    for number, other in ((a, b), (b, a)):
        if constant_value(number) == 1 and not isinstance(other, int):
            return other
    return _derive("mul", a, b)


def negative(a: D) -> D:
    """The axis -a."""
    parts = _parts(a, "mul")
    if parts is not None and constant_value(parts[0]) == -1:
        return parts[1]
    return mul(-1, a)


def divide(kind: str, a: D | int, b: D | int) -> D:
    """The axis a divided by b: `kind` "floordiv", "truediv" or "ceildiv"."""
    number = constant_value(b)
    if number == 1 and not isinstance(a, int):
        return a
    factors = _parts(a, "mul")
    if factors is not None and _same(factors[1], b):
        return factors[0]
    before = _parts(a, kind) if kind != "truediv" else None
    if before is not None and number is not None and (first := constant_value(before[1])) is not None:
        return divide(kind, before[0], first * number)
    return _derive(kind, a, b)


def divide_left(kind: str, divisor: D | int, a: D) -> D:
    """The axis a divided by a factor at its left: `kind` "truediv_left" or "ceildiv_left"."""
    if constant_value(divisor) == 1:
        return a
    factors = _parts(a, "mul")
    if factors is not None and _same(factors[0], divisor):
        return factors[1]
    return _derive(kind, divisor, a)


def _parts(dim: D | int, kind: str) -> list[D] | None:
    """The operands of an axis that is made by this operation."""
    op = None if isinstance(dim, int) else dim.derived_from_op
    return op.inputs if op is not None and op.kind == kind else None


def _same(a: D, b: D | int) -> bool:
    number = constant_value(b)
    return constant_value(a) == number if number is not None else a == b


def _cancel(a: D, b: D | int) -> bool:
    """Whether a + b is nothing."""
    number = constant_value(b)
    if number is not None or isinstance(b, int):
        return number is not None and constant_value(a) == -number
    return constant_value(a) is None and (negative(a) == b)


def _derive(kind: str, a: D | int, b: D | int) -> D:
    """The axis of an operation, made once.

    It is kept with the operand that is an axis, of two with the younger one: an axis that lives long must not keep what
    was computed from those of every step.
    """
    at_left = isinstance(a, int) or (constant_value(a) is not None and not isinstance(b, int))
    base, other = (b, a) if at_left else (a, b)
    if isinstance(base, int):
        raise TypeError("one operand must be an axis")
    number = constant_value(other)
    holder = base.extent()
    key: tuple[Any, ...] = (kind, number, at_left)
    if number is None and not isinstance(other, int):
        key = (kind, other, at_left)
        if other.extent().serial > holder.serial:
            holder, key = other.extent(), (kind, base, not at_left)
    found = holder.derived.get(key)
    if found is None:
        found = holder.derived[key] = _make(kind, a, b, base)
    return found


def _make(kind: str, a: D | int, b: D | int, base: D) -> D:
    inputs = [base.constant(part) if isinstance(part, int) else part for part in (a, b)]
    op = Op(kind, inputs)
    sizes = [part.dimension for part in inputs]
    known = [size for size in sizes if size is not None]
    size = op.on_numbers(known, clip=False) if len(known) == len(sizes) else None
    return base.derive(size, _name(kind, inputs), op)


def _name(kind: str, inputs: list[D]) -> str:
    first, second = (_wrapped(part) for part in inputs)
    if kind in _LEFT_DIVISIONS:
        return f"{first}\\{second}" if kind == "truediv_left" else f"⌈{first}\\{second}⌉"
    if kind == "ceildiv":
        return f"⌈{first}/{second}⌉"
    value = constant_value(inputs[1])
    if kind == "add" and value is not None and value < 0:
        return f"{first}{value}"
    if kind == "mul" and constant_value(inputs[0]) == -1:
        return f"-{second}"
    return f"{first}{_SYMBOLS[kind]}{second}"


def _wrapped(dim: SizedAxis) -> str:
    op = dim.derived_from_op
    return dim.name if op is None or op.kind in ("constant", "ceildiv") else f"({dim.name})"
