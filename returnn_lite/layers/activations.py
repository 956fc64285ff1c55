"""Activation functions by config name: `relu`, `2*sigmoid`, `tf.tanh(x) * x`.

A softmax, sigmoid or exp remembers the logarithm of its result as a function of its argument (`exact_log`), so that
`safe_log` of it is exact where the probability has long become 0.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import CodeType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from returnn_lite.config.config_code import check_names
from returnn_lite.config_value import EvalNames
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.core.options import CommonOptions
from returnn_lite.ops.elementwise import log_above
from returnn_lite.ops.precision import raised
from returnn_lite.ops.tanh import tanh
from returnn_lite.tensor import Deferred, PreActivation
from returnn_lite.tensor import Tensor as Named

Function = Callable[..., Tensor]
LOGARITHMIC = ("softmax", "sigmoid", "log_softmax", "exp")  # losses compute their logarithms from their arguments


@dataclass(frozen=True)
class Activation:
    """A function on tensors. `name` is canonical: "" for the identity, "swish" also for `silu`, else the text itself.

    `elementwise` is False where the result depends on a whole axis (softmax): `axis`, the feature axis, matters there.
    """

    name: str
    elementwise: bool
    function: Function

    def __call__(self, x: Tensor, axis: int = -1) -> Tensor:
        """Shape: any -> the same."""
        return self.function(x) if self.elementwise else self.function(x, axis=axis)

    def with_options(self, **opts: object) -> Activation:
        """The function with keywords of its own, as `alpha` of leaky_relu."""
        return replace(self, function=functools.partial(self.function, **opts)) if opts else self


def activation(text: str | None, names: EvalNames | None = None, *, path: str = "") -> Activation:
    """The activation that the config means by `text`.

    `names` are what an expression in `x` may use (`tf`, `safe_log`, …), and where a name that is not in our table is
    looked up. Raises ConfigError (at `path`) if there is no such function.
    """
    if text is None or text in _TABLE:
        return _named(text or "")
    text = text.strip()
    if "(" in text:
        # Whether an expression mixes along an axis cannot be told; like the reference we leave its axes alone.
        code = _compiled(text, path)
        if names:
            _check_names(text, (*names, "x"), path)
        return Activation(text, True, functools.partial(_evaluate, code, dict(names or {})))
    for sign, op in (("+", operator.add), ("-", operator.sub), ("*", operator.mul), ("/", operator.truediv)):
        if sign in text:
            left, right = (_operand(part.strip(), names, path) for part in text.split(sign, 1))
            return _binary(text, op, left, right)
    if text in _TABLE:
        return _named(text)
    function = _search(text, names or {})
    if function is None:
        raise ConfigError(path, f'invalid activation function: "{text}"{did_you_mean(text, _TABLE)}')
    return Activation(text, True, function)


def activated(x: Named, activation: Activation, axis: int, options: CommonOptions) -> Named:
    """The activation of a tensor that nobody else has yet, over its features at `axis`. Shape: any -> the same

    Those who look at its argument find it: losses, and `darc1` of a layer with these options; elsewhere it would only
    stay in memory.
    """
    if not activation.name:
        return x
    if activation.name in LOGARITHMIC:
        return Deferred(x, PreActivation(activation.name, x.data), activation, axis)
    if options.loss is not None or options.darc1:
        x.pre = PreActivation(activation.name, x.data)
    x.data = activation(x.data, axis)
    return x


@functools.cache
def _named(text: str) -> Activation:
    function = _TABLE[text]
    name = next(name for name, other in _TABLE.items() if other is function)
    return Activation(name, name not in ("softmax", "log_softmax"), function)


def _operand(text: str, names: EvalNames | None, path: str) -> Activation | float:
    try:
        return float(text)
    except ValueError:
        return activation(text, names, path=path)


def _binary(text: str, op: Callable[..., Any], left: Activation | float, right: Activation | float) -> Activation:
    elementwise = all(isinstance(side, float) or side.elementwise for side in (left, right))

    def function(x: Tensor, axis: int = -1) -> Tensor:
        sides = [torch.full_like(x, side) if isinstance(side, float) else side(x, axis) for side in (left, right)]
        made: Tensor = op(*sides)
        return made

    return Activation(text, elementwise, function)


@functools.cache
def _compiled(text: str, path: str) -> CodeType:
    try:
        return compile(text, "<activation>", "eval")
    except SyntaxError as error:
        raise ConfigError(path, f'invalid activation function: "{text}": {error.msg}') from None


def _check_names(text: str, names: Iterable[str], path: str) -> None:
    try:
        check_names(text, "activation", names)
    except ConfigError as error:
        raise ConfigError(path, f'invalid activation function: "{text}": {error.message}') from None


def _evaluate(code: CodeType, names: dict[str, Any], x: Tensor) -> Tensor:
    made: Tensor = eval(code, {**names, "x": x})
    return made


def _search(name: str, names: Mapping[str, Any]) -> Function | None:
    """Looks a name up in `tf.nn`, `tf`, `tf.math`, then among the helper functions."""
    for space in _name_spaces(names.get("tf")):
        found: Function | None = getattr(space, name, None)
        if callable(found):
            return found
    found = names.get(name)
    return found if callable(found) else None


def _name_spaces(tf: object) -> Iterator[object]:
    yield getattr(tf, "nn", None)
    yield tf
    yield getattr(tf, "math", None)


# --- exact logarithms -------------------------------------------------------------------------------------------------


def carry_exact_log(result: Tensor, source: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """`result` = function(source) where the function only moves entries: the exact logarithm moves along, if any."""
    exact = getattr(source, "exact_log", None)
    return result if exact is None else _with_exact_log(result, lambda: function(exact()))


def exact_log(x: Tensor) -> Tensor | None:
    """The logarithm computed from the argument of the softmax, sigmoid or exp that gave `x`; None if nothing did."""
    exact = getattr(x, "exact_log", None)
    return None if exact is None else exact()


def _with_exact_log(result: Tensor, exact: Callable[[], Tensor]) -> Tensor:
    result.exact_log = exact  # type: ignore[attr-defined]
    return result


def safe_log(x: Tensor, eps: float = 1e-20, use_fake_grad: bool = True) -> Tensor:
    """log(max(x, eps)); exact if `x` comes directly from a softmax, sigmoid or exp.

    The gradient is 1/max(x, eps) also below eps (`use_fake_grad` False: 0 there).
    """
    exact = exact_log(x)
    if exact is not None:
        return exact
    return log_above(x, eps, fake_gradient=use_fake_grad)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Shape: any -> the same; sums to 1 over `axis`."""
    x = raised(x)
    return _with_exact_log(torch.softmax(x, axis), lambda: torch.log_softmax(x, axis))


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x)"""
    return _with_exact_log(torch.sigmoid(x), lambda: F.logsigmoid(raised(x)))


def exp(x: Tensor) -> Tensor:
    """e^x"""
    return _with_exact_log(torch.exp(x), lambda: x)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """x - log sum e^x over `axis`"""
    return torch.log_softmax(raised(x), axis)


# --- the table --------------------------------------------------------------------------------------------------------


def _identity(x: Tensor) -> Tensor:
    return x


def _gelu(x: Tensor, approximate: bool = False) -> Tensor:
    return F.gelu(x, approximate="tanh" if approximate else "none")


def _leaky_relu(x: Tensor, alpha: float = 0.2) -> Tensor:
    return F.leaky_relu(x, alpha)


def _swish(x: Tensor, beta: float = 1.0) -> Tensor:
    return F.silu(x) if beta == 1.0 else x * torch.sigmoid(beta * x)


_TABLE: dict[str, Function] = {  # of several names for one function the first is the canonical one
    "": _identity,
    "none": _identity,
    "identity": _identity,
    "relu": F.relu,
    "relu6": F.relu6,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": _gelu,
    "leaky_relu": _leaky_relu,
    "swish": _swish,
    "silu": _swish,
    "sigmoid": sigmoid,
    "log_sigmoid": F.logsigmoid,
    "tanh": tanh,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "exp": exp,
    "log": torch.log,
    "safe_log": safe_log,
    "log1p": torch.log1p,
    "expm1": torch.expm1,
    "abs": torch.abs,
    "angle": torch.angle,
    "sign": torch.sign,
    "negative": torch.neg,
    "neg": torch.neg,
    "square": torch.square,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "asin": torch.asin,
    "acos": torch.acos,
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "asinh": torch.asinh,
    "acosh": torch.acosh,
    "atanh": torch.atanh,
    "erf": torch.erf,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "stop_gradient": torch.detach,
}
