"""The `cond` layer: one of two layers, as a bool decides at run time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.linking import task
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.network.construct import Net
from returnn_lite.network.names import join
from returnn_lite.tensor import Spec, Tensor

_BRANCHES = ("true_layer", "false_layer")


@layer("cond")
class Cond(Layer):
    """`true_layer` or `false_layer` (layer dicts), as `condition` says.  Shape: that of the branches, which must agree

    `condition`: a layer (or layer dict) with a single bool. Only the chosen branch is computed, though the layers that
    it reads always are. Parameters of both branches have the names of this layer, so equal ones are shared.
    """

    sources = "many"
    default_from = ()
    branches: Mapping[str, Node]

    def __init__(
        self,
        *,
        condition: LayerRef | dict[str, Any],
        true_layer: dict[str, Any] | str,
        false_layer: dict[str, Any] | str,
    ) -> None:
        super().__init__()
        self.condition = condition
        self.descriptions = {"true_layer": true_layer, "false_layer": false_layer}

    async def link(self, net: Net, node: Node) -> None:
        """Makes the condition and both branches; what the branches read becomes what this layer reads."""
        if isinstance(self.condition, dict):
            node.refs["condition"] = await net.link(f"{self.name}/condition", self.condition)
        branches: dict[str, Node] = {}
        for branch in _BRANCHES:
            branches[branch] = made = await self._branch(net, branch)
            for i, source in enumerate(made.sources):
                node.refs[f"{branch}:{i}"] = source
            for option, ref in made.refs.items():
                node.refs[f"{branch}:{option}"] = ref
        self.branches = branches

    @task
    async def _branch(self, net: Net, branch: str) -> Node:
        """The node of a branch, taken out of the order in which the net computes its layers."""
        description = self.descriptions[branch]
        if isinstance(description, str):
            description = {"class": "copy", "from": description}
        scope = "/" + join(net.prefix, self.options.name_scope, self.name)
        made = await net.link(f"{self.name}/{branch}", {"name_scope": scope, **description})
        net.order.remove(made)
        return made

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """That of the branches."""
        found = {branch: self._branch_spec(branch, refs) for branch in _BRANCHES}
        true, false = found.values()
        if true is not None and false is not None and _shape(true) != _shape(false):
            raise self.error(f"both branches must have the same axes and dtype, but are {true} and {false}")
        return true if true is not None else false

    def _branch_spec(self, branch: str, refs: dict[str, Spec | None]) -> Spec | None:
        sources, options = _inputs(branch, refs)
        return self._layer(branch).output_spec(tuple(sources), options)

    def _layer(self, branch: str) -> Layer:
        return self.branches[branch].layer

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """The parameters of both branches."""
        for branch in _BRANCHES:
            node = self.branches[branch]
            if not node.built:
                inner, options = _inputs(branch, refs)
                node.layer.build_with(tuple(inner), options)
                node.built = True

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The output of the chosen branch."""
        condition = refs["condition"].data
        if condition.numel() != 1:
            raise self.error(f"`condition` must be a single bool, but has shape {tuple(condition.shape)}")
        branch = _BRANCHES[0] if bool(condition) else _BRANCHES[1]
        inner, options = _inputs(branch, refs)
        out = self._layer(branch).run(inner, options)
        spec = self.spec(*[x.spec for x in sources], **{k: r.spec for k, r in refs.items()})
        return out if spec is None or out.spec == spec else _as_spec(out, spec)


def _shape(x: Spec) -> tuple[object, ...]:
    return (x.dtype, x.sparse, x.batch, tuple(d.size for d in x.dims))


def _as_spec(x: Tensor, spec: Spec) -> Tensor:
    """`x` with the axes of the other branch, which are of the same sizes."""
    dims = zip(x.spec.dims, spec.dims, strict=True)
    lengths = {new: x.length(old) for old, new in dims if new.dynamic and old.dynamic}
    return x.with_lengths(lengths).with_data(x.data, spec)


def _inputs(branch: str, refs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The sources and the layer-valued options of a branch."""
    mine = {k.partition(":")[2]: v for k, v in refs.items() if k.startswith(f"{branch}:")}
    sources = [v for k, v in mine.items() if k.isdigit()]
    return sources, {k: v for k, v in mine.items() if not k.isdigit()}
