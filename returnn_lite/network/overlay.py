"""Overlay nets: some layers of a net made once more, sharing the parameters – "extra.search:output" with search on."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from returnn_lite.config_value import ConfigValue
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.context import Context
from returnn_lite.layers.core.linking import Task, task
from returnn_lite.layers.core.node import Node
from returnn_lite.network.construct import Net
from returnn_lite.network.sources import PartOf


class OverlayContext(Context):
    """The context of the network, its very attributes, but for the search flag."""

    def __init__(self, main: Context) -> None:
        self.__dict__ = main.__dict__

    @property
    def search(self) -> bool:  # type: ignore[override]
        """Choices search."""
        return True


class OverlayNet(Net):
    """The layers of the net `main` that are asked for as "<name>:layer".

    A layer is described by the entry "<name>:layer" of the dict, else by "layer". What it reads are the layers of
    `main`, unless there is an entry "<name>:…" for them. With ".search" in the name choices search.
    """

    def __init__(self, main: Net, name: str) -> None:
        super().__init__(
            main.descriptions, main.shared, path=main.path, prefix=main.prefix, parent=main, trainable=main.trainable
        )
        self.main = main
        self.name = name
        self.given = main.given
        if ".search" in name:
            self.shared = copy.copy(main.shared)  # the same lists, another context
            self.shared.context = OverlayContext(main.shared.context)
            main.shared.context.beams = True

    def ask(self, name: ConfigValue) -> Task[Node]:
        """What a layer of this net reads."""
        own = isinstance(name, str) and f"{self.name}:{name}" in self.descriptions
        return self.layer(name) if own else self.main.ask(name)

    def layer(self, name: str) -> Task[Node]:
        """A layer of this net."""
        return super().ask(name)

    @task
    async def _find(self, name: str) -> Node:
        description = self.descriptions.get(f"{self.name}:{name}", self.descriptions.get(name))
        if description is not None:
            return await self.link(name, description)
        return await (self.part(name) if "/" in name else self.main.ask(name))

    @task
    async def part(self, name: str) -> Node:
        """A layer inside a sub-net, or one of several outputs of a layer."""
        outer, _, inner = name.partition("/")
        owner = await self.layer(outer)
        subnet = self.subnets.get(outer)
        if subnet is not None and not subnet.is_loop:
            return await subnet.ask(inner)
        return await self.internal(name, PartOf(inner, owner.layer), [owner])

    def base(self, name: str) -> Task[Node]:
        """A layer of the net around `main`."""
        return self.main.base(name)

    def layer_path(self, name: str) -> str:
        """A layer in config syntax."""
        return f'{self.path}["{self.name}:{name}"]'


def counts_once(layers: Iterable[Layer]) -> list[Layer]:
    """These layers without those of overlay nets whose parameters another one has already."""
    layers = list(layers)
    plain = {m.scope.prefix for m in layers if m.scope is not None and not isinstance(m.context, OverlayContext)}
    return [
        m for m in layers if not isinstance(m.context, OverlayContext) or m.scope is None or m.scope.prefix not in plain
    ]
