"""The operators of tensors."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from returnn_lite.behavior_version import BehaviorVersion
from returnn_lite.errors import UnknownName, did_you_mean, user_line
from returnn_lite.frontend.binary import COMBINE, Function, binary, compare, is_operand
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.tensor_base import T, TensorBase
from returnn_lite.frontend.types import AnyTensor


def _forward(function: Function, sign: str) -> Callable[[TensorBase[T], Any], T]:
    def call(self: Any, other: Any) -> Any:
        return binary(function, self, other, None, sign) if is_operand(other) else _refused(self, sign, other)

    return call


def _reflected(function: Function, sign: str) -> Callable[[TensorBase[T], Any], T]:
    def call(self: Any, other: Any) -> Any:
        return binary(function, other, self, None, sign) if is_operand(other) else _refused(other, sign, self)

    return call


def _compare(kind: str, sign: str) -> Callable[[TensorBase[T], Any], T]:
    def call(self: Any, other: Any) -> Any:
        return compare(self, kind, other) if is_operand(other) else _refused(self, sign, other)

    return call


def _refused(a: Any, sign: str, b: Any) -> Any:
    other = b if isinstance(a, TensorBase) else a
    shape = getattr(other, "shape", None)
    if shape is not None and not isinstance(other, TensorBase):
        text = f"an array of shape {tuple(shape)} has no axes; use rf.convert_to_tensor(…, dims=[…])"
        raise WrongUse(f"{a if a is not other else 'array'} {sign} {b if b is not other else 'array'}: {text}")
    return NotImplemented


def _with_axes(value: Any) -> Any:
    """An array as a tensor with axes of its own, which no other tensor has; others as they are."""
    if not isinstance(value, torch.Tensor | np.ndarray) or value.ndim == 0:
        return value
    dims = tuple(Dim(size, name=f"array:dim{i}") for i, size in enumerate(value.shape))
    return AnyTensor.new(torch.as_tensor(value), dims)


class TensorOperators(TensorBase[T]):
    """Operators; their axes are as of `combine`. There is no truth value, no length and no index."""

    __slots__ = ()
    __array_ufunc__ = None  # numpy's numbers leave the operation to us

    __add__, __radd__ = _forward(COMBINE["add"], "+"), _reflected(COMBINE["add"], "+")
    __sub__, __rsub__ = _forward(COMBINE["sub"], "-"), _reflected(COMBINE["sub"], "-")
    __mul__, __rmul__ = _forward(COMBINE["mul"], "*"), _reflected(COMBINE["mul"], "*")
    __truediv__, __rtruediv__ = _forward(COMBINE["truediv"], "/"), _reflected(COMBINE["truediv"], "/")
    __floordiv__, __rfloordiv__ = _forward(COMBINE["floordiv"], "//"), _reflected(COMBINE["floordiv"], "//")
    __mod__, __rmod__ = _forward(COMBINE["mod"], "%"), _reflected(COMBINE["mod"], "%")
    __pow__, __rpow__ = _forward(COMBINE["pow"], "**"), _reflected(COMBINE["pow"], "**")
    __and__, __rand__ = _forward(COMBINE["logical_and"], "&"), _reflected(COMBINE["logical_and"], "&")
    __or__, __ror__ = _forward(COMBINE["logical_or"], "|"), _reflected(COMBINE["logical_or"], "|")
    __lt__, __le__ = _compare("less", "<"), _compare("less_equal", "<=")
    __gt__, __ge__ = _compare("greater", ">"), _compare("greater_equal", ">=")

    def __eq__(self, other: object) -> Any:
        value = _with_axes(other)
        return compare(self, "equal", value) if is_operand(value) else self is other

    def __ne__(self, other: object) -> Any:
        value = _with_axes(other)
        return compare(self, "not_equal", value) if is_operand(value) else self is not other

    __hash__ = object.__hash__

    def __neg__(self) -> T:
        return self._like(-self._raw)

    def __abs__(self) -> T:
        return self._like(abs(self._raw))

    def __invert__(self) -> T:
        return self._like(self._raw == 0)

    def __bool__(self) -> bool:
        if BehaviorVersion.get() >= 22:
            raise WrongUse(
                f"{self} has no truth value; use bool(x.raw_tensor) of a scalar, or compare with None by `is`"
            )
        warnings.warn(f"{self} has no truth value; this is always True", stacklevel=2)
        return True

    if not TYPE_CHECKING:  # to mypy an unknown attribute is a mistake

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(f"a Tensor has no attribute {name!r}")
            if hasattr(torch.Tensor, name):
                hint = "; torch's is that of its `raw_tensor`, functions of named axes are those of rf"
            else:
                hint = did_you_mean(name, [known for known in dir(type(self)) if not known.startswith("_")])
            raise UnknownName(user_line(), f"a Tensor has no attribute {name!r}{hint}")

    def __getitem__(self, key: Any) -> Any:
        raise WrongUse(f"{self} has no index; use rf.gather, rf.slice or raw_tensor")

    def __iter__(self) -> Any:
        raise WrongUse(f"{self} cannot be iterated over; use rf.unstack or rf.scan")

    def __len__(self) -> int:
        raise WrongUse(f"{self} has no length; use the axes' get_dim_value()")

    def __float__(self) -> float:
        raise WrongUse(f"{self} is not a number; use float(x.raw_tensor)")

    __int__ = __float__
