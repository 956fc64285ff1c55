"""The `subnetwork` layer: a net of its own as one layer."""

from __future__ import annotations

from typing import Any

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.linking import task
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.network.construct import Net
from returnn_lite.network.names import join
from returnn_lite.tensor import Spec, Tensor


@layer("subnetwork")
class Subnetwork(Layer):
    """The dict `subnetwork` as one layer; its output is the inner layer "output".

    Inside, "data" is the (concatenated, dropped out) source, or without one the default input of the net; with
    `concat_sources` False "data:0", "data:1" … and "data:<source name>", "data" being the first; other "data:key" are
    the root's; "base:x" is a layer outside. From outside "sub/inner" names inner layers. Parameters are
    "<sub>/<inner>/<name>". `load_on_init`: a model file with their initial values, by their names inside, or a dict of
    `filename` and options as in `preload_from_files`. `grad_checkpoint`: the backward pass computes the layers inside
    again, which then need no memory for it; or a list of names of layers inside, each for itself.
    """

    recurrent = True
    checks_n_out = False
    needs_source = False

    def __init__(
        self,
        *,
        subnetwork: Any,
        concat_sources: bool = True,
        load_on_init: Any = None,
        grad_checkpoint: bool | list[str] = False,
    ) -> None:
        super().__init__()
        self.subnetwork = subnetwork
        self.concat_sources = concat_sources
        self.load_on_init = load_on_init
        self.grad_checkpoint = grad_checkpoint
        self.param_prefix = ""

    async def link(self, net: Net, node: Node) -> None:
        """Opens the inner net and builds its output."""
        prefix = self.param_prefix = join(net.prefix, self.options.name_scope, self.name)
        path = f'{self.path}["subnetwork"]'
        inner = net.subnet(self.subnetwork, path=path, prefix=prefix, trainable=bool(self.options.trainable))
        net.subnets[self.name] = inner
        inner.given = await self._given(net, node)
        node.refs = {"output": await inner.ask("output")}
        node.sources = []

    @task
    async def _given(self, net: Net, node: Node) -> dict[str, Node]:
        """What "data" means inside."""
        if node.sources and (self.concat_sources or len(node.sources) == 1):
            passed = await net.internal(f"{self.name}/data", _Input(self), node.sources)
            given = {"data": passed}
        else:
            given = {"data": node.sources[0]} if node.sources else {}
        if not self.concat_sources:
            for i, source in enumerate(node.sources):
                given[f"data:{i}"] = given[f"data:{source.name}"] = source
        return given

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """That of the inner output."""
        return refs["output"]

    def run(self, sources: list[Tensor], refs: dict[str, Tensor]) -> Tensor:
        """The inner output."""
        return refs["output"]


class _Input(Layer):
    """The concatenated and dropped out source of a sub-network."""

    class_name = "data"

    def __init__(self, owner: Subnetwork) -> None:
        super().__init__()
        self.options.dropout = owner.options.dropout
        self.options.dropout_noise_shape = owner.options.dropout_noise_shape

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The source."""
        return sources[0]
