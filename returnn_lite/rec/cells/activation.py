"""The option `activation` of the cells that have one: a config's name, an expression, or a function."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from returnn_lite.layers.activations import activation

Activation = str | Callable[[Tensor], Tensor]

_BOUNDED = ("tanh", "sigmoid", "softsign")


def activation_function(value: Activation) -> Callable[[Tensor], Tensor]:
    """The function meant by `value`.  ConfigError if there is none."""
    if not isinstance(value, str):
        return value
    found = activation(value, path="activation")
    return found.function if found.elementwise else found


def is_bounded(value: Activation) -> bool:
    """Whether, as far as the name tells, no state can grow without limit under it."""
    return value in _BOUNDED
