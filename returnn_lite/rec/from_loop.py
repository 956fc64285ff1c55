"""What the net outside reads of a loop's inner layers: all frames of one, or its last frame."""

from __future__ import annotations

from returnn_lite.config_value import ConfigOptions
from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.context import Surroundings
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer, split_options
from returnn_lite.tensor import Spec, Tensor


@layer("get_rec_accumulated")
class GetRecAccumulated(Layer):
    """All frames of the inner layer `sub_layer` of a loop, as the source "<loop>/<sub_layer>" does.

    Shape: -> (T, B, …)
    """

    checks_n_out = False

    def __init__(self, *, sub_layer: str) -> None:
        super().__init__()
        self.sub_layer = sub_layer

    @classmethod
    def prepare(cls, description: ConfigOptions, net: Surroundings) -> ConfigOptions:
        """Reads the inner layer."""
        path = net.layer_path(description["#name"])
        split_options(cls, {k: v for k, v in description.items() if k != "#name"}, path)
        source = description.get("from")
        loop = source[0] if isinstance(source, (list, tuple)) and source else source
        inner = description["sub_layer"]
        kept = {k: v for k, v in description.items() if k != "sub_layer"}
        return {**kept, "class": "copy", "from": f"{loop}/{inner}"}


@layer("rec_last_output")
class RecLastOutput(Layer):
    """The inner layer `sub_layer_name` of the loop `rec_layer` at each sequence's last frame.  Shape: -> (B, …)

    The inner layer needs `need_last`; for sequences without frames it is its initial output.
    """

    sources = "none"
    checks_n_out = False

    def __init__(self, *, rec_layer: LayerRef, sub_layer_name: str) -> None:
        super().__init__()
        self.rec_layer = rec_layer
        self.sub_layer_name = sub_layer_name

    async def link(self, net: Linker, node: Node) -> None:
        """Refers to the last frame, which the loop gives as a part of its own."""
        node.refs = {"last": await net.ask(f"{self.rec_layer}/last:{self.sub_layer_name}")}

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """That of one frame."""
        return refs["last"]

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The last frame."""
        return refs["last"]
