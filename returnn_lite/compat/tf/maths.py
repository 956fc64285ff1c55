"""TensorFlow's element-wise functions and reductions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from returnn_lite.compat.tf.values import as_tensor, cast, common, pair, to_axes, to_dtype, to_int, to_ints, true_divide
from returnn_lite.layers import activations
from returnn_lite.ops import elementwise
from returnn_lite.ops.tanh import tanh

Function = Callable[..., Any]


def _unary(function: Callable[[Tensor], Tensor]) -> Function:
    @functools.wraps(function)
    def apply(x: Any) -> Tensor:
        return function(as_tensor(x))

    return apply


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Function:
    @functools.wraps(function)
    def apply(x: Any, y: Any) -> Tensor:
        return function(*pair(x, y))

    return apply


# --- one argument -----------------------------------------------------------------------------------------------------


def remember_exp(result: Tensor, exponential: Callable[[], Tensor]) -> Tensor:
    """Makes `safe_exp` of a logarithm exact."""
    result.exact_exp = exponential  # type: ignore[attr-defined]
    return result


def log(x: Any) -> Tensor:
    """Natural logarithm."""
    x = as_tensor(x)
    return remember_exp(torch.log(x), lambda: x)


def log_sigmoid(x: Any) -> Tensor:
    """log(1 / (1 + e^-x))"""
    x = as_tensor(x)
    return remember_exp(F.logsigmoid(x), lambda: torch.sigmoid(x))


def to_type(dtype: torch.dtype) -> Function:
    """The function that casts to it."""
    return lambda x: cast(as_tensor(x), dtype)


def convert(x: Any, dtype: Any) -> Tensor:
    """`cast`: floats become ints by cutting off, numbers become bools by != 0."""
    return cast(as_tensor(x), to_dtype(dtype))


def stop_gradient(input: Any) -> Tensor:  # noqa: A002 - TensorFlow's word
    """The same value, as a constant."""
    return as_tensor(input).detach()


# --- two arguments ----------------------------------------------------------------------------------------------------


def maximum(x: Any, y: Any) -> Tensor:
    """The gradient of equal values goes to x."""
    return elementwise.maximum(*pair(x, y))


def minimum(x: Any, y: Any) -> Tensor:
    """The gradient of equal values goes to x."""
    return elementwise.minimum(*pair(x, y))


def div(x: Any, y: Any) -> Tensor:
    """x / y, rounded down if both are ints."""
    x, y = pair(x, y)
    return true_divide(x, y) if x.is_floating_point() or y.is_floating_point() else torch.floor_divide(x, y)


def divide_no_nan(x: Any, y: Any) -> Tensor:
    """x / y; 0 where y is 0."""
    x, y = pair(x, y)
    zero = y == 0
    return torch.where(zero, 0, x / torch.where(zero, 1, y))


def clip_by_value(t: Any, clip_value_min: Any, clip_value_max: Any) -> Tensor:
    """Bounds may be tensors. The gradient is 0 outside and 1 at the bounds."""
    x = as_tensor(t)
    low, high = (pair(x, bound)[1] for bound in (clip_value_min, clip_value_max))
    return torch.clamp(x, low.to(x.device), high.to(x.device))


def add_n(inputs: Any) -> Tensor:
    """The sum of all."""
    return functools.reduce(torch.add, common([as_tensor(x) for x in inputs]))


# --- reductions -------------------------------------------------------------------------------------------------------


def _reduction(function: Callable[[Tensor, list[int], bool], Tensor], doc: str) -> Function:
    """One with TensorFlow's arguments of all times, out of one over a list of axes."""

    def reduce(
        input_tensor: Any,
        axis: Any = None,
        keepdims: bool | None = None,
        name: Any = None,
        reduction_indices: Any = None,
        keep_dims: bool | None = None,
    ) -> Tensor:
        x = as_tensor(input_tensor)
        axes = to_axes(reduction_indices if axis is None else axis, x.dim())
        return function(x, axes, bool(keepdims or keep_dims)) if axes else x

    reduce.__doc__ = doc
    return reduce


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point() or x.is_complex():
        return x.mean(axes, keepdim=keep)
    count = max(1, torch.Size([x.size(axis) for axis in axes]).numel())
    return x.sum(axes, keepdim=keep).div(count, rounding_mode="trunc").to(x.dtype)


def _one_by_one(function: Callable[..., Tensor]) -> Callable[[Tensor, list[int], bool], Tensor]:
    """For functions of torch that take one axis only."""

    def reduce(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        for axis in sorted(axes, reverse=True):
            x = function(x, axis, keepdim=keep)
        return x

    return reduce


def _prod(x: Tensor, axis: int, keepdim: bool) -> Tensor:
    return x.prod(axis, keepdim=keepdim, dtype=x.dtype)


def argmax(
    input: Any,  # noqa: A002
    axis: Any = None,
    name: Any = None,
    dimension: Any = None,
    output_type: Any = torch.int64,
) -> Tensor:
    """The first index of the greatest value; axis 0 if none is given."""
    axis = dimension if axis is None else axis
    return torch.argmax(_ordered(as_tensor(input)), 0 if axis is None else to_int(axis)).to(to_dtype(output_type))


def argmin(
    input: Any,  # noqa: A002
    axis: Any = None,
    name: Any = None,
    dimension: Any = None,
    output_type: Any = torch.int64,
) -> Tensor:
    """The first index of the least value; axis 0 if none is given."""
    axis = dimension if axis is None else axis
    return torch.argmin(_ordered(as_tensor(input)), 0 if axis is None else to_int(axis)).to(to_dtype(output_type))


def _ordered(x: Tensor) -> Tensor:
    return x.to(torch.uint8) if x.dtype == torch.bool else x


def _cumulative(function: Callable[..., Tensor], start: int) -> Function:
    def cumulate(x: Any, axis: Any = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
        x, axis = as_tensor(x), to_int(axis)
        x = x.flip(axis) if reverse else x
        if exclusive:
            first = torch.full_like(x.narrow(axis, 0, min(1, x.size(axis))), start)
            x = torch.cat([first, x.narrow(axis, 0, max(0, x.size(axis) - 1))], axis)
        result = function(x, axis, dtype=x.dtype)
        return result.flip(axis) if reverse else result

    cumulate.__doc__ = f"{function.__name__} along an axis; `exclusive` leaves out the entry itself."
    return cumulate


# --- products ---------------------------------------------------------------------------------------------------------


def matmul(
    a: Any,
    b: Any,
    transpose_a: bool = False,
    transpose_b: bool = False,
    adjoint_a: bool = False,
    adjoint_b: bool = False,
) -> Tensor:
    """Matrix product over the last two axes; `adjoint`: transposed, of complex numbers the conjugates."""
    x, y = pair(a, b)
    x = x.mH if adjoint_a else x.mT if transpose_a else x
    return x @ (y.mH if adjoint_b else y.mT if transpose_b else y)


def einsum(equation: str, *inputs: Any) -> Tensor:
    """Einstein's sum."""
    return torch.einsum(equation, *[as_tensor(x) for x in inputs])


def tensordot(a: Any, b: Any, axes: Any) -> Tensor:
    """An int: over so many last axes of a and first of b; else the axes of a and those of b."""
    x, y = pair(a, b)
    if isinstance(axes, (list, tuple)):
        made: Tensor = torch.tensordot(x, y, dims=([*to_ints(axes[0])], [*to_ints(axes[1])]))
        return made
    summed: Tensor = torch.tensordot(x, y, dims=to_int(axes))
    return summed


def l2_normalize(x: Any, axis: Any = None, epsilon: float = 1e-12, dim: Any = None) -> Tensor:
    """x / sqrt(max(sum x^2, epsilon))"""
    x = as_tensor(x)
    axes = to_axes(dim if axis is None else axis, x.dim())
    return x * x.square().sum(axes, keepdim=True).clamp(min=epsilon).rsqrt()


def all_functions() -> dict[str, Function]:
    """The functions by TensorFlow's names."""
    unary: dict[str, Callable[[Tensor], Tensor]] = {
        "abs": torch.abs, "sign": torch.sign, "negative": torch.neg, "square": torch.square, "sqrt": torch.sqrt,
        "rsqrt": torch.rsqrt, "reciprocal": torch.reciprocal, "exp": activations.exp, "expm1": torch.expm1,
        "log1p": torch.log1p, "floor": torch.floor, "ceil": torch.ceil, "round": torch.round, "tanh": tanh,
        "sigmoid": activations.sigmoid, "sin": torch.sin, "cos": torch.cos, "tan": torch.tan, "asin": torch.asin,
        "acos": torch.acos, "atan": torch.atan, "sinh": torch.sinh, "cosh": torch.cosh, "erf": torch.erf,
        "lgamma": torch.lgamma, "digamma": torch.digamma, "is_finite": torch.isfinite, "is_nan": torch.isnan,
        "is_inf": torch.isinf, "logical_not": torch.logical_not, "softplus": F.softplus, "real": torch.real,
        "imag": torch.imag, "conj": torch.conj, "angle": torch.angle,
        "zero_fraction": lambda x: (x == 0).float().mean(),
    }  # fmt: skip
    binary: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "add": torch.add, "subtract": torch.sub, "multiply": torch.mul, "divide": true_divide, "truediv": true_divide,
        "floordiv": torch.floor_divide, "floormod": torch.remainder, "mod": torch.remainder, "pow": torch.pow,
        "squared_difference": lambda x, y: (x - y).square(), "atan2": torch.atan2, "logaddexp": torch.logaddexp,
        "equal": torch.eq, "not_equal": torch.ne, "less": torch.lt, "less_equal": torch.le, "greater": torch.gt,
        "greater_equal": torch.ge, "logical_and": torch.logical_and, "logical_or": torch.logical_or,
        "logical_xor": torch.logical_xor, "xlogy": torch.xlogy,
    }  # fmt: skip
    reductions = {
        "sum": (_sum, "Sum over axes."),
        "mean": (_mean, "Mean over axes; of ints rounded towards 0."),
        "max": (lambda x, axes, keep: x.amax(axes, keepdim=keep), "Greatest; equal ones share the gradient."),
        "min": (lambda x, axes, keep: x.amin(axes, keepdim=keep), "Least; equal ones share the gradient."),
        "prod": (_one_by_one(_prod), "Product over axes."),
        "any": (_one_by_one(torch.any), "Whether one is True."),
        "all": (_one_by_one(torch.all), "Whether all are True."),
        "logsumexp": (lambda x, axes, keep: x.logsumexp(axes, keepdim=keep), "log sum e^x over axes."),
        "variance": (lambda x, axes, keep: x.var(axes, correction=0, keepdim=keep), "Variance over axes."),
        "std": (lambda x, axes, keep: x.std(axes, correction=0, keepdim=keep), "Standard deviation over axes."),
    }
    own: list[Callable[..., Any]] = [
        log, log_sigmoid, stop_gradient, maximum, minimum, div, divide_no_nan, clip_by_value, add_n, argmax, argmin,
        matmul, einsum, tensordot, l2_normalize,
    ]  # fmt: skip
    return {
        **{name: _unary(function) for name, function in unary.items()},
        **{name: _binary(function) for name, function in binary.items()},
        **{f"reduce_{name}": _reduction(*how) for name, how in reductions.items()},
        **{function.__name__: function for function in own},
        "cast": convert,
        "to_float": to_type(torch.float32),
        "to_double": to_type(torch.float64),
        "to_int32": to_type(torch.int32),
        "to_int64": to_type(torch.int64),
        "cumsum": _cumulative(torch.cumsum, 0),
        "cumprod": _cumulative(torch.cumprod, 1),
    }
