"""`LoopNet`: the net inside a loop – references to the same tick, the previous one, the frames of data, the parent."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.linking import Task
from returnn_lite.layers.core.node import Node
from returnn_lite.network.construct import Net
from returnn_lite.network.names import join
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.spec import scalar

if TYPE_CHECKING:
    from returnn_lite.rec.loop_layer import RecLoop


class InnerSource(Layer):
    """What a loop reads from outside.

    `kind`: "outer" (a layer of the parent net, whole), "frame" (of data), "counter".
    """

    class_name: ClassVar[str] = "loop input"
    sources: ClassVar[str] = "none"

    def __init__(self, kind: str, key: str, owner: RecLoop) -> None:
        super().__init__()
        self.kind = kind
        self.key = key
        self.__dict__["owner"] = owner

    @property
    def outer_node(self) -> Node | None:
        """The node outside that it reads; None for the source and the counter."""
        return self.__dict__["owner"].__dict__["net"].captured.get(self.key)  # type: ignore[no-any-return]

    def output_spec(self, sources: tuple[Spec | None, ...], refs: Mapping[str, Spec | None]) -> Spec | None:
        """As one tick sees it."""
        if self.kind == "counter":
            return scalar("int32")
        owner: RecLoop = self.__dict__["owner"]
        outer = owner.outer_specs.get(self.key)
        if outer is None or self.kind == "outer":
            return outer
        return outer.in_loop(owner.length.frame_dim(self.key, outer))


class Previous(Layer):
    """A layer at the previous tick."""

    class_name: ClassVar[str] = "prev"
    sources: ClassVar[str] = "none"

    def __init__(self, of: Node) -> None:
        super().__init__()
        self.__dict__["of"] = of

    def output_spec(self, sources: tuple[Spec | None, ...], refs: Mapping[str, Spec | None]) -> Spec | None:
        """That of the layer."""
        return self.__dict__["of"].spec  # type: ignore[no-any-return]


class LoopNet(Net):
    """The dict `unit` of a rec layer. All nodes are linked before any Spec is inferred, since they form circles."""

    immediate = False
    is_loop = True

    def __init__(self, owner: RecLoop, parent: Net, descriptions: Mapping[str, Any]) -> None:
        prefix = join(parent.prefix, owner.options.name_scope, owner.name)
        super().__init__(
            descriptions, parent.shared, path=f'{owner.path}["unit"]', prefix=f"{prefix}/rec", parent=parent,
            trainable=parent.trainable and bool(owner.options.trainable),
        )  # fmt: skip
        self.order = []
        self.owner = owner
        self.captured: dict[str, Node] = {}
        self.waiting: deque[tuple[Node, Net, str]] = deque()
        self._inputs: dict[tuple[str, str], Node] = {}
        self._keys: dict[Node, str] = {}

    # --- references ---------------------------------------------------------------------------------------------------

    @property
    def outer(self) -> Net:
        """The net of the loop's layer."""
        if self.parent is None:
            raise ConfigError(self.path, "a loop has a parent net")
        return self.parent

    def _find(self, name: str) -> Task[Node]:
        if name == ":i":
            return (yield self._source(name, "counter", ""))
        if name in ("data", "data:source") and name not in self.descriptions:
            return (yield self._frame_of_source(name))
        return (yield super()._find(name))

    def base(self, name: str) -> Task[Node]:
        """A layer of the parent net, whole."""
        outer: Node = yield self.outer.ask(name)
        return (yield self._source(f"base:{name}", "outer", self.capture(f"base:{name}", outer)))

    def data(self, key: str) -> Task[Node]:
        """A frame of a data key; the whole value of a key without time axis."""
        outer: Node = yield self.outer.data(key)
        spec = self.shared.extern.spec(key)
        kind = "outer" if spec.time is None else "frame"
        return (yield self._source(f"data:{key}", kind, self.capture(f"data:{key}", outer)))

    def previous(self, name: str) -> Node:
        """A layer at the previous tick; its own node is linked later, since it may be under construction."""
        return self.previous_in(self, name)

    def previous_in(self, net: Net, name: str) -> Node:
        """`previous` for a layer of `net`, which is this loop or a sub-network inside it."""
        if name.startswith("prev:"):
            raise ConfigError(self._asker(), f'"prev:{name}" is impossible: only one tick is kept')
        node = Node(f"prev:{name}", Layer())
        self.waiting.append((node, net, name))
        self.order.append(node)
        return node

    def link_previous(self) -> Task[None]:
        """Links the layers that `prev:` references name, and all that these need."""
        while self.waiting:
            node, net, name = self.waiting.popleft()
            of: Node = yield net.ask(name)
            node.previous = of
            node.layer = Previous(of)
            node.layer.name, node.layer.path, node.layer.context = node.name, net.layer_path(name), self.shared.context

    def subnet(self, descriptions: Mapping[str, Any], *, path: str, prefix: str, trainable: bool) -> Net:
        """A sub-network inside the loop: its layers run in the loop, its "prev:x" is its own layer x."""
        made = _SubnetInLoop(
            descriptions, self.shared, path=path, prefix=prefix, parent=self, trainable=self.trainable and trainable
        )
        made.loop = self
        return made

    def target_outside(self, target: Any) -> Task[Node]:
        """The target of a loss in this loop, as the net outside sees it: whole sequences."""
        name = self.target_name(target)
        own = self.target_layer(target)
        if own is not None:
            return self.outside(own)
        layer = name.removeprefix("layer:")
        if layer.startswith("base:"):
            return self.outer.target_outside(f"layer:{layer[len('base:') :]}")
        return self.outer.target_outside(layer.removeprefix("data:"))

    def target_layer(self, target: Any) -> str | None:
        """The layer of this loop that a target names; None if it is outside."""
        name = self.target_name(target)
        layer = name.removeprefix("layer:")
        if layer.startswith(("base:", "data:")) and layer not in self.descriptions:
            return None
        return layer if layer != name or layer in self.descriptions else None

    def loss_targets(self) -> list[str]:
        """The layers of this loop that are targets of its losses."""
        context = self.shared.context
        if context.search or not context.losses:
            return []
        with_loss = (n.layer.options for n in self.nodes.values() if n.description.get("loss"))
        found = (self.target_layer(options.target) for options in with_loss if options.target is not None)
        return list(dict.fromkeys(name for name in found if name is not None))

    def outside(self, name: str) -> Task[Node]:
        """A layer of the loop, as the net outside sees it."""
        return self.outer.outside(f"{self.owner.name}/{name}")

    # --- what is read from outside ------------------------------------------------------------------------------------

    def capture(self, key: str, outer: Node) -> str:
        """Notes that the loop reads this node of the parent net; returns the key under which it comes in."""
        if outer not in self._keys:
            self._keys[outer] = key
            self.captured[key] = outer
        return self._keys[outer]

    def _frame_of_source(self, name: str) -> Task[Node]:
        if not self.owner.has_source:
            raise ConfigError(self._asker(), f"{name!r} needs a source, but `from` of the rec layer is empty")
        return (yield self._source(name, "frame", "source"))

    def _source(self, name: str, kind: str, key: str) -> Task[Node]:
        if (kind, key) not in self._inputs:
            self._inputs[kind, key] = yield self.internal(name, InnerSource(kind, key, self.owner))
        return self._inputs[kind, key]


class _SubnetInLoop(Net):
    """A `subnetwork` layer's net inside a loop."""

    immediate = False
    loop: LoopNet

    def previous(self, name: str) -> Node:
        """An inner layer at the previous tick."""
        return self.loop.previous_in(self, name)

    @property
    def in_loop(self) -> bool:
        """Whether the layers are those of a loop: yes."""
        return True

    def data(self, key: str) -> Task[Node]:
        """A frame of a data key."""
        return self.loop.data(key)

    def outside(self, name: str) -> Task[Node]:
        """An inner layer, as the net outside of the loop sees it."""
        return self.loop.outside(name)

    def target_outside(self, target: Any) -> Task[Node]:
        """The target of a loss, as the net outside of the loop sees it."""
        return self.loop.target_outside(target)

    def subnet(self, descriptions: Mapping[str, Any], *, path: str, prefix: str, trainable: bool) -> Net:
        """A further sub-network."""
        made = _SubnetInLoop(
            descriptions, self.shared, path=path, prefix=prefix, parent=self, trainable=self.trainable and trainable
        )
        made.loop = self.loop
        return made


def counter(tick: int, device: torch.device) -> Tensor:
    """The value of ":i"."""
    return Tensor(torch.tensor(tick, dtype=torch.int32, device=device), scalar("int32"), {})
