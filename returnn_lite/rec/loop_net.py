"""`LoopNet`: the net inside a loop – references to the same tick, the previous one, the frames of data, the parent."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.linking import Task, task
from returnn_lite.layers.core.node import Node
from returnn_lite.network.building import infer
from returnn_lite.network.construct import Net
from returnn_lite.network.names import join
from returnn_lite.rec.inputs import InnerSource, LoopInputs, link_previous


class LoopNet(Net):
    """The dict `unit` of a rec layer. All nodes are linked before any Spec is inferred, since they form circles."""

    immediate = False
    is_loop = True

    def __init__(self, owner: Layer, parent: Net, descriptions: Mapping[str, Any], inputs: LoopInputs) -> None:
        prefix = join(parent.prefix, owner.options.name_scope, owner.name)
        super().__init__(
            descriptions, parent.shared, path=f'{owner.path}["unit"]', prefix=f"{prefix}/rec", parent=parent,
            trainable=parent.trainable and bool(owner.options.trainable),
        )  # fmt: skip
        self.order = []
        self.owner = owner
        self.names.owner = owner
        self.inputs = inputs
        self.waiting: deque[tuple[Node, Net, str]] = deque()
        self._sources: dict[tuple[str, str], Node] = {}

    # --- references ---------------------------------------------------------------------------------------------------

    @property
    def outer(self) -> Net:
        """The net of the loop's layer."""
        if self.parent is None:
            raise ConfigError(self.path, "a loop has a parent net")
        return self.parent

    @task
    async def _find(self, name: str) -> Node:
        if name == ":i":
            return await self._source(name, "counter", "")
        if name in ("data", "data:source") and name not in self.descriptions:
            return await self._frame_of_source(name)
        return await super()._find(name)

    @task
    async def base(self, name: str) -> Node:
        """A layer of the parent net, whole."""
        outer = await self.outer.ask(name)
        return await self._source(f"base:{name}", "outer", self.inputs.capture(f"base:{name}", outer))

    @task
    async def data(self, key: str) -> Node:
        """A frame of a data key; the whole value of a key without time axis."""
        outer = await self.outer.data(key)
        spec = self.shared.extern.spec(key)
        kind = "outer" if spec.time is None else "frame"
        return await self._source(f"data:{key}", kind, self.inputs.capture(f"data:{key}", outer))

    def previous(self, name: str) -> Node:
        """A layer at the previous tick; its own node is linked later, since it may be under construction."""
        return self.previous_in(self, name)

    def previous_in(self, net: Net, name: str) -> Node:
        """`previous` for a layer of `net`, which is this loop or a sub-network inside it."""
        if name.startswith("prev:"):
            raise ConfigError(self.asker(), f'"prev:{name}" is impossible: only one tick is kept')
        node = Node(f"prev:{name}", Layer())
        self.waiting.append((node, net, name))
        self.order.append(node)
        return node

    @task
    async def link_previous(self) -> None:
        """Links the layers that `prev:` references name, and all that these need."""
        while self.waiting:
            node, net, name = self.waiting.popleft()
            link_previous(node, await net.ask(name), net.layer_path(name), self.shared.context)

    def subnet(self, descriptions: ConfigDict, *, path: str, prefix: str, trainable: bool) -> Net:
        """A sub-network inside the loop: its layers run in the loop, its "prev:x" is its own layer x."""
        made = SubnetInLoop(
            descriptions, self.shared, path=path, prefix=prefix, parent=self, trainable=self.trainable and trainable
        )
        made.loop = self
        return made

    def suppose(self) -> None:
        """From what the loop reads from outside, as far as it is linked."""
        self.inputs.specs.update({key: node.spec for key, node in self.inputs.captured.items()})
        for node in self.order:
            if node.spec is None:
                with contextlib.suppress(ConfigError):
                    infer(node)

    def target_outside(self, target: ConfigValue) -> Task[Node]:
        """The target of a loss in this loop, as the net outside sees it: whole sequences."""
        name = self.target_name(target)
        own = self.target_layer(target)
        if own is not None:
            return self.outside(own)
        layer = name.removeprefix("layer:")
        if layer.startswith("base:"):
            return self.outer.target_outside(f"layer:{layer[len('base:') :]}")
        return self.outer.target_outside(layer.removeprefix("data:"))

    def target_layer(self, target: ConfigValue) -> str | None:
        """The layer of this loop that a target names; None if it is outside."""
        name = self.target_name(target)
        layer = name.removeprefix("layer:")
        if layer.startswith(("base:", "data:")) and layer not in self.descriptions:
            return None
        return layer if layer != name or layer in self.descriptions else None

    def loss_targets(self) -> list[str]:
        """The layers of this loop that its losses read besides their own: targets, and what they are divided by."""
        context = self.shared.context
        if context.search or not context.losses:
            return []
        found = []
        for net in self._nets():
            for options in (n.layer.options for n in net.nodes.values() if n.description.get("loss")):
                norm = (options.loss_opts or {}).get("custom_inv_norm_factor")
                found += [net.target_layer(options.target)] if options.target is not None else []
                found += [net.target_layer(f"layer:{norm}")] if isinstance(norm, str) else []
        return list(dict.fromkeys(name for name in found if name is not None))

    def _nets(self) -> Iterator[LoopNet | SubnetInLoop]:
        """This net and all sub-networks that are run with it."""
        waiting: deque[LoopNet | SubnetInLoop] = deque([self])
        while waiting:
            net = waiting.popleft()
            yield net
            waiting += [n for n in net.subnets.values() if isinstance(n, SubnetInLoop)]

    def within(self, name: str) -> tuple[Net, str]:
        """The sub-network that has a layer, and its name there: "sub/inner" is "inner" of "sub"."""
        net: Net = self
        outer, _, inner = name.partition("/")
        while inner and isinstance(net.subnets.get(outer), SubnetInLoop):
            net, name = net.subnets[outer], inner
            outer, _, inner = name.partition("/")
        return net, name

    def located(self, name: str) -> str:
        """A name as this net says it."""
        return name

    def outside(self, name: str) -> Task[Node]:
        """A layer of the loop, or one that it reads, as the net outside sees it."""
        if name.startswith("base:"):
            return self.outer.outside(name[len("base:") :])
        if name.startswith("data:") and name not in self.descriptions:
            return self.outer.outside(name)
        return self.outer.outside(f"{self.owner.name}/{name}")

    # --- what is read from outside ------------------------------------------------------------------------------------

    @task
    async def _frame_of_source(self, name: str) -> Node:
        if not self.inputs.has_source:
            raise ConfigError(self.asker(), f"{name!r} needs a source, but `from` of the rec layer is empty")
        return await self._source(name, "frame", "source")

    @task
    async def _source(self, name: str, kind: str, key: str) -> Node:
        if (kind, key) not in self._sources:
            self._sources[kind, key] = await self.internal(name, InnerSource(kind, key, self.inputs))
        return self._sources[kind, key]


class SubnetInLoop(Net):
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

    def located(self, name: str) -> str:
        """A name in this net as the loop's own net says it."""
        parent = self.parent
        is_data = name.startswith("data:") and name not in self.descriptions
        if is_data or not isinstance(parent, (LoopNet, SubnetInLoop)):
            return name
        if name.startswith("base:"):
            return parent.located(name[len("base:") :])
        return f"{parent.located(next(n for n, net in parent.subnets.items() if net is self))}/{name}"

    def outside(self, name: str) -> Task[Node]:
        """An inner layer, as the net outside of the loop sees it."""
        return self.loop.outside(self.located(name))

    def target_layer(self, target: ConfigValue) -> str | None:
        """The layer of the loop that a target names; None if it is outside."""
        return self.loop.target_layer(self._located_target(target))

    def _located_target(self, target: ConfigValue) -> str:
        name = self.target_name(target)
        layer = name.removeprefix("layer:")
        return f"layer:{self.located(layer if layer != name or layer in self.descriptions else f'data:{layer}')}"

    def suppose(self) -> None:
        """All layers of the loop."""
        self.loop.suppose()

    def target_outside(self, target: ConfigValue) -> Task[Node]:
        """The target of a loss, as the net outside of the loop sees it."""
        return self.loop.target_outside(self._located_target(target))

    def subnet(self, descriptions: ConfigDict, *, path: str, prefix: str, trainable: bool) -> Net:
        """A further sub-network."""
        made = SubnetInLoop(
            descriptions, self.shared, path=path, prefix=prefix, parent=self, trainable=self.trainable and trainable
        )
        made.loop = self.loop
        return made
