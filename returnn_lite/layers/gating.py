"""`gating`: one half of the features gates the other."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - the field's name for it

from returnn_lite.layers.activations import activation as find_activation
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.tensor import Spec, Tensor


@layer("gating")
class Gating(Layer):
    """y = activation(a) * gate_activation(b), a and b being the halves of the features.

    Shape: (B, T, 2 F) -> (B, T, F)

    With `activation` "identity" this is the gated linear unit (Dauphin et al. 2017).
    """

    def __init__(self, *, activation: str | None, gate_activation: str | None = "sigmoid") -> None:
        super().__init__()
        self.texts = (activation, gate_activation)
        self.activation = self.gate = find_activation(None)

    def spec(self, x: Spec | None) -> Spec | None:
        """Half of the features."""
        if x is None:
            return None
        if x.sparse or x.feature is None or not x.dim or x.dim % 2:
            raise self.error(f"the source must be dense with an even number of features, but is {x} instead")
        return x.with_feature(self.axis_dim(self.options.out_dim, x.dims[x.feature] // 2))

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """Looks the functions up."""
        names = self.context.eval_names
        self.activation, self.gate = (find_activation(text, names, path=self.path) for text in self.texts)

    def forward(self, x: Tensor) -> Tensor:
        """The gated half."""
        at = x.spec.feature or 0
        if self.texts[0] in (None, "identity") and self.texts[1] == "sigmoid":
            return x.with_data(F.glu(x.data, at), self.spec(x.spec))
        values, gates = x.data.chunk(2, at)
        return x.with_data(self.activation(values, at) * self.gate(gates, at), self.spec(x.spec))
