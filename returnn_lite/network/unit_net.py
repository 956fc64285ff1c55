"""The net of one layer dict that another layer runs: `unit` of `masked_computation`, the branches of `cond`."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.linking import Task, task
from returnn_lite.layers.core.node import Node
from returnn_lite.network.construct import Net
from returnn_lite.tensor import Spec


class UnitInput(Layer):
    """What the unit reads: the source of its owner ("data"), or a layer of the net around.

    `specs`: the Specs by key, kept up to date by the owner.
    """

    class_name: ClassVar[str] = "unit input"
    sources: ClassVar[str] = "none"

    def __init__(self, key: str, specs: Mapping[str, Spec | None]) -> None:
        super().__init__()
        self.key = key
        self.specs = specs

    def output_spec(self, sources: tuple[Spec | None, ...], refs: Mapping[str, Spec | None]) -> Spec | None:
        """As the unit sees it."""
        return self.specs.get(self.key)


class UnitNet(Net):
    """One layer of its owner's name, run by the owner: its nodes stand in no other net's order.

    `option`: that of the owner which describes the layer. With `has_source`, "data" is the owner's source; every other
    name is a layer of the net around, noted in `captured`.
    """

    immediate = False

    def __init__(
        self,
        owner: Layer,
        outer: Net,
        unit: Mapping[str, Any],
        input_specs: Mapping[str, Spec | None],
        *,
        option: str = "unit",
        has_source: bool = True,
    ) -> None:
        self.owner = owner
        self.input_specs = input_specs
        self.has_source = has_source
        described = {"name_scope": owner.options.name_scope, **({"from": "data"} if has_source else {}), **unit}
        super().__init__(
            {owner.name: described}, outer.shared, path=f'{owner.path}["{option}"]', prefix=outer.prefix, parent=outer,
            trainable=outer.trainable and bool(owner.options.trainable),
        )  # fmt: skip
        self.order = []
        self.names.owner = owner
        self.waiting: deque[tuple[Node, Net, str]] = deque()  # "prev:" nodes, and the layers that they name
        self.captured: dict[str, Node] = {}

    def layer_path(self, name: str) -> str:
        """The unit has no name of its own."""
        return self.path if name == self.owner.name else super().layer_path(name)

    @task
    async def _find(self, name: str) -> Node:
        if name == self.owner.name:
            return await self.link(name, self.descriptions[name])
        if name != "data" or not self.has_source:
            self.captured[name] = await self._around().ask(name)
        return await self.internal(name, UnitInput(name, self.input_specs))

    def previous_in(self, net: Net, name: str) -> Node:
        """A layer of a sub-network at the last tick; the owner links it, and carries the layer's output on."""
        node = Node(f"prev:{name}", Layer())
        self.waiting.append((node, net, name))
        self.order.append(node)
        return node

    def tell(self, node: Node) -> None:
        """No line: the owner has one."""

    def _around(self) -> Net:
        if self.parent is None:
            raise self.not_found(self.owner.name)
        return self.parent

    @property
    def in_loop(self) -> bool:
        """Whether the net around is a loop's."""
        return self._around().in_loop

    def ask_target(self, target: ConfigValue) -> Task[Node]:
        """A target of the net around."""
        name = self.target_name(target)
        return self.ask(name[len("layer:") :] if name.startswith("layer:") else f"data:{name}")

    def subnet(self, descriptions: ConfigDict, *, path: str, prefix: str, trainable: bool) -> Net:
        """A sub-network as unit; "base:x" is a layer of the net around the owner."""
        return _InUnit(self, self, descriptions, path=path, prefix=prefix, trainable=trainable)


class _InUnit(Net):
    """The net of a sub-network inside the unit."""

    immediate = False

    def __init__(
        self, unit: UnitNet, parent: Net, descriptions: ConfigDict, *, path: str, prefix: str, trainable: bool
    ) -> None:
        super().__init__(
            descriptions, parent.shared, path=path, prefix=prefix, parent=parent,
            trainable=parent.trainable and trainable,
        )  # fmt: skip
        self.unit = unit

    def previous(self, name: str) -> Node:
        """An inner layer at the last tick of the loop around."""
        if not self.inside_loop:
            return super().previous(name)
        return self.unit.previous_in(self, name)

    def data(self, key: str) -> Task[Node]:
        """A data key as the net around sees it."""
        return self.base(f"data:{key}")

    def subnet(self, descriptions: ConfigDict, *, path: str, prefix: str, trainable: bool) -> Net:
        """A further sub-network."""
        return _InUnit(self.unit, self, descriptions, path=path, prefix=prefix, trainable=trainable)
