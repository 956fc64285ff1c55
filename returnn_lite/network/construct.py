"""`Net`: construction on demand, depth first, with the stack of askers for error texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.linking import Task, links, task
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.params import ParamScope
from returnn_lite.layers.core.registry import layer_valued
from returnn_lite.network import names
from returnn_lite.network.building import build, infer
from returnn_lite.network.description import LayerDescription, described
from returnn_lite.network.net_base import NetBase, reading
from returnn_lite.network.reuse import SharedParams, reuse_options
from returnn_lite.network.sources import DataSource, PartOf
from returnn_lite.network.worklist import run

EXTRA = re.compile(r"^(extra(?:\.[A-Za-z0-9_.()]*)?):(.*)$", re.DOTALL)


class Net(NetBase["Net"]):
    """A dict of layers, and the nodes that were asked for.

    `get` builds on demand: the node of a name first builds the nodes it reads. A plain net infers Specs and makes
    parameters at once; a loop (a sub-class) links all its nodes first. Tasks are steps of this work; they
    wait for one another on an explicit stack.
    """

    # --- looking up ---------------------------------------------------------------------------------------------------

    def get(self, name: str) -> Node:
        """The node of a reference. Raises ConfigError for unknown layers and dependency loops."""
        return run(self.ask(name))

    @task
    async def ask(self, name: ConfigValue) -> Node:
        """`get`, as a step of the construction."""
        asking = self.shared.asking
        if not isinstance(name, str):
            net, asker = next(reversed(asking), (self, ""))
            raise ConfigError(net.layer_path(asker), f"a layer reference must be a str, but is {name!r} instead")
        found = self.nodes.get(name)
        if found is not None:
            return found
        key = (self, name)
        if key in asking:
            askers = [n for _, n in asking]
            cycle = reading([*askers[list(asking).index(key) :], name])
            raise ConfigError(self.layer_path(name), f"there is a dependency loop on layer {name!r}: {cycle}")
        asking[key] = None
        try:
            node = await self._find(name)
        finally:
            del asking[key]
        self.nodes[name] = node
        while self.shared.postponed and not asking:
            net, late = self.shared.postponed.pop()
            await net.complete(late)
        return node

    @task
    async def _find(self, name: str) -> Node:
        if name in self.given:
            return self.given[name]
        extra = EXTRA.match(name)
        if extra:
            return await self.extra(extra.group(1), extra.group(2))
        if name in self.descriptions and not name.startswith("#"):
            return await self.link(name, self.descriptions[name])
        if name.startswith("base:"):
            return await self.base(name[len("base:") :])
        if name.startswith("prev:"):
            return self.previous(name[len("prev:") :])
        if name == "data" or name.startswith("data:"):
            return await self.data(name.partition(":")[2])
        if "/" in name:
            return await self.part(name)
        raise self.not_found(name)

    @task
    async def base(self, name: str) -> Node:
        """A layer of the parent net."""
        if self.parent is None:
            raise ConfigError(self.asker(), f'"base:{name}" needs a parent net, but this is the root net')
        return await self.parent.ask(name)

    def previous(self, name: str) -> Node:
        """A layer at the last tick."""
        raise ConfigError(self.asker(), f'"prev:{name}" exists only inside a loop (the unit of a rec layer)')

    @task
    async def extra(self, net: str, name: str) -> Node:
        """A layer in an overlay net: described by the entry "<net>:<name>" or "<name>", parameters shared."""
        if not self.immediate:
            raise ConfigError(self.asker(), f'"{net}:{name}" is impossible: a loop has no overlay nets')
        if net not in self.overlays:
            self.overlays[net] = self.shared.overlay(self, net)
        return await self.overlays[net].layer(name)

    def layer(self, name: str) -> Task[Node]:
        """A layer of this very net."""
        return self.ask(name)

    @task
    async def data(self, key: str) -> Node:
        """A data key of the root net (inside sub-nets "data" alone is the source, see `given`)."""
        root = self
        while root.parent is not None:
            root = root.parent
        key = key or self.shared.extern.default_input
        self.shared.extern.spec(key, self.asker())  # an unknown key is the fault of the layer that asks
        return await root.data_node(key)

    @task
    async def data_node(self, key: str) -> Node:
        """The root's node of a data key; one node however it is spelled."""
        name = f"data:{key}"
        if name not in self.nodes:
            layer = DataSource(key, self.shared.extern.spec(key))
            self.nodes[name] = await self.internal(name, layer)
        return self.nodes[name]

    @task
    async def part(self, name: str) -> Node:
        """A layer inside a sub-net, or one of several outputs of a layer: "sub/inner"."""
        outer, _, inner = name.partition("/")
        owner: Node | None = await self.ask(outer) if outer not in self.subnets else None  # under construction
        subnet = self.subnets.get(outer)
        if subnet is not None and not subnet.is_loop:
            return await subnet.ask(inner)
        owner = owner or await self.ask(outer)
        return await self.part_of(name, inner, owner)

    @task
    async def part_of(self, name: str, inner: str, owner: Node) -> Node:
        """One of several outputs of a layer."""
        part = PartOf(inner, owner.layer)
        if self.immediate and part.output_spec((owner.spec,), {}) is None:
            raise ConfigError(self.asker(), f"layer {owner.name!r} has no part {inner!r}")
        return await self.internal(name, part, [owner])

    def outside(self, name: str) -> Task[Node]:
        """A layer of this net as the root net sees it (a loop has its frames stacked)."""
        return self.ask(name)

    def suppose(self) -> None:
        """Infers what Specs can be told of layers that are linked, but not yet inferred, as those of a loop."""

    def target_outside(self, target: ConfigValue) -> Task[Node]:
        """The target of a loss, as the root net sees it."""
        return self.ask_target(target)

    def owner_of(self, name: str) -> tuple[Net, str]:
        """The net that owns a layer, and its name there: "base:" goes up, "sub/inner" down."""
        net: Net = self
        while True:
            while name.startswith("base:") and net.parent is not None:
                net, name = net.parent, name[len("base:") :]
            outer, _, inner = name.partition("/")
            if not inner or outer not in net.subnets or name in net.descriptions:
                return net, name
            net, name = net.subnets[outer], inner

    def subnet(self, descriptions: ConfigDict, *, path: str, prefix: str, trainable: bool) -> Net:
        """A net inside this one, whose layers run in the same order as those of this net."""
        made = Net(
            descriptions, self.shared, path=path, prefix=prefix, parent=self, trainable=self.trainable and trainable
        )
        made.immediate = self.immediate
        return made

    # --- linking ------------------------------------------------------------------------------------------------------

    @task
    async def link(self, name: str, entry: ConfigValue) -> Node:
        """Makes the layer of a dict entry, after the nodes it reads."""
        description = described(name, entry, self)
        await self._find_size(description)
        layer = description.make()
        self._place(layer, name, description.path)
        node = Node(name, layer, description=description.entry)
        await self._link_params(node)
        for source in description.sources(self.context.behavior):
            found = await self.ask(source)
            while self.in_loop and found.layer.passes_through:
                found = found.sources[0]
            node.sources.append(found)
        for option in layer_valued(description.cls):
            value = getattr(layer, option, None)
            if isinstance(value, str):  # numbers and other values are left to the layer
                node.refs[option] = await self.ask(value)
        if links(layer):
            try:
                linking = layer.link(self, node)
                if linking is not None:
                    await linking
            except ConfigError as exc:
                raise exc if exc.path.startswith("network") else ConfigError(description.path, str(exc)) from exc
        return await self._finish(node)

    @task
    async def internal(
        self, name: str, layer: Layer, sources: Iterable[Node] = (), refs: Mapping[str, Node] | None = None
    ) -> Node:
        """A node that stands in no dict."""
        self._place(layer, name, self.layer_path(name))
        return await self._finish(Node(name, layer, list(sources), dict(refs or {})))

    def _place(self, layer: Layer, name: str, path: str) -> None:
        shared = self.shared
        layer.name, layer.path, layer.context, layer.net = name, path, shared.context, self.names
        options = layer.options
        if len(options.name_scope or "") > 1 and str(options.name_scope).endswith("/"):
            raise layer.error(f'`name_scope` must not end in "/", but is {options.name_scope!r} instead')
        layer.scope = ParamScope(
            shared.store, names.join(self.prefix, options.name_scope, name), path,
            trainable=self.trainable and bool(options.trainable), updater_opts=options.updater_opts,
        )  # fmt: skip
        reuse = reuse_options(options.reuse_params, path)
        layer.scope.reuse = None if reuse is None else SharedParams(reuse, layer)
        shared.scopes[path] = layer.scope
        shared.modules.append(layer)

    @task
    async def _link_params(self, node: Node) -> None:
        """The nodes whose outputs are parameters; in a loop, also the layers whose parameters are shared are linked."""
        reuse = _shared_params(node)
        if reuse is not None:
            self.shared.homes[node] = self
            for name in reuse.options.outputs:
                reuse.outputs[name] = await self.ask(name)
            node.param_nodes = dict(reuse.outputs)
            for owner, name in map(self.owner_of, reuse.options.layers) if not self.immediate else ():
                if not owner.immediate and name not in owner.nodes and (owner, name) not in self.shared.asking:
                    owner.previous(name)
        if node.layer.options.size_target and self.context.losses and self.immediate:
            await self.data(node.layer.options.size_target)

    @task
    async def _finish(self, node: Node) -> Node:
        """The node's axes and parameters.

        It can be found before it has parameters: a layer that it shares some with may read it; if that one is under
        construction itself, this one gets its parameters later.
        """
        if self.immediate:
            infer(node)
            if node.description:
                self.nodes[node.name] = node
        self.order.append(node)
        if self.immediate:
            await self.complete(node)
        return node

    # --- parameters ---------------------------------------------------------------------------------------------------

    @task
    async def complete(self, node: Node) -> None:
        """The node's parameters, and its line in the log; later, if a layer that shares them is not made yet."""
        reuse, home = _shared_params(node), self.shared.homes.get(node, self)
        if reuse is not None and any(home.owner_of(name) in self.shared.asking for name in reuse.options.layers):
            self.shared.postponed.append((self, node))
            return
        await self.build(node)
        self.tell(node)

    @task
    async def build(self, node: Node) -> None:
        """The node's parameters, once; those of layers that it shares some with are made before."""
        shared = self.shared
        if node.built or node in shared.in_building:
            return
        shared.in_building.add(node)
        reuse = _shared_params(node)
        if reuse is not None:
            for name in reuse.options.layers:
                owner = await shared.homes[node].layer_with_params(name)
                await self.build(owner)
                reuse.owners[name] = owner
        await node.layer.building()
        build(node)
        node.built = True
        shared.in_building.discard(node)

    @task
    async def layer_with_params(self, name: str) -> Node:
        """The layer that `reuse_params` names, linked now if it is not yet."""
        if "/" in name and not name.startswith("base:"):
            await self.ask(name.partition("/")[0])
        owner, inner = self.owner_of(name)
        return await owner.ask(inner)

    # --- targets ------------------------------------------------------------------------------------------------------

    @task
    async def ask_target(self, target: ConfigValue) -> Node:
        """The node of a target: "layer:x", a layer of that name, or a data key."""
        name = self.target_name(target)
        if name.startswith("layer:"):
            return await self.ask(name[len("layer:") :])
        return await self.ask(name if name in self.descriptions else f"data:{name}")

    @task
    async def _find_size(self, description: LayerDescription) -> None:
        """Fills in `n_out` from `out_dim` or the target where the class takes it and the dict lacks it."""
        if not description.lacks_size:
            return
        options = description.options
        size = getattr(options.out_dim, "size", None)
        if size is None and description.sized_by_target:
            size = await self._target_dim(options.target, description.path)
            if size is not None and options.loss == "ctc":
                size += 1
        description.set_size(size)

    @task
    async def _target_dim(self, target: ConfigValue, path: str) -> int | None:
        """Number of classes (or features) of a target of the layer at `path`."""
        name = self.target_name(target)
        if name.startswith("layer:") or name in self.descriptions:
            node = await self.ask_target(target)
            if node.spec is None:
                self.suppose()
            return node.spec.dim if node.spec is not None else None
        return self.shared.extern.spec(name, path).dim


def _shared_params(node: Node) -> SharedParams | None:
    """What `reuse_params` of a node's layer says."""
    reuse = node.layer.scope.reuse if node.layer.scope is not None else None
    return reuse if isinstance(reuse, SharedParams) else None
