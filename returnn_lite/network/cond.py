"""The `cond` layer: one of two layers, as a bool decides at run time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch

from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.stateful import ticking
from returnn_lite.network.building import compute, infer
from returnn_lite.network.construct import Net
from returnn_lite.network.unit_net import UnitInput, UnitNet
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.align import common, joined, place

_BRANCHES = ("true_layer", "false_layer")


@layer("cond")
class Cond(Layer):
    """`true_layer` or `false_layer` (layer dicts), as `condition` says.  Shape: that of the branches, which must agree

    `condition`: a layer (or layer dict) with a single bool. Only the chosen branch is computed, sub-networks included,
    though the layers that it reads always are. Parameters of both branches have the names of this layer, so equal ones
    are shared.
    """

    sources = "many"
    default_from = ()

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
        self.branches: dict[str, Branch] = {}

    async def link(self, net: Net, node: Node) -> None:
        """Makes the condition and both branches; what the branches read becomes what this layer reads."""
        if isinstance(self.condition, dict):
            node.refs["condition"] = await net.link(f"{self.name}/condition", self.condition)
        for option, description in self.descriptions.items():
            if isinstance(description, str):
                description = {"class": "copy", "from": description}
            branch = self.branches[option] = Branch(self, net, option, description)
            branch.output = await branch.net.ask(self.name)
            node.refs.update({f"{option}:{name}": read for name, read in branch.net.captured.items()})

    def output_spec(self, sources: tuple[Spec | None, ...], refs: Mapping[str, Spec | None]) -> Spec | None:
        """That of the branches."""
        true, false = (branch.infer(_of(option, refs)) for option, branch in self.branches.items())
        if true is not None and false is not None and _shape(true) != _shape(false):
            raise self.error(f"both branches must have the same axes and dtype, but are {true} and {false}")
        return true if true is not None else false

    async def building(self) -> None:
        """The parameters of both branches."""
        for branch in self.branches.values():
            await branch.build()

    def freeze(self) -> None:
        """The branches as they are run."""
        for branch in self.branches.values():
            branch.freeze()

    def is_recurrent(self) -> bool:
        """Whether any layer of the branches is."""
        return any(node.layer.is_recurrent() for branch in self.branches.values() for node in branch.nodes)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The output of the chosen branch; for all ticks of a loop at once what each tick chooses."""
        condition = refs["condition"]
        if condition.data.numel() != 1:
            if condition.spec.rank == len(condition.spec.loop):
                return self._by_tick(condition, *(self.branches[o].run(_of(o, refs)) for o in _BRANCHES))
            raise self.error(f"`condition` must be a single bool, but has shape {tuple(condition.data.shape)}")
        option = _BRANCHES[0] if bool(condition.data) else _BRANCHES[1]
        out = self.branches[option].run(_of(option, refs))
        spec = self.branches[_BRANCHES[0]].output.spec
        if spec is None or out.spec == spec or out.spec.loop or _shape(out.spec) != _shape(spec):
            return out
        return _as_spec(out, spec)

    def _by_tick(self, condition: Tensor, true: Tensor, false: Tensor) -> Tensor:
        spec = common((true.spec, false.spec, condition.spec), self.behavior)
        chosen, yes, no = (place(x, spec, self.behavior) for x in (condition, true, false))
        return joined(torch.where(chosen, yes, no), spec, [true, false, condition])


class Branch:
    """The layer that an option of a `cond` layer describes, with all that it needs of its own: `nodes`, in order."""

    output: Node

    def __init__(self, owner: Layer, outer: Net, option: str, description: Mapping[str, Any]) -> None:
        self.in_loop = outer.inside_loop
        self.specs: dict[str, Spec | None] = {}
        self._net: UnitNet | None = UnitNet(owner, outer, description, self.specs, option=option, has_source=False)
        self.nodes = self._net.order

    @property
    def net(self) -> UnitNet:
        """The net, until it is built."""
        if self._net is None:
            raise RuntimeError("the branch is not under construction")
        return self._net

    def infer(self, specs: Mapping[str, Spec | None]) -> Spec | None:
        """The Spec of the output, for those of what is read outside."""
        self.specs.update(specs)
        for node in self.nodes:
            infer(node)
        return self.output.spec

    async def build(self) -> None:
        """The parameters of all layers."""
        for node in self.nodes:
            await self.net.complete(node)
            if self.in_loop and ticking(node) is not None:
                raise node.layer.error("a layer that carries a state from tick to tick cannot be a branch of `cond`")

    def freeze(self) -> None:
        """The net is built."""
        self._net = None

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The output."""
        values: dict[Node, Tensor] = {}
        for node in self.nodes:
            layer = node.layer
            values[node] = inputs[layer.key] if isinstance(layer, UnitInput) else compute(node, values)
        return values[self.output]


def _shape(x: Spec) -> tuple[object, ...]:
    return (x.dtype, x.sparse, x.batch, tuple(d.size for d in x.dims))


def _as_spec(x: Tensor, spec: Spec) -> Tensor:
    """`x` with the axes of the other branch, which are of the same sizes."""
    dims = zip(x.spec.dims, spec.dims, strict=True)
    lengths = {new: x.length(old) for old, new in dims if new.dynamic and old.dynamic}
    return x.with_lengths(lengths).with_data(x.data, spec)


T = TypeVar("T")


def _of(option: str, refs: Mapping[str, T]) -> dict[str, T]:
    """What the branch of this option reads outside, by the names that it has there."""
    return {name.removeprefix(f"{option}:"): value for name, value in refs.items() if name.startswith(f"{option}:")}
