"""Linear layers: `linear` (`hidden`, `forward`) and `softmax`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from returnn_lite.config.option_types import NaturalFloat, PositiveInt
from returnn_lite.layers.activations import activated
from returnn_lite.layers.activations import activation as find_activation
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.joint_linear import FEWEST, JointLinear, Projection
from returnn_lite.ops.gradients import filtered_gradient
from returnn_lite.ops.indexing import labels
from returnn_lite.ops.linear import linear
from returnn_lite.tensor import Spec, Tensor


@layer("linear", "hidden", "forward")
class Linear(Layer):
    """y = act(x W + b); a row of W for sparse input.  Shape: (B, T, F) -> (B, T, n_out); (B, T) -> (B, T, n_out)

    The feature axis stays in its place. Parameters: `W` (in, n_out), or (n_out, in) with `use_transposed_weights`; `b`.
    `grad_filter` g: the gradient of a sequence is zeroed unless the largest squared entry is below g.
    For sparse input the gradient of `W` has only the rows that occurred, unless `sparse_grad` is False.
    """

    default_activation: ClassVar[str | None] = None

    def __init__(
        self,
        *,
        n_out: PositiveInt | None = None,
        activation: str | None = None,
        with_bias: bool = True,
        grad_filter: NaturalFloat | None = None,
        forward_weights_init: Any = "glorot_uniform",
        bias_init: Any = 0.0,
        use_transposed_weights: bool = False,
        sparse_grad: bool = True,
    ) -> None:
        super().__init__()
        self.n_out = n_out
        self.activation = find_activation(activation)
        self.activation_text = activation
        self.with_bias = with_bias
        self.grad_filter = grad_filter
        self.weights_init = forward_weights_init
        self.bias_init = bias_init
        self.transposed = use_transposed_weights
        self.sparse_grad = sparse_grad

    def spec(self, x: Spec | None) -> Spec | None:
        """The source with a new feature axis, in place of the old one; at the end for sparse input."""
        if x is None:
            return None
        if not x.sparse and x.feature is None:
            raise self.error(f"the source needs a feature axis, but is {x} instead")
        return x.with_dtype("float32").with_feature(self.feature_dim(self.n_out, x))

    def build(self, x: Spec) -> None:
        """`W`, `b`."""
        if not self.with_bias and self.bias_init:
            raise self.error(f"`bias_init` must be 0 without a bias, but is {self.bias_init} instead")
        out = self.spec(x)
        n_in, n_out = x.dim, out.dim if out is not None else None
        if n_in is None or n_out is None:
            raise self.error(f"the feature axis of the source has no size: {x}")
        shape = (n_out, n_in) if self.transposed else (n_in, n_out)
        blocks = (_input_blocks(x, n_in, n_out, in_loop="/" in self.scope.prefix if self.scope else False), (n_out,))
        self.W = self.param("W", shape, self.weights_init, blocks=blocks[::-1] if self.transposed else blocks)
        self.b = self.param("b", (n_out,), self.bias_init) if self.with_bias else None
        names = self.context.eval_names
        self.activation = find_activation(self.activation_text, names, path=self.path)

    @property
    def joint_kind(self) -> Hashable:
        """Plain products."""
        plain = type(self) is Linear and not (self.activation.name or self.transposed or self.grad_filter)
        return ("linear", self.with_bias) if plain else None

    def joint(self, members: Sequence[Layer]) -> JointLinear | None:
        """One product, where there are enough."""
        return JointLinear([Projection(x, self.with_bias) for x in members]) if len(members) >= FEWEST else None

    def forward(self, x: Tensor) -> Tensor:
        """The activated product."""
        spec = self.spec(x.spec)
        feature = spec.feature if spec is not None else None
        data = self._product(x)
        if feature is not None and feature != data.dim() - 1:
            data = data.movedim(-1, feature)
        if self.grad_filter:
            data = filtered_gradient(data, x.spec.batch, self.grad_filter)
        return activated(x.with_data(data, spec), self.activation, -1 if feature is None else feature, self.options)

    def _product(self, x: Tensor) -> torch.Tensor:
        """x W + b with the new feature axis last."""
        if x.spec.sparse:
            weights = self.W.t() if self.transposed else self.W
            of_its_own = isinstance(self.W, torch.nn.Parameter) and not self.transposed
            rows = F.embedding(labels(x.data), weights, sparse=of_its_own and self.sparse_grad)
            return rows if self.b is None else rows + self.b
        data = x.data
        if x.spec.feature is not None and x.spec.feature != data.dim() - 1:
            data = data.movedim(x.spec.feature, -1)
        weights = self.W if self.transposed else self.W.t()
        if self.b is None and data.shape[-1] == 1 and not torch.is_grad_enabled():
            return data * weights[:, 0]  # quicker than a product of matrices; only its gradient is not
        return linear(data, weights, self.b)


@layer("softmax")
class Softmax(Linear):
    """y = softmax(x W + b) over the features, otherwise as `linear`.  Shape: (B, T, F) -> (B, T, n_out)"""

    def __init__(
        self,
        *,
        n_out: PositiveInt | None = None,
        with_bias: bool = True,
        grad_filter: NaturalFloat | None = None,
        forward_weights_init: Any = "glorot_uniform",
        bias_init: Any = 0.0,
        use_transposed_weights: bool = False,
        sparse_grad: bool = True,
    ) -> None:
        super().__init__(
            n_out=n_out,
            activation="softmax",
            with_bias=with_bias,
            grad_filter=grad_filter,
            forward_weights_init=forward_weights_init,
            bias_init=bias_init,
            use_transposed_weights=use_transposed_weights,
            sparse_grad=sparse_grad,
        )


def _input_blocks(x: Spec, n_in: int, n_out: int, in_loop: bool) -> tuple[int, ...]:
    """The blocks of the input axis for `subset` copies: the outputs that were concatenated, where that is known.

    As in the reference not known inside of loops, nor where input and output have one size.
    """
    base = x.feature_dim.base if x.feature_dim is not None else None
    if in_loop or base is None or base.op != "+" or n_in == n_out:
        return (n_in,)
    sizes = [part if isinstance(part, int) else part.size or 0 for part in base.parts]
    return tuple(sizes) if sum(sizes) == n_in else (n_in,)
