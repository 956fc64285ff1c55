"""What a layer sees of the net around it while it is linked."""

from __future__ import annotations

from collections.abc import Generator
from functools import cache
from typing import Any, Protocol, TypeGuard, TypeVar

from returnn_lite.layers.core.base import Layer, Surroundings
from returnn_lite.layers.core.node import Node

T = TypeVar("T")
# Work that yields the tasks whose results it waits for, and returns a result of its own. They are kept on an explicit
# stack, so that no chain of layers is too deep (see `network/worklist.py`).
Task = Generator[Any, Any, T]


class Linker(Surroundings, Protocol):
    """The net of a layer that is being linked: what is asked for is built first."""

    def ask(self, name: Any) -> Task[Node]:
        """The node of a reference. Raises ConfigError for unknown layers and dependency loops."""
        ...

    def ask_target(self, target: Any) -> Task[Node]:
        """The node of a target: "layer:x", a layer of that name, or a data key."""
        ...

    def data(self, key: str) -> Task[Node]:
        """The node of a data key of the batch."""
        ...


class Links(Protocol):
    """A layer that refers to more than its sources and layer-valued options, or notes whom it reads."""

    def link(self, net: Any, node: Node) -> Task[None] | None:
        """Adds to `node.refs`; `net` is a `Linker`, for layers that hold nets of their own the net itself."""
        ...


def links(layer: Layer) -> TypeGuard[Links]:
    """Whether the layer's class is one of these."""
    cls: Any = type(layer)
    return _links(cls)


@cache
def _links(cls: type[Any]) -> bool:
    return hasattr(cls, "link")
