"""Feed-forward blocks of transformers and conformers."""

from __future__ import annotations

from typing import Any

from returnn_lite.config_value import ConfigValue
from returnn_lite.frontend.building import activation_of, as_dim, made, specified
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.dropout import dropout, dropout_broadcast_default
from returnn_lite.frontend.elementwise import identity, relu, swish
from returnn_lite.frontend.linear import Linear
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.frontend.types import Part
from returnn_lite.not_specified import NotSpecified

# How configs import them.
_MODULE = "returnn_lite.frontend.decoder.transformer"


class FeedForward(Module):
    """linear_out(dropout(activation(linear_ff(x)))); `ff_dim` features inside, by default 4 times as many."""

    __module__ = _MODULE
    default_activation = staticmethod(relu)

    def __init__(
        self,
        out_dim: Dim,
        *,
        ff_dim: Any = NotSpecified,
        dropout: float = 0.1,
        activation: Any = NotSpecified,
        with_bias: bool = True,
    ) -> None:
        self.out_dim, self.dropout = out_dim, dropout
        self.dropout_broadcast = dropout_broadcast_default()
        inner = 4 * out_dim if ff_dim is NotSpecified or ff_dim is None else as_dim(ff_dim, "ff-dim")
        self.activation = activation_of(activation, self.default_activation)
        self.linear_ff = Linear(out_dim, inner, with_bias=with_bias)
        self.linear_out = Linear(inner, out_dim, with_bias=with_bias)

    def __call__(self, inp: Tensor) -> Tensor:
        """Axes as of `Linear`."""
        inner = self.activation(self.linear_ff(inp))
        inner = dropout(inner, self.dropout, axis=self.dropout_broadcast and self.linear_ff.out_dim)
        return self.linear_out(inner)


class FeedForwardGated(Module):
    """linear_out(dropout(activation(a) · gate_activation(b))), a and b the halves of linear_ff(x) (Shazeer, 2020).

    ff_dim: features of a half, by default 8/3 times as many, rounded up to a multiple of 256.
    """

    __module__ = _MODULE

    def __init__(
        self,
        out_dim: Dim,
        *,
        ff_dim: Any = NotSpecified,
        dropout: float = 0.1,
        activation: Any = swish,
        gate_activation: Any = identity,
        with_bias: bool = False,
    ) -> None:
        self.out_dim, self.dropout = out_dim, dropout
        self.dropout_broadcast = dropout_broadcast_default()
        if ff_dim is NotSpecified or ff_dim is None:
            ff_dim = -(-(out_dim.padded_size() * 4 * 2 // 3) // 256) * 256
        inner = as_dim(ff_dim, "ff-dim")
        self.activation = activation_of(activation, swish)
        self.gate_activation = activation_of(gate_activation, identity)
        self.linear_ff = Linear(out_dim, 2 * inner, with_bias=with_bias)
        self.linear_out = Linear(inner, out_dim, with_bias=with_bias)

    def __call__(self, inp: Tensor) -> Tensor:
        """Axes as of `Linear`."""
        both = self.linear_ff(inp)
        inner, dims = self.linear_out.in_dim, both.dims[:-1]
        first, second = both.raw_tensor.chunk(2, -1)
        first, second = (both._new(raw, (*dims, inner), feature_axis=len(dims)) for raw in (first, second))
        gated = self.activation(first) * self.gate_activation(second)
        return self.linear_out(dropout(gated, self.dropout, axis=self.dropout_broadcast and inner))


def made_ff(
    default: type, *, out_dim: Dim, ff: ConfigValue, ff_dim: ConfigValue, ff_activation: ConfigValue, dropout: float
) -> Part:
    """The block that a layer is given: nothing, a class or dict, a module or function."""
    options = specified(out_dim=out_dim, ff_dim=ff_dim, dropout=dropout, activation=ff_activation)
    return made(default if ff is NotSpecified else ff, "ff", **options)
