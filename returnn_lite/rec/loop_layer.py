"""`rec` with a dict as unit: a loop over a sub-network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from returnn_lite.layers.base import Layer, LayerRef
from returnn_lite.layers.registry import layer
from returnn_lite.network.construct import Net, collect
from returnn_lite.network.graph import Node
from returnn_lite.network.network import start_points
from returnn_lite.rec.initial import build_initial, link_initial
from returnn_lite.rec.loop import LoopRun
from returnn_lite.rec.loop_net import InnerSource, LoopNet, infer, new_axis
from returnn_lite.rec.plan import Item, Plan, make_plan
from returnn_lite.rec.unstack import RecUnstack
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.tensor.axes import axis as find_axis

if TYPE_CHECKING:
    from returnn_lite.layers.registry import C  # noqa: F401

_MAX_LEN_FROM = re.compile(r"max_len_from\(\s*['\"]([^'\"]+)['\"]\s*\)")


@layer("rec.loop")
class RecLoop(Layer):
    """The dict `unit` evaluated once per frame of the loop axis; its output is the inner layer "output".

    Shape: (B, T, F) -> (T, B, …). The axis is that of the source, of `size_target`, or of the target; else it is as long as
    `end` is False, at most `max_seq_len`. What does not depend on the previous tick runs once over the whole axis (see
    `plan`; `optimize_move_layers_out` False keeps all inside). `include_eos`: the tick of the end counts.
    """

    class_name = "rec"
    recurrent = True
    checks_n_out = False
    needs_source = False

    def __init__(
        self,
        *,
        unit: dict[str, Any],
        max_seq_len: Any = None,
        max_seq_len_via: LayerRef | None = None,
        axis: Any = None,
        include_eos: bool = False,
        optimize_move_layers_out: bool | None = None,
        back_prop: bool | None = None,
        debug: bool | None = None,
        use_global_rec_step_offset: bool = False,
        cheating: bool = False,
        direction: int | None = None,
        initial_state: Any = None,
    ) -> None:
        super().__init__()
        if initial_state:
            raise self.error("`initial_state` is only for named units; inside a loop give it to the inner layers")
        if direction not in (None, 1):
            raise self.error(f"`direction` must be 1 for a loop over a sub-network, but is {direction} instead")
        self.unit = unit
        self.max_seq_len = max_seq_len
        self.max_seq_len_via = max_seq_len_via
        self.axis = axis
        self.include_eos = include_eos
        self.optimize = optimize_move_layers_out
        self.back_prop = back_prop
        self.has_source = False
        self.outer_specs: dict[str, Spec | None] = {}
        self.loop_dim: Dim | None = None
        self.length_key: str | None = None
        self.plan = Plan()

    # --- construction -------------------------------------------------------------------------------------------------

    def link(self, net: Net, node: Node) -> None:
        """Links all layers of the unit that output, losses and output layers need."""
        self.has_source = bool(node.sources)
        inner = self.__dict__["net"] = LoopNet(self, net, self.unit)
        net.subnets[self.name] = inner
        if "output" not in self.unit:
            raise self.error('the unit needs a layer "output"')
        roots = start_points(self.unit, self.context)
        roots += [n for n, d in self.unit.items() if isinstance(d, Mapping) and d.get("need_last") and n not in roots]
        if self._may_end() and "end" in self.unit:
            roots.append("end")
        collect(["output", *(n for n in roots if n != "output")], inner)
        inner.link_previous()
        for inner_node in list(inner.order):
            link_initial(inner_node, inner)
        inner.link_previous()
        self._capture_axis(net)
        node.refs.update(inner.captured)

    def _may_end(self) -> bool:
        """Whether the length may depend on the layer "end"."""
        by_target = self.options.target and self.context.losses and not self.context.search
        return not (self.axis is not None or self.options.size_target or by_target)

    def _capture_axis(self, net: Net) -> None:
        """Notes the layers and data that the loop's length depends on."""
        inner: LoopNet = self.__dict__["net"]
        if self.options.size_target:
            self.length_key = inner.capture(f"data:{self.options.size_target}", net.data(self.options.size_target))
        elif self.options.target and self.context.losses and not self.context.search and not self.has_own_axis():
            target = net.target_name(self.options.target)
            self.length_key = inner.capture(f"data:{target}", net.target_outside(self.options.target))
        if isinstance(self.max_seq_len, str):
            for name in _MAX_LEN_FROM.findall(self.max_seq_len):
                inner.capture(f"max_len_from:{name}", self._length_node(net, name))

    def has_own_axis(self) -> bool:
        """Whether the source gives the axis: it has none that ends by itself."""
        return self.axis is not None or (self.has_source and "end" not in self.unit)

    def _length_node(self, net: Net, name: str) -> Node:
        """`max_len_from`: the layer in the net of the rec layer, or in its parent."""
        if name.startswith("base:"):
            plain = name[len("base:") :]
            return net.get(plain) if plain in net.descriptions or net.parent is None else net.base(plain)
        return net.get(name)

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The inner output with the loop axis in front, which is the time axis."""
        self.outer_specs = {**refs}
        if sources:
            self.outer_specs["source"] = sources[0]
        if any(s is None for s in self.outer_specs.values()):
            return None
        inner: LoopNet = self.__dict__["net"]
        self.loop_dim = self._find_dim()
        infer(inner.order)
        return self._outside(inner.nodes["output"])

    def _outside(self, node: Node) -> Spec | None:
        """The Spec of an inner layer with the loop axis in front."""
        if node.spec is None or self.loop_dim is None:
            return None
        spec = node.spec.with_loop(self.loop_dim)
        return spec.leave_loop(self.loop_dim).roles(time=0)

    def _find_dim(self) -> Dim:
        """The axis of the loop: of the source, of a data key that gives its length, else a new one."""
        source = self.outer_specs.get("source")
        if source is not None and self.has_own_axis() and (self.axis is not None or source.time is not None):
            self.length_key = "source"
            return source.dims[find_axis(source, "T" if self.axis is None else self.axis)]
        inner: LoopNet = self.__dict__["net"]
        frames = sorted(
            n.layer.key for n in inner.order if isinstance(n.layer, InnerSource) and n.layer.kind == "frame" and n.layer.key != "source"
        )
        key = self.length_key if self.length_key not in (None, "source") else next(iter(frames), None)
        if key is not None:
            spec = self.outer_specs[key]
            if spec is None or spec.time_dim is None:
                raise self.error(f"{key!r} gives the length of the loop, but has no time axis: {spec}")
            self.length_key = key
            return spec.time_dim
        declared = self._declared_dim(inner)
        if declared is not None:
            return declared
        if "end" not in inner.nodes:
            raise self.error('the length of the loop is not known: it needs an "end" layer, a source with time axis, or a target')
        if self.max_seq_len is None and self.max_seq_len_via is None:
            raise self.error("`max_seq_len` must be given for a loop that ends by its layer `end`")
        self.length_key = None
        self.__dict__.setdefault("own_dim", new_axis(self.name))
        return self.__dict__["own_dim"]  # type: ignore[no-any-return]

    def _declared_dim(self, inner: LoopNet) -> Dim | None:
        """The axis that a `rec_unstack` layer with `declare_rec_time` gives."""
        for node in inner.order:
            source = node.sources[0].layer if node.sources else None
            if isinstance(node.layer, RecUnstack) and node.layer.declares and isinstance(source, InnerSource):
                spec = self.outer_specs[source.key]
                if spec is not None:
                    self.length_key = source.key
                    return spec.dims[node.layer.declared_axis(spec)]
        return None

    def frame_dim(self, key: str, outer: Spec) -> Dim:
        """The axis of an outer tensor over whose frames the loop runs."""
        if key == "source" and self.length_key == "source" and self.loop_dim is not None:
            return self.loop_dim
        if outer.time_dim is None:
            raise self.error(f"{key!r} is read frame by frame, but has no time axis: {outer}")
        return outer.time_dim

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """The parameters of all inner layers, and the plan."""
        inner: LoopNet = self.__dict__["net"]
        for node in inner.order:
            if not node.built:
                node.build()
                build_initial(node, inner)
                inner.tell(node)
        self.plan = self._plan(inner)
        if self.context.log.verbosity >= 4:
            self.context.log.v4(f"Rec layer {self.name!r} (search {self.context.search}):\n{self.plan.text()}")

    # --- the plan -----------------------------------------------------------------------------------------------------

    def _plan(self, inner: LoopNet) -> Plan:
        labels = self.labels()
        needed = self._needed(inner)
        items = [self._item(n, labels) for n in inner.order if n in needed and n in labels]
        optimize = self.optimize
        if optimize is None:
            optimize = bool(self.context.config.bool("optimize_move_layers_out", True))
        return make_plan(items, optimize=optimize)

    def labels(self) -> dict[Node, str]:
        """A name for every inner layer that computes something; "sub/inner" for those of sub-networks."""
        inner: LoopNet = self.__dict__["net"]
        prefix = f"{inner.path}["
        labels: dict[Node, str] = {}
        for node in inner.order:
            if node.previous is None and not isinstance(node.layer, InnerSource):
                inside = node.layer.path.removeprefix(prefix)
                labels[node] = "/".join(re.findall(r'"([^"]+)"', inside)[:1] + re.findall(r'\["subnetwork"\]\["([^"]+)"', inside))
        return labels

    def _needed(self, inner: LoopNet) -> set[Node]:
        """The layers that are reached from output, losses and output layers; `end` only where the length depends on it."""
        roots = [n for name, n in inner.nodes.items() if name in self.unit and self._is_root(name)]
        found: set[Node] = set()
        while roots:
            node = roots.pop()
            if node not in found:
                found.add(node)
                roots += node.inputs
                roots += [node.previous] if node.previous is not None else []
        return found

    def _is_root(self, name: str) -> bool:
        if name == "end":
            return self.length_key is None
        options = self.unit[name]
        return name == "output" or bool(options.get("loss") or options.get("is_output_layer") or options.get("need_last"))

    def _item(self, node: Node, labels: Mapping[Node, str]) -> Item:
        current = {labels[n] for n in node.inputs if n in labels}
        previous = {labels[n.previous] for n in node.inputs if n.previous is not None and n.previous in labels}
        if node.layer.hidden_state:
            previous -= {labels[node]} if not self._reads_itself(node) else set()
        return Item(labels[node], frozenset(current), frozenset(previous), self._stays(node), self._not_before(node))

    def _not_before(self, node: Node) -> str:
        layer: Any = node.layer
        if self.length_key is None and layer.hidden_state and layer.carries_state(tuple(n.spec for n in node.sources)):
            return "runs as many ticks as the loop, which is known only at its end"
        return ""

    def _reads_itself(self, node: Node) -> bool:
        return any(n.previous is node for n in node.inputs)

    def _stays(self, node: Node) -> str:
        if node.name == "end":
            return "the end of the loop" if self.length_key is None else ""
        if any(n.layer is not node.layer and isinstance(n.layer, InnerSource) and n.layer.kind == "counter" for n in node.inputs):
            return "reads the tick :i"
        layer: Any = node.layer
        if layer.hidden_state and layer.needs_state and layer.carries_state(tuple(n.spec for n in node.sources)):
            return "its state is read tick by tick"
        return str(getattr(node.layer, "stays_in_loop", ""))

    # --- what the net outside asks for --------------------------------------------------------------------------------

    def loss_nodes(self) -> Iterator[tuple[str, Net, Node]]:
        """(name, net, node) of the inner layers with a loss. In search inner losses have no counterpart in the target."""
        inner: LoopNet = self.__dict__["net"]
        if self.context.search:
            return
        for node, label in self.labels().items():
            if node.layer.options.loss and node.description.get("loss"):
                yield label, inner, node

    def node_of(self, part: str) -> Node | None:
        """The inner layer that the parent calls "<rec>/<part>"."""
        found = next((n for n, label in self.labels().items() if label == part), None)
        return found

    def part_spec(self, part: str) -> Spec | None:
        """The Spec of an inner layer, seen from outside. Raises ConfigError for one that exists only tick by tick."""
        last = part.startswith("last:")
        node = self.node_of(part.removeprefix("last:"))
        if last and node is not None and not node.layer.options.need_last:
            raise node.layer.error('to read its last frame from outside, set "need_last": True on it')
        if last and node is not None:
            return node.spec
        if node is None:
            raise self.error(f"no layer {part!r} is needed in this loop; needed are: {', '.join(self.labels().values())}")
        if part in self.plan.inside and part not in self.accumulated():
            raise self.error(f'layer {part!r} runs inside the loop; to read it from outside, set "is_output_layer": True on it')
        return self._outside(node)

    def last_beam_size(self) -> int | None:
        """The beam size of the output in search: that of the last choice that searches; None without one."""
        inner: LoopNet = self.__dict__["net"]
        sizes = [getattr(n.layer, "beam_size", None) for n in inner.order if getattr(n.layer, "searches", False)]
        return sizes[-1] if sizes else None

    def accumulated(self) -> set[str]:
        """The inner layers whose frames the parent may read."""
        labels = self.labels()
        found = {"output", *(label for label, _, _ in self.loss_nodes())}
        wanted = (label for node, label in labels.items() if node.layer.options.is_output_layer or node.layer.options.need_last)
        return found | set(wanted)

    # --- running ------------------------------------------------------------------------------------------------------

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """Runs the loop; the inner layers the parent may read come along as parts."""
        outer = {**refs, **({"source": sources[0]} if sources else {})}
        if self.back_prop is False:
            with torch.no_grad():
                return LoopRun(self, outer).result()
        return LoopRun(self, outer).result()

    def max_length(self, outer: Mapping[str, Tensor]) -> int:
        """The bound of a loop that ends by itself."""
        if self.max_seq_len_via is not None:
            return int(outer["max_seq_len_via"].data.max())
        if isinstance(self.max_seq_len, str):
            return int(eval(self.max_seq_len, {**self.context.eval_names, "max_len_from": lambda n: _longest(outer, n)}))  # noqa: S307
        if isinstance(self.max_seq_len, int):
            return self.max_seq_len
        raise self.error(f"`max_seq_len` must be an int or an expression, but is {self.max_seq_len!r} instead")


def _longest(outer: Mapping[str, Tensor], name: str) -> int:
    """The largest length of the time axis of a layer."""
    key = f"max_len_from:{name}"
    x = outer.get(key)
    if x is None:
        x = next(t for k, t in outer.items() if k.removeprefix("max_len_from:").removeprefix("base:") == name.removeprefix("base:"))
    dim = x.spec.time_dim
    if dim is None:
        raise ValueError(f"max_len_from: {name!r} has no time axis")
    return int(x.length(dim).values.max())
