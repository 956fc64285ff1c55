"""From a description, the dict of layers, to a program: what outputs and losses need, constructed on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from returnn_lite.config_value import ConfigDict
from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.context import Context
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.params import ParamStore
from returnn_lite.network.compiling.options import OPTION as COMPILE
from returnn_lite.network.compiling.options import compile_options
from returnn_lite.network.constraints import Term, output_constraints
from returnn_lite.network.construct import Net
from returnn_lite.network.extern import ExternData
from returnn_lite.network.fusion.fuse import Fusion, fuse, is_seen
from returnn_lite.network.inner import InnerLayers
from returnn_lite.network.objective import LossNode, constraints, loss_node
from returnn_lite.network.overlay import OverlayNet, counts_once
from returnn_lite.network.program import Program
from returnn_lite.network.recomputation import OPTION as RECOMPUTED
from returnn_lite.network.recomputation import Segment, groups_of, segments
from returnn_lite.network.shared import Shared
from returnn_lite.network.sources import DataSource
from returnn_lite.network.walk import collect, named_nodes, nets_of, start_points
from returnn_lite.network.worklist import run

if TYPE_CHECKING:
    from returnn_lite.network.compiling.segment import CompiledParts

SECOND_ORDER = "maximize_grad_norm"  # gradients of gradients, which compiled functions do not have


def build_program(
    description: ConfigDict,
    context: Context,
    store: ParamStore,
    extern_data: ExternData,
    *,
    extra_layers: tuple[str, ...] = (),
) -> Program:
    """The program of the layers that outputs and losses (and `extra_layers`) need; their parameters go to `store`.

    Raises ConfigError(s) for everything that is wrong with the description.
    """
    return Builder(description, context, store, extern_data).program(extra_layers)


class Builder:
    """Constructs the net of a description."""

    def __init__(self, description: ConfigDict, context: Context, store: ParamStore, extern_data: ExternData) -> None:
        self.context = context
        self.extern_data = extern_data
        self.shared: Shared[Net] = Shared(context, store, extern_data, OverlayNet)
        self.net = Net(description, self.shared, path="network")

    def program(self, extra_layers: tuple[str, ...]) -> Program:
        """What was described, as it is run."""
        self._construct(extra_layers)
        self._leave_out_unavailable(extra_layers)
        modules = self.shared.modules
        losses = tuple(self._losses()) if self.context.losses else ()
        scopes = [(m.scope, m.options) for m in counts_once(modules) if m.scope is not None]
        squares, terms = tuple(constraints(scopes)), tuple(output_constraints(self._whole_nodes()))
        for layer in modules:
            layer.freeze()
        made = Program(
            tuple(self.net.order), self.net.nodes, self._owners(), tuple(modules),
            frozenset(n.layer.key for n in self.net.order if isinstance(n.layer, DataSource)), losses, squares, terms,
            self._fusion(losses, terms),
        )  # fmt: skip
        made = replace(made, recomputed=self._recomputed(made))
        return replace(made, compiled=self._compiled(made))

    def _leave_out_unavailable(self, wanted: tuple[str, ...]) -> None:
        """Without losses, where it is known what is wanted: drops all else that needs data that are no input."""
        if self.context.losses or not wanted:
            return
        needed = dict.fromkeys(node for name in wanted if (node := self.net.nodes.get(name)) is not None)
        needed |= dict.fromkeys(node for node in self.net.order if node.layer.writes)
        for node in reversed(self.net.order):
            needed |= dict.fromkeys(node.inputs if node in needed else ())
        lacking = set[Node]()
        for node in self.net.order:
            key = node.layer.key if isinstance(node.layer, DataSource) else None
            if not lacking.isdisjoint(node.inputs) or (key is not None and not self.extern_data.is_available(key)):
                lacking.add(node)
        dropped = [node for node in self.net.order if node in lacking and node not in needed]
        if dropped:
            names = ", ".join(node.name for node in dropped)
            self.context.log.v3(f"not computed, for lack of data with `available_for_inference`: {names}")
            self.net.order[:] = [node for node in self.net.order if node not in set(dropped)]

    def _compiled(self, program: Program) -> CompiledParts | None:
        """What `torch_compile` makes of the steps."""
        config, log = self.context.config, self.context.log
        options = compile_options(config)
        if options is None:
            return None
        for name, value in ((RECOMPUTED, program.recomputed), (SECOND_ORDER, config.float(SECOND_ORDER, 0.0))):
            if value:
                log.v3(f"{COMPILE}: layers outside of loops are not compiled, because of `{name}`")
                return None
        from returnn_lite.network.compiling.segment import CompiledParts  # the compiler takes a second to load

        seen = {node for node in program.nodes if is_seen(node)}
        return CompiledParts(program.steps, seen.union(program.evaluated), options, log)

    def _recomputed(self, program: Program) -> tuple[Segment, ...]:
        """Which parts the backward pass computes again; what others read is kept."""
        groups = groups_of(program.nodes, program.layers, self.context.config.typed_value(RECOMPUTED, None))
        if not groups:
            return ()
        seen = {node for node in program.nodes if is_seen(node)}
        joint = set(program.fusion.before.values())
        return tuple(segments(program.steps, groups, seen.union(program.evaluated), joint))

    def _fusion(self, losses: Iterable[LossNode], terms: Iterable[tuple[Node, Term]]) -> Fusion:
        """Which nodes one call computes; what losses read stays as it is."""
        kept = {node for node, _ in terms}
        for loss in losses:
            kept |= {loss.node, *loss.layer_nodes.values()}
            kept |= {node for node in (loss.target, loss.inverse_norm_node) if node is not None}
        found = fuse(self.net.order, kept, self.context.config)
        for line in found.lines:
            self.context.log.v4(f"fused: {line}")
        return found

    def _owners(self) -> dict[str, Node]:
        """The node of each parameter."""
        found: dict[str, Node] = {}
        for net in nets_of(self.net):
            for node in net.nodes.values():
                scope = node.layer.scope
                if scope is not None:
                    found |= {n: node for n in map(scope.full_name, scope.owned) if n not in found}
        return found

    def _construct(self, extra_layers: tuple[str, ...]) -> None:
        entries = {n: d for n, d in self.net.descriptions.items() if not n.startswith("#")}
        registered = sorted(
            n for n, d in entries.items() if isinstance(d, Mapping) and d.get("register_as_extern_data")
        )
        for name in registered:
            node = self.net.get(name)
            key = node.layer.options.register_as_extern_data
            if node.spec is not None and key:
                self.extern_data.register(key, node.spec)
                self.net.nodes[f"data:{key}"] = node
        run(collect([*start_points(entries, self.context), *extra_layers], self.net))
        self._complete()

    def _complete(self) -> None:
        """Builds what touched sub-networks have to build of their own: output, losses, output layers."""
        seen, found = {self.net}, True
        while found:  # what one has may touch others
            found, waiting = False, [self.net]
            while waiting:
                net = waiting.pop()
                if net not in seen:
                    found = True
                    seen.add(net)
                    run(collect(start_points(net.descriptions, self.context), net))
                overlays = net.overlays.values()
                seen.update(overlays)  # of these only what is asked for
                waiting += reversed([*(n for n in net.subnets.values() if not n.is_loop), *overlays])

    def _whole_nodes(self) -> Iterator[tuple[Node, Callable[[], Node]]]:
        """All layers of the dicts, each with what gives the node of its whole output."""
        for net, _, name, node in named_nodes(self.net):
            if node.description and node.name == name:
                yield node, lambda node=node: node  # type: ignore[misc]
            if isinstance(node.layer, InnerLayers):
                for label, inner in node.layer.inner_nodes().items():
                    yield inner, partial(net.get, f"{name}/{label}")

    def _losses(self) -> Iterator[LossNode]:
        """The losses of all nets, by the names under which they are reported."""
        taken: set[str] = set()
        for loss in self._losses_of(self.net):
            taken.add(loss.name)
            yield loss
        for name, overlay in self.net.overlays.items():
            for loss in self._losses_of(overlay):
                loss.name = f"{name}:{loss.name}" if loss.name in taken else loss.name
                taken.add(loss.name)
                yield loss

    def _losses_of(self, root: Net) -> Iterator[LossNode]:
        for net, prefix, name, node in named_nodes(root):
            if node.layer.options.loss and node.name == name and node.description.get("loss"):
                yield self._loss(net, prefix + name, node, node)
            for inner_name, inner_net, inner in _inner_losses(node.layer):
                seen = net.get(f"{name}/{inner_name}")
                yield self._loss(inner_net, f"{prefix}{name}/{inner_name}", inner, seen)

    def _loss(self, net: Net, name: str, node: Node, seen: Node) -> LossNode:
        """The loss of `node`, whose output the root net sees at `seen`."""
        options = node.layer.options
        made = loss_node(name, node, None, None)
        made.node = seen
        if made.loss.needs_target or options.target is not None:
            made.target = run(net.target_outside(options.target))
        named = {o: (options.loss_opts or {}).get(o) for o in ("custom_inv_norm_factor", *made.loss.layer_options)}
        try:
            nodes = {o: run(net.outside(name)) for o, name in named.items() if isinstance(name, str)}
        except ConfigError as exc:
            at = node.layer.path
            raise exc if exc.path.startswith(at) else ConfigError(f'{at}["loss_opts"]', exc.message) from exc
        made.inverse_norm_node = nodes.pop("custom_inv_norm_factor", None)
        made.layer_nodes = nodes
        return made


def _inner_losses(layer: Layer) -> Iterator[tuple[str, Net, Node]]:
    """(label, net, node) of the layers with a loss inside of a layer."""
    return layer.loss_nodes() if isinstance(layer, InnerLayers) else iter(())
