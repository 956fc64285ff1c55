"""Functions of each entry alone; all axes and roles stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn import functional

from returnn_lite.frontend import dtypes
from returnn_lite.frontend.binary import number
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.tensor import Tensor, TensorLike
from returnn_lite.ops.tanh import tanh as tanh_of_each

T = TypeVar("T")
Unary = Callable[["Tensor"], "Tensor"]


def _unary(name: str, function: Callable[[torch.Tensor], torch.Tensor], doc: str) -> Unary:
    def call(x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            x = _converted(x, name)
        return x._like(of_either(function, x._raw))

    call.__name__ = call.__qualname__ = name
    call.__doc__, call.__module__ = doc, __name__
    return call


def of_either(function: Callable[[torch.Tensor], torch.Tensor], raw: Any) -> Any:  # Any: torch's or numpy's data
    """The function of the data, which stay numpy's if they are, as in functions for datasets."""
    return function(torch.from_numpy(raw)).numpy() if isinstance(raw, np.ndarray) else function(raw)


def _converted(x: Any, name: str) -> Tensor:
    if isinstance(x, torch.Tensor) and x.dim() > 0:
        raise WrongUse(
            f"{name} needs a Tensor, but got a torch tensor without axes; use rf.convert_to_tensor(…, dims=…)"
        )
    value = number(x, name)
    return value if isinstance(value, Tensor) else Tensor._new(torch.tensor(value), ())


exp = _unary("exp", torch.exp, "e to the power of x")
expm1 = _unary("expm1", torch.expm1, "exp(x) - 1")
log = _unary("log", torch.log, "The natural logarithm.")
log1p = _unary("log1p", torch.log1p, "log(1 + x)")
sqrt = _unary("sqrt", torch.sqrt, "The square root.")
rsqrt = _unary("rsqrt", torch.rsqrt, "1 / sqrt(x)")
square = _unary("square", torch.square, "x²")
abs = _unary("abs", torch.abs, "|x|")  # noqa: A001 - the users' name
tanh = _unary("tanh", tanh_of_each, "The hyperbolic tangent.")
sigmoid = _unary("sigmoid", torch.sigmoid, "1 / (1 + exp(-x))")
log_sigmoid = _unary("log_sigmoid", functional.logsigmoid, "log(sigmoid(x))")
sin = _unary("sin", torch.sin, "The sine.")
cos = _unary("cos", torch.cos, "The cosine.")
ceil = _unary("ceil", torch.ceil, "Rounded up.")
floor = _unary("floor", torch.floor, "Rounded down.")
round = _unary("round", torch.round, "Rounded; halves to the even number.")  # noqa: A001 - the users' name
relu = _unary("relu", torch.relu, "max(x, 0)")
relu_square = _unary("relu_square", lambda x: torch.relu(x).square(), "max(x, 0)²")
elu = _unary("elu", functional.elu, "x where x > 0, else exp(x) - 1")
selu = _unary("selu", functional.selu, "The scaled elu that normalizes itself (Klambauer et al., 2017).")
silu = _unary("silu", functional.silu, "x · sigmoid(x)")
swish = silu
gelu = _unary("gelu", functional.gelu, "x · Φ(x), Φ the distribution of the standard normal.")
neg = _unary("neg", torch.neg, "-x")
reciprocal = _unary("reciprocal", torch.reciprocal, "1 / x")
is_finite = _unary("is_finite", torch.isfinite, "Neither infinite nor NaN: bool.")
is_infinite = _unary("is_infinite", torch.isinf, "Infinite: bool.")
is_neg_infinite = _unary("is_neg_infinite", torch.isneginf, "-inf: bool.")
logical_not = _unary("logical_not", torch.logical_not, "not x")


def identity(x: T) -> T:
    """x"""
    return x


def safe_log(x: Tensor, *, eps: float | None = None) -> Tensor:
    """log(max(x, eps)); by default eps is the smallest positive number of the type."""
    least = dtypes.SMALLEST.get(x.dtype, 0.0) if eps is None else eps
    return x._like(of_either(lambda raw: raw.clamp(min=least).log(), x.raw_tensor))


def cast(x: TensorLike, dtype: str) -> Tensor:
    """x as another type. The sparse axis stays for whole numbers (for bool if it has two classes)."""
    if not isinstance(x, Tensor):
        x = _converted(x, "cast")
    if x.dtype == dtype:
        return x
    found = x._like(of_either(lambda raw: raw.to(dtypes.torch_dtype(dtype)), x.raw_tensor))
    sparse = x.sparse_dim
    if sparse is not None and not (dtypes.is_integer(dtype) or (dtype == "bool" and sparse.dimension == 2)):
        found._sparse_dim = None
    return found


def copy_to_device(x: Tensor, device: str | None = None) -> Tensor:
    """x on a device, the default one if none is given."""
    where = dtypes.get_default_device() if device is None else device
    raw = x.raw_tensor
    if where is None or not isinstance(raw, torch.Tensor) or _same_device(raw.device, torch.device(where)):
        return x
    return x._like(raw.to(where, non_blocking=raw.device.type == "cpu"))


def _same_device(a: torch.device, b: torch.device) -> bool:
    return a.type == b.type and (a.index or 0) == (b.index or 0)


def copy(x: Tensor) -> Tensor:
    """x with its own data."""
    return x._like(x.raw_tensor.clone())
