"""`Net`: construction on demand, depth first, with the stack of askers for error texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from returnn_lite.errors import ConfigError, ConfigErrors, did_you_mean
from returnn_lite.layers.core.axis_rules import check_axis_texts
from returnn_lite.layers.core.base import Context, Layer
from returnn_lite.layers.core.params import ParamScope, ParamStore
from returnn_lite.layers.core.registry import layer_class, layer_valued, own_options, split_options
from returnn_lite.network import names
from returnn_lite.network.extern import ExternData
from returnn_lite.network.graph import Node
from returnn_lite.network.reuse import Reuse, resolve, reuse_function
from returnn_lite.network.sources import DataSource, PartOf

EXTRA = re.compile(r"^(extra(?:\.[A-Za-z0-9_.()]*)?):(.*)$", re.DOTALL)


class Shared:
    """What the nets of one network (root, sub-nets, loops) share while it is constructed."""

    def __init__(
        self, context: Context, store: ParamStore, extern: ExternData, overlay: Callable[[Net, str], Net]
    ) -> None:
        self.context = context
        self.overlay = overlay
        self.store = store
        self.extern = extern
        self.scopes: dict[str, ParamScope] = {}
        self.modules: list[Layer] = []
        self.asking: list[tuple[Net, str]] = []
        self.postponed: list[tuple[Net, Node]] = []


class Net:
    """A dict of layers, and the nodes that were asked for.

    `get` builds on demand: the node of a name first builds the nodes it reads. A plain net infers Specs and makes
    parameters at once; a loop (a sub-class) links all its nodes first.
    """

    immediate = True
    is_loop = False

    def __init__(
        self,
        descriptions: Mapping[str, Any],
        shared: Shared,
        *,
        path: str,
        prefix: str = "",
        parent: Net | None = None,
        trainable: bool = True,
    ) -> None:
        if not isinstance(descriptions, Mapping):
            raise ConfigError(path, f"must be a dict of layers, but is {type(descriptions).__name__} instead")
        for name in descriptions:
            if not isinstance(name, str):
                raise ConfigError(path, f"the names of layers must be strs, but {name!r} is none")
        self.descriptions = descriptions
        self.shared = shared
        self.path = path
        self.prefix = prefix
        self.parent = parent
        self.trainable = trainable and descriptions.get("#trainable", True) is not False
        self.nodes: dict[str, Node] = {}
        self.order: list[Node] = parent.order if parent is not None else []
        self.subnets: dict[str, Net] = {}
        self.overlays: dict[str, Net] = {}
        self.given: dict[str, Node] = {}

    # --- looking up ---------------------------------------------------------------------------------------------------

    def get(self, name: str) -> Node:
        """The node of a reference. Raises ConfigError for unknown layers and dependency loops."""
        if not isinstance(name, str):
            net, asker = self.shared.asking[-1] if self.shared.asking else (self, "")
            raise ConfigError(net.layer_path(asker), f"a layer reference must be a str, but is {name!r} instead")
        found = self.nodes.get(name)
        if found is not None:
            return found
        key = (self, name)
        if key in self.shared.asking:
            chain = " <- ".join(n for _, n in self.shared.asking[self.shared.asking.index(key) :])
            raise ConfigError(self.layer_path(name), f"there is a dependency loop on layer {name!r}: {chain} <- {name}")
        self.shared.asking.append(key)
        try:
            node = self._find(name)
        finally:
            self.shared.asking.pop()
        self.nodes[name] = node
        while self.shared.postponed and not self.shared.asking:
            net, late = self.shared.postponed.pop()
            net._complete(late)
        return node

    def _find(self, name: str) -> Node:
        if name in self.given:
            return self.given[name]
        extra = EXTRA.match(name)
        if extra:
            return self.extra(extra.group(1), extra.group(2))
        if name in self.descriptions and not name.startswith("#"):
            return self.link(name, self.descriptions[name])
        if name.startswith("base:"):
            return self.base(name[len("base:") :])
        if name.startswith("prev:"):
            return self.previous(name[len("prev:") :])
        if name == "data" or name.startswith("data:"):
            return self.data(name.partition(":")[2])
        if "/" in name:
            return self.part(name)
        raise self.not_found(name)

    def not_found(self, name: str) -> ConfigError:
        """The error of a reference to nothing."""
        known = [n for n in self.descriptions if not n.startswith("#")]
        chain = " <- ".join(repr(n) for _, n in reversed(self.shared.asking[:-1]))
        asked = f"; asked for by {chain}" if chain else ""
        return ConfigError(self._asker(), f"layer {name!r} not found{did_you_mean(name, known)}{asked}")

    def base(self, name: str) -> Node:
        """A layer of the parent net."""
        if self.parent is None:
            raise ConfigError(self._asker(), f'"base:{name}" needs a parent net, but this is the root net')
        return self.parent.get(name)

    def previous(self, name: str) -> Node:
        """A layer at the last tick."""
        raise ConfigError(self._asker(), f'"prev:{name}" exists only inside a loop (the unit of a rec layer)')

    def extra(self, net: str, name: str) -> Node:
        """A layer in an overlay net: described by the entry "<net>:<name>" or "<name>", parameters shared."""
        if not self.immediate:
            raise ConfigError(self._asker(), f'"{net}:{name}" is impossible: a loop has no overlay nets')
        if net not in self.overlays:
            self.overlays[net] = self.shared.overlay(self, net)
        return self.overlays[net].layer(name)

    def layer(self, name: str) -> Node:
        """A layer of this very net."""
        return self.get(name)

    def data(self, key: str) -> Node:
        """A data key of the root net (inside sub-nets "data" alone is the source, see `given`)."""
        root = self
        while root.parent is not None:
            root = root.parent
        key = key or self.shared.extern.default_input
        self.shared.extern.spec(key, self._asker())  # an unknown key is the fault of the layer that asks
        return root.data_node(key)

    def data_node(self, key: str) -> Node:
        """The root's node of a data key; one node however it is spelled."""
        name = f"data:{key}"
        if name not in self.nodes:
            layer = DataSource(key, self.shared.extern.spec(key))
            self.nodes[name] = self.internal(name, layer)
        return self.nodes[name]

    def part(self, name: str) -> Node:
        """A layer inside a sub-net, or one of several outputs of a layer: "sub/inner"."""
        outer, _, inner = name.partition("/")
        owner = self.get(outer) if outer not in self.subnets else None  # it may be under construction
        subnet = self.subnets.get(outer)
        if subnet is not None and not subnet.is_loop:
            return subnet.get(inner)
        owner = owner or self.get(outer)
        part = PartOf(inner, owner.layer)
        if self.immediate and part.output_spec((owner.spec,), {}) is None:
            raise ConfigError(self._asker(), f"layer {outer!r} has no part {inner!r}")
        return self.internal(name, part, [owner])

    def outside(self, name: str) -> Node:
        """A layer of this net as the root net sees it (a loop has its frames stacked)."""
        return self.get(name)

    def target_outside(self, target: Any) -> Node:
        """The target of a loss, as the root net sees it."""
        return self.target_node(target)

    def _asker(self) -> str:
        """The path of the layer that asks for the present one."""
        asking = self.shared.asking
        if len(asking) < 2:
            return self.path
        net, name = asking[-2]
        return net.layer_path(name)

    def layer_path(self, name: str) -> str:
        """A layer in config syntax: network["output"]["unit"]["att"]."""
        return f'{self.path}["{name}"]'

    def subnet(self, descriptions: Mapping[str, Any], *, path: str, prefix: str, trainable: bool) -> Net:
        """A net inside this one, whose layers run in the same order as those of this net."""
        made = Net(
            descriptions, self.shared, path=path, prefix=prefix, parent=self, trainable=self.trainable and trainable
        )
        made.immediate = self.immediate
        return made

    # --- linking ------------------------------------------------------------------------------------------------------

    def link(self, name: str, description: Any) -> Node:
        """Makes the layer of a dict entry and the nodes it reads."""
        path = self.layer_path(name)
        if not isinstance(description, Mapping):
            raise ConfigError(path, f"a layer must be a dict, but is {description!r} instead")
        if "class" not in description:
            raise ConfigError(path, 'the entry "class" is missing')
        description = self._effective(dict(description))
        cls = layer_class(description["class"], path)
        description = cls.prepare({**description, "#name": name}, self)
        description.pop("#name", None)
        cls = layer_class(description["class"], path)
        options, own = split_options(cls, description, path)
        check_axis_texts(cls, own, self.shared.context.behavior, path)
        self.check_target_size(options, own, cls, path)
        try:
            layer = cls(**own)
        except ConfigError as exc:
            raise exc if exc.path.startswith("network") else ConfigError(path, str(exc)) from exc
        except Exception as exc:  # a value that no check has refused
            raise ConfigError(path, f"wrong option value: {type(exc).__name__}: {exc}") from exc
        layer.options = options
        self._place(layer, name, path)
        node = Node(name, layer, description=description)
        self._link_params(node)
        node.sources = [self.get(n) for n in self._from(cls, options, path)]
        for option in layer_valued(cls):
            self._refer(node, option, getattr(layer, option, None))
        if hasattr(layer, "link"):
            try:
                layer.link(self, node)
            except ConfigError as exc:
                raise exc if exc.path.startswith("network") else ConfigError(path, str(exc)) from exc
        return self._finish(node)

    def _effective(self, description: dict[str, Any]) -> dict[str, Any]:
        """The dict without a loss that counts only outside of search."""
        if description.get("loss_only_on_non_search") and self.shared.context.search:
            for key in ("loss", "loss_scale", "loss_opts"):
                description.pop(key, None)
        return description

    def internal(
        self, name: str, layer: Layer, sources: Iterable[Node] = (), refs: Mapping[str, Node] | None = None
    ) -> Node:
        """A node that stands in no dict."""
        self._place(layer, name, self.layer_path(name))
        return self._finish(Node(name, layer, list(sources), dict(refs or {})))

    def _place(self, layer: Layer, name: str, path: str) -> None:
        shared = self.shared
        layer.name, layer.path, layer.context, layer.made_in = name, path, shared.context, self
        options = layer.options
        layer.scope = ParamScope(
            shared.store, names.join(self.prefix, options.name_scope, name), path,
            trainable=self.trainable and bool(options.trainable), updater_opts=options.updater_opts,
        )  # fmt: skip
        layer.scope.reuse = reuse_function(options.reuse_params, self, path, layer)
        shared.scopes[path] = layer.scope
        shared.modules.append(layer)

    def _link_params(self, node: Node) -> None:
        """The nodes whose outputs are parameters; in a loop, also the layers whose parameters are shared are linked."""
        reuse = node.layer.scope.reuse if node.layer.scope is not None else None
        if isinstance(reuse, Reuse):
            node.param_nodes = dict(reuse.outputs)
            for owner, name in (resolve(self, n) for n in reuse.layers) if not self.immediate else ():
                if not owner.immediate and name not in owner.nodes and (owner, name) not in self.shared.asking:
                    owner.previous(name)
        if node.layer.options.size_target and self.shared.context.losses and self.immediate:
            self.data(node.layer.options.size_target)

    def _finish(self, node: Node) -> Node:
        """The node's axes and parameters.

        It can be found before it has parameters: a layer that it shares some with may read it; if that one is under
        construction itself, this one gets its parameters later.
        """
        if self.immediate:
            node.infer()
            if node.description:
                self.nodes[node.name] = node
        self.order.append(node)
        if self.immediate:
            reuse = node.layer.scope.reuse if node.layer.scope is not None else None
            if isinstance(reuse, Reuse) and reuse.waits():
                self.shared.postponed.append((self, node))
            else:
                self._complete(node)
        return node

    def _complete(self, node: Node) -> None:
        node.build()
        self.tell(node)

    def tell(self, node: Node) -> None:
        """One log line per layer with its axes."""
        if node.description:
            self.shared.context.log.v3(f"layer {self.path}/{node.name!r}: {node.spec}")

    def _from(self, cls: type[Layer], options: Any, path: str) -> list[str]:
        """The names in `from`."""
        value = options.from_
        if value is None:
            if cls.default_from and cls.sources != "none" and self.shared.context.behavior >= 1:
                raise ConfigError(path, "`from` is missing (required since behavior_version >= 1)")
            value = () if cls.sources == "none" else cls.default_from
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, (list, tuple)):
            raise ConfigError(path, f"`from` must be a layer name or a list of them, but is {value!r} instead")
        found = [v for v in value if v != "none"]
        if cls.sources == "none" and found:
            raise ConfigError(
                path, f"`from` must be empty for layer class {cls.class_name!r}, but is {value!r} instead"
            )
        if cls.sources == "one" and not found and cls.needs_source:
            raise ConfigError(path, f"layer class {cls.class_name!r} needs a source, but `from` is empty")
        return found

    def _refer(self, node: Node, option: str, value: Any) -> None:
        """The node(s) of a layer-valued option; numbers and other values are left to the layer."""
        if isinstance(value, str):
            node.refs[option] = self.get(value)

    # --- targets ------------------------------------------------------------------------------------------------------

    def target_name(self, target: Any) -> str:
        """The first of the targets, or the default one."""
        if isinstance(target, (list, tuple)):
            target = target[0] if target else None
        return str(target) if target else self.shared.extern.default_target

    def target_node(self, target: Any) -> Node:
        """The node of a target: "layer:x", a layer of that name, or a data key."""
        name = self.target_name(target)
        if name.startswith("layer:"):
            return self.get(name[len("layer:") :])
        if name in self.descriptions:
            return self.get(name)
        return self.get(f"data:{name}")

    def target_dim(self, target: Any, path: str) -> int | None:
        """Number of classes (or features) of a target of the layer at `path`."""
        name = self.target_name(target)
        if name.startswith("layer:") or name in self.descriptions:
            spec = self.target_node(target).spec
            return spec.dim if spec is not None else None
        return self.shared.extern.spec(name, path).dim

    def check_target_size(self, options: Any, own: dict[str, Any], cls: type[Layer], path: str) -> None:
        """Fills in `n_out` from `out_dim` or the target where the class takes it and the dict lacks it."""
        if "n_out" not in own_options(cls) or own.get("n_out") is not None:
            return
        size = getattr(options.out_dim, "size", None)
        if size is None and (options.target is not None or options.loss is not None):
            size = self.target_dim(options.target, path)
            if size is not None and options.loss == "ctc":
                size += 1
        if size is not None:
            own["n_out"] = options.n_out = size


def collect(start: Iterable[str], net: Net) -> None:
    """Builds all these nodes; errors of all of them are raised together."""
    errors: dict[str, ConfigError] = {}
    for name in start:
        try:
            net.get(name)
        except ConfigErrors as exc:
            errors |= {str(e): e for e in exc.errors}
        except ConfigError as exc:
            errors[str(exc)] = exc
    if len(errors) == 1:
        raise next(iter(errors.values()))
    if errors:
        raise ConfigErrors(list(errors.values()))
