"""What a layer sees of the net around it while it is linked."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, ParamSpec, Protocol, TypeAlias, TypeGuard, TypeVar

from returnn_lite.config_value import ConfigValue
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.context import Surroundings
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import once_per_class

T = TypeVar("T")
P = ParamSpec("P")
# A call of an async function; what it awaits in between is the business of the worklist alone.
Work: TypeAlias = Coroutine[Any, Any, T]


class Task(Generic[T]):
    """Work whose result is awaited by other work.

    Tasks wait for one another on an explicit stack (see `network/worklist.py`), so that no chain of layers is too deep.
    """

    __slots__ = ("work",)

    def __init__(self, work: Work[T]) -> None:
        self.work = work

    def __await__(self) -> Generator[Task[T], T, T]:
        return (yield self)


def task(function: Callable[P, Work[T]]) -> Callable[P, Task[T]]:
    """Makes the calls of an async function tasks."""

    @functools.wraps(function)
    def made(*args: P.args, **kwargs: P.kwargs) -> Task[T]:
        return Task(function(*args, **kwargs))

    return made


class Linker(Surroundings, Protocol):
    """The net of a layer that is being linked: what is asked for is built first."""

    @property
    def inside_loop(self) -> bool:
        """Whether there is a loop somewhere around the net, or the net is one."""
        ...

    def ask(self, name: ConfigValue) -> Task[Node]:
        """The node of a reference. Raises ConfigError for unknown layers and dependency loops."""
        ...

    def ask_target(self, target: ConfigValue) -> Task[Node]:
        """The node of a target: "layer:x", a layer of that name, or a data key."""
        ...

    def data(self, key: str) -> Task[Node]:
        """The node of a data key of the batch."""
        ...


class Links(Protocol):
    """A layer that refers to more than its sources and layer-valued options, or notes whom it reads."""

    def link(self, net: Any, node: Node) -> Work[None] | None:  # Any: a `Linker`, or the net for layers that hold nets
        """Adds to `node.refs`; `net` is a `Linker`, for layers that hold nets of their own the net itself."""
        ...


def links(layer: Layer) -> TypeGuard[Links]:
    """Whether the layer's class is one of these."""
    cls: Any = type(layer)
    return _links(cls)


@once_per_class
def _links(cls: type[Any]) -> bool:
    return hasattr(cls, "link")
