"""Operations on two tensors, or a tensor and a number: `combine`, `compare`, and what operators do."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from returnn_lite.errors import did_you_mean
from returnn_lite.frontend.dim import Dim, Dims
from returnn_lite.frontend.errors import WrongUse, kind
from returnn_lite.frontend.layout import arranged, joined, show
from returnn_lite.frontend.tensor_base import TensorBase
from returnn_lite.frontend.types import AnyTensor, Operand

Function = Callable[[Any, Any], Any]


def _on_tensors(function: Callable[..., torch.Tensor]) -> Function:
    """The same function, which also takes a number at one side."""

    def call(a: Any, b: Any) -> torch.Tensor:
        return function(
            a if isinstance(a, torch.Tensor) else torch.tensor(a), b if isinstance(b, torch.Tensor) else torch.tensor(b)
        )

    return call


COMBINE: dict[str, Function] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "pow": operator.pow,
    "maximum": _on_tensors(torch.maximum),
    "minimum": _on_tensors(torch.minimum),
    "logical_and": _on_tensors(torch.logical_and),
    "logical_or": _on_tensors(torch.logical_or),
    "squared_difference": lambda a, b: (a - b) ** 2,
    "logaddexp": _on_tensors(torch.logaddexp),
}
COMPARE: dict[str, Function] = {
    "equal": operator.eq,
    "not_equal": operator.ne,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
}
_SIGNS = {"+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "%": "mod", "**": "pow"}
_SIGNS |= {"max": "maximum", "min": "minimum", "div": "truediv"}
_COMPARE_SIGNS = {"==": "equal", "!=": "not_equal", "<>": "not_equal", "<": "less", "<=": "less_equal"}
_COMPARE_SIGNS |= {">": "greater", ">=": "greater_equal"}


def combine(
    a: Operand,
    kind: str,
    b: Operand,
    *,
    allow_broadcast_all_sources: bool | None = None,
    dim_order: Sequence[Dim] | None = None,
) -> Operand:
    """a and b combined by `kind`, a name ("add", "maximum") or sign ("+", "max").

    The axes are those of the operand that has all (of `a`, if both do), else those of `a` and the further ones of `b`;
    `dim_order` sorts them. allow_broadcast_all_sources: neither refuses.
    """
    return binary(_function(COMBINE, _SIGNS, kind), a, b, dim_order, kind)


def compare(
    a: Operand,
    kind: str,
    b: Operand,
    *,
    allow_broadcast_all_sources: bool | None = None,
    dim_order: Sequence[Dim] | None = None,
) -> Operand:
    """a and b compared by `kind`, a name ("less") or sign ("<"); axes as of `combine`."""
    return _compared(binary(_function(COMPARE, _COMPARE_SIGNS, kind), a, b, dim_order, kind))


def combine_bc(a: Operand, kind: str, b: Operand, *, dim_order: Sequence[Dim] | None = None) -> Operand:
    """`combine`; both operands may lack axes."""
    return combine(a, kind, b, dim_order=dim_order)


def compare_bc(a: Operand, kind: str, b: Operand, *, dim_order: Sequence[Dim] | None = None) -> Operand:
    """`compare`; both operands may lack axes."""
    return compare(a, kind, b, dim_order=dim_order)


def _function(table: dict[str, Function], signs: dict[str, str], kind: str) -> Function:
    found = table.get(signs.get(kind, kind))
    if found is None:
        known = [*table, *signs]
        raise WrongUse(f"`kind` must be one of {', '.join(known)}, but is {kind!r} instead{did_you_mean(kind, known)}")
    return found


def _compared(result: Any) -> Any:
    if isinstance(result, TensorBase):
        result._sparse_dim = None
    return result


def binary(
    function: Function, a: Operand, b: Operand, dim_order: Sequence[Dim] | None = None, what: str = "combine"
) -> Operand:
    """The function on two operands of which one at least is a Tensor (else on the numbers)."""
    if not isinstance(b, TensorBase):
        b = number(b, what)
        if not isinstance(b, TensorBase):
            return a._like(function(a._raw, b)) if isinstance(a, TensorBase) else _number_first(function, a, b, what)
    if not isinstance(a, TensorBase):
        return _number_first(function, a, b, what)
    if a._raw is None or b._raw is None:
        raise WrongUse(f"{what} of {a} and {b}: a template has no data")
    if a._dims is b._dims or a._dims == b._dims:
        if dim_order is None:
            try:
                return a._like(function(a._raw, b._raw))
            except RuntimeError as error:
                raise WrongUse(f"{what} of {a} and {b}: {str(error).splitlines()[0]}") from None
        dims: Dims = a._dims
    else:
        dims = joined(a._dims, b._dims)
    plain = dims
    if dim_order is not None:
        order = list(dim_order)
        dims = tuple(sorted(dims, key=lambda dim: order.index(dim) if dim in order else len(order)))
    try:
        left = arranged(a._raw, a._dims, dims, len(a._dims) == len(dims))
        raw = function(left, arranged(b._raw, b._dims, dims, len(a._dims) < len(dims)))
    except RuntimeError as error:
        raise WrongUse(f"{what} of {a} and {b}: {str(error).splitlines()[0]}") from None
    sparse, feature = _roles(a, b, plain)
    return a._new(raw, dims, sparse_dim=sparse, feature_axis=None if feature is None else dims.index(feature))


def _number_first(function: Function, a: Any, b: Any, what: str) -> Any:
    a = number(a, what)
    if isinstance(a, TensorBase):
        return binary(function, a, b, None, what)
    return b._like(function(a, b._raw)) if isinstance(b, TensorBase) else function(a, b)


def _roles(a: TensorBase[AnyTensor], b: TensorBase[AnyTensor], dims: Dims) -> tuple[Dim | None, Dim | None]:
    """The sparse and the feature axis of a result: of the operand that gives the axes."""
    if not b._dims or (dims is a._dims and a._dims):
        return a._sparse_dim, a.feature_dim
    if not a._dims or dims is b._dims:
        return b._sparse_dim, b.feature_dim
    return _agreed(a._sparse_dim, b._sparse_dim), _agreed(a.feature_dim, b.feature_dim)


def _agreed(a: Dim | None, b: Dim | None) -> Dim | None:
    if a is None or b is None:
        return b if a is None else a
    return a if a == b else None


def number(value: object, what: str = "") -> Operand:
    """An operand as torch takes it: a Python number, or a tensor. WrongUse for other things."""
    if isinstance(value, bool | int | float | complex | TensorBase):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 0:
        return AnyTensor.new(torch.as_tensor(value), ())
    raise WrongUse(f"{what}: an operand must be a Tensor or a number, but is {kind(value)}")


def is_operand(value: object) -> bool:
    """Whether operators take it."""
    if isinstance(value, TensorBase | bool | int | float | complex | np.generic):
        return True
    return isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 0


# --- by name ----------------------------------------------------------------------------------------------------------


def _named(table: dict[str, Function], kind: str, doc: str) -> Callable[[Any, Any], Any]:
    function, compared = table[kind], table is COMPARE

    def call(a: Any, b: Any) -> Any:
        found = binary(function, a, b, None, kind)
        return _compared(found) if compared else found

    call.__name__ = call.__qualname__ = kind
    call.__doc__ = doc
    return call


add = _named(COMBINE, "add", "a + b")
sub = _named(COMBINE, "sub", "a - b")
mul = _named(COMBINE, "mul", "a * b")
true_divide = _named(COMBINE, "truediv", "a / b")
floor_divide = _named(COMBINE, "floordiv", "a / b, rounded down")
mod = _named(COMBINE, "mod", "The rest of a / b, with the sign of b.")
pow = _named(COMBINE, "pow", "a ** b")  # noqa: A001 - the users' name
squared_difference = _named(COMBINE, "squared_difference", "(a - b)²")
log_add_exp = _named(COMBINE, "logaddexp", "log(exp(a) + exp(b))")
logical_and = _named(COMBINE, "logical_and", "a and b")
logical_or = _named(COMBINE, "logical_or", "a or b")
equal = _named(COMPARE, "equal", "a == b")
not_equal = _named(COMPARE, "not_equal", "a != b")
less = _named(COMPARE, "less", "a < b")
less_equal = _named(COMPARE, "less_equal", "a <= b")
greater = _named(COMPARE, "greater", "a > b")
greater_equal = _named(COMPARE, "greater_equal", "a >= b")


def ceil_divide(a: Operand, b: Operand) -> Operand:
    """a / b, rounded up"""
    return -((-a) // b)


def maximum(a: Operand, b: Operand, *more: Operand) -> Operand:
    """The largest of all, entry by entry."""
    return _fold("maximum", max, (a, b, *more))


def minimum(a: Operand, b: Operand, *more: Operand) -> Operand:
    """The smallest of all, entry by entry."""
    return _fold("minimum", min, (a, b, *more))


def _fold(kind: str, of_numbers: Callable[..., Any], values: Sequence[Any]) -> Any:
    result = values[0]
    for value in values[1:]:
        if isinstance(result, TensorBase) or isinstance(value, TensorBase):
            result = binary(COMBINE[kind], result, value, None, kind)
        else:
            result = of_numbers(result, value)
    return result


def opt_logical_and(a: Operand, b: Operand) -> Operand:
    """a and b; of Python bools without computing."""
    return _optional(a, b, neutral=True, function=logical_and)


def opt_logical_or(a: Operand, b: Operand) -> Operand:
    """a or b; of Python bools without computing."""
    return _optional(a, b, neutral=False, function=logical_or)


def _optional(a: Any, b: Any, neutral: bool, function: Callable[[Any, Any], Any]) -> Any:
    for known, other in ((a, b), (b, a)):
        if isinstance(known, bool):
            return other if known is neutral else known
    return function(a, b)


def common_dims(
    operands: Sequence[TensorBase[AnyTensor]], allow_broadcast_all_sources: bool, what: str, place: Callable[..., int]
) -> Dims:
    """The axes of functions of several tensors: those of the one with the most, and others put in by their kinds.

    WrongUse if no operand has all and that is not allowed.
    """
    most = max(operands, key=lambda x: len(x._dims))
    dims, feature = most._dims, most.feature_dim
    if all(joined(dims, operand._dims) is dims for operand in operands):
        return dims
    for operand in operands:
        for dim in operand._dims:
            if dim not in dims:
                at = place(dim, dims, None if feature is None else dims.index(feature))
                dims = (*dims[:at], dim, *dims[at:])
    if len(dims) > len(most._dims) and not allow_broadcast_all_sources:
        shown = " and ".join(show(x._dims) for x in operands)
        raise WrongUse(f"{what}: no operand has all axes of {shown}; allow_broadcast_all_sources=True allows it")
    return dims
