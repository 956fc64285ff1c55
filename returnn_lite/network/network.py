"""`Network`: a dict of layers as one torch module – construct, run a batch, losses and objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.core.base import Context, Layer
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.params import ParamOptions, ParamOwner, ParamStore
from returnn_lite.log import Log
from returnn_lite.network.building import compute
from returnn_lite.network.constraints import output_constraints
from returnn_lite.network.construct import Net, Shared, collect, nets_of
from returnn_lite.network.extern import ExternData
from returnn_lite.network.extra import OverlayNet, counts_once
from returnn_lite.network.objective import LossNode, LossValue, constraints, loss_node
from returnn_lite.network.placed import PlacedParams
from returnn_lite.network.sources import DataSource
from returnn_lite.network.worklist import run
from returnn_lite.tensor import Spec, Tensor

EvalNames = Callable[[Context], Mapping[str, Any]]


@dataclass
class NetworkOutput:
    """What a batch gives: losses by name, the objective to minimise, and the layers' outputs by name.

    `gradients`: those of the objective by parameter, where whoever ran the network has computed them along with it.
    """

    values: dict[Node, Tensor]
    nodes: Mapping[str, Node]
    losses: dict[str, LossValue] = field(default_factory=dict)
    objective: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    gradients: dict[str, torch.Tensor] | None = None

    def __getitem__(self, name: str) -> Tensor:
        """The output of a layer ("output", "rec/sub"). Raises KeyError for a layer that was not built."""
        return self.values[self.nodes[name]]

    def asked(self, name: str) -> dict[str, Tensor]:
        """The outputs for somebody who asked for this layer: its own."""
        return {name: self[name]}

    def forget_layers(self) -> None:
        """Drops the outputs of the layers: what gradients do not need of them is free memory for the backward pass."""
        self.values = {}


class Network(torch.nn.Module):
    """The layers of `net_dict` that outputs and losses need, constructed on demand.

    `search`: `choice` layers search; `eval`: losses are evaluated; `train()` / `eval()` set the train flag. `params`
    holds all parameters by the reference's names, `used_data_keys` are the keys that a batch must hold. `eval_names`:
    makes the names that eval strings may use (the look-alike `tf` …), default: those of the config. `extra_layers`
    are built as well. Raises ConfigError(s) for everything that is wrong with the dict.
    """

    lengths_on_host = False

    def __init__(
        self,
        config: Config,
        net_dict: Mapping[str, Any],
        *,
        search: bool = False,
        eval: bool = True,  # noqa: A002 - the field's word
        log: Log | None = None,
        eval_names: EvalNames | None = None,
        seed: int = 1,
        extra_layers: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.context = Context(
            config, log or Log.silent(), behavior=config.int("behavior_version", 0) or 0, search=search, losses=eval,
            network=self, beams=search,
        )  # fmt: skip
        names = eval_names or config.eval_names
        self.context.eval_names = names(self.context) if names is not None else {}
        self.extern_data = ExternData(config)
        store = ParamStore(torch.Generator().manual_seed(seed))
        self.shared = Shared(self.context, store, self.extern_data, OverlayNet)
        self.net = Net(net_dict, self.shared, path="network")
        self._construct(extra_layers)
        self.loss_nodes = list(self._losses()) if eval else []
        self.constraints = constraints(
            (m.scope, m.options) for m in counts_once(self.shared.modules) if m.scope is not None
        )
        self.output_constraints = output_constraints(self._whole_nodes())
        self.used_data_keys = {m.key for m in self.shared.modules if isinstance(m, DataSource)}
        self.loaded_on_init: frozenset[str] = frozenset()  # parameters that `load_on_init` of a layer has set
        self.infinite_constants: frozenset[str] = frozenset()  # of buffers, such as a mask
        self.layer_modules = torch.nn.ModuleList(self.shared.modules)
        self.placed_params = PlacedParams(self.shared.modules, config)
        self.seed(seed)

    # --- construction -------------------------------------------------------------------------------------------------

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
        waiting, seen = [self.net], {self.net}
        while waiting:
            net = waiting.pop()
            if net not in seen:
                run(collect(start_points(net.descriptions, self.context), net))
            seen.add(net)
            found = [*(n for n in net.subnets.values() if not n.is_loop), *net.overlays.values()]
            seen.update(net.overlays.values())  # of these only what is asked for
            waiting += reversed(found)

    def _whole_nodes(self) -> Iterator[tuple[Node, Callable[[], Node]]]:
        """All layers of the dicts, each with what gives the node of its whole output."""
        for net, _, name, node in named_nodes(self.net):
            if node.description and node.name == name:
                yield node, lambda node=node: node  # type: ignore[misc]
            for label, inner in getattr(node.layer, "inner_nodes", dict)().items():
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
            for inner_name, inner_net, inner in getattr(node.layer, "loss_nodes", lambda: [])():
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

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def params(self) -> dict[str, torch.nn.Parameter]:
        """All parameters by their names, in construction order."""
        return self.shared.store.params

    @property
    def param_options(self) -> dict[str, ParamOptions]:
        """What the optimizer needs to know per parameter."""
        return self.shared.store.options

    def param_owners(self) -> dict[str, ParamOwner]:
        """The layer of each parameter."""
        found: dict[str, ParamOwner] = {}
        for node in (node for net in nets_of(self.net) for node in net.nodes.values()):
            scope = node.layer.scope
            sparse = any(source.spec is not None and source.spec.sparse for source in node.sources)
            for local in scope.owned if scope is not None else ():
                owner = ParamOwner(scope.prefix, node.layer.class_name, sparse, node.layer)
                found.setdefault(scope.full_name(local), owner)
        return found

    @property
    def layers(self) -> dict[str, Layer]:
        """The built layers of the root net by name."""
        return {n: node.layer for n, node in self.net.nodes.items()}

    def spec(self, name: str) -> Spec:
        """The axes of a layer's output. Raises ConfigError for a layer that was not built."""
        node = self.net.nodes.get(name)
        if node is None or node.spec is None:
            raise ConfigError("network", f"layer {name!r} was not built{did_you_mean(name, list(self.net.nodes))}")
        return node.spec

    @property
    def recurrent(self) -> bool:
        """Whether frames depend on each other, so that batches must keep sequences apart."""
        return any(m.is_recurrent() for m in self.shared.modules) or any(n.loss.recurrent for n in self.loss_nodes)

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next((p.device for p in self.params.values()), torch.device("cpu"))

    @property
    def global_step(self) -> int:
        """Number of training steps so far; layers and eval strings may ask for it."""
        return self.context.global_step

    @global_step.setter
    def global_step(self, step: int) -> None:
        self.context.global_step = step
        if self.context.epoch_start is None:
            self.context.epoch_start = step

    @property
    def epoch(self) -> int:
        """The epoch that is running; layers may ask for it."""
        return self.context.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.context.epoch, self.context.epoch_start = epoch, None

    def seed(self, seed: int) -> None:
        """Seeds dropout and all other random numbers of the layers."""
        self.context.generator = torch.Generator(self.device).manual_seed(seed)

    @property
    def random_state(self) -> torch.Tensor:
        """Where the random numbers of the layers are; set it to repeat them."""
        return self.context.generator.get_state()

    @random_state.setter
    def random_state(self, state: torch.Tensor) -> None:
        self.context.generator.set_state(state)

    def summary(self) -> list[str]:
        """Data keys and layers, a line each."""
        specs = self.extern_data.specs
        return [
            "Network layer topology:",
            f"  extern data: {', '.join(f'{key}: {specs[key]}' for key in sorted(specs))}",
            f"  used data keys: {sorted(self.used_data_keys)}",
            "  layers:",
            *(
                f"    layer {layer.class_name} {name!r} #: {self.spec(name).dim}"
                for name, layer in sorted(self.layers.items())
                if name != "data" and not name.startswith("data:")
            ),
        ]

    # --- running ------------------------------------------------------------------------------------------------------

    def forward(
        self, data: Mapping[str, Any], lengths: Mapping[str, torch.Tensor], tags: list[str] | None = None
    ) -> NetworkOutput:
        """Runs all layers on a batch: batch-first arrays by key, and int lengths [B] of the keys with a time axis."""
        feed = {k: self.extern_data.feed(k, v, lengths) for k, v in data.items() if k in self.used_data_keys}
        batch = next((len(v) for v in (*lengths.values(), *data.values(), tags) if v is not None), None)
        values: dict[Node, Tensor] = {}
        self.context.run = {"data": feed, "tags": tags, "batch": batch, "values": [values]}
        grad = torch.is_grad_enabled() or self.context.differentiates
        with torch.set_grad_enabled(grad), self.placed_params.running(self.training, self.context.generator):
            for node in self.net.order:
                values[node] = compute(node, values)
            out = NetworkOutput(values, self.net.nodes)
            if self.loss_nodes or self.constraints or self.output_constraints:
                self._evaluate(out)
        self.context.run = {}
        return out

    @contextmanager
    def running_over(self, dataset_name: str) -> Iterator[None]:
        """One pass over a dataset; layers then complete what they write for each pass, or give it up after an error."""
        self.context.dataset_name = dataset_name
        failed = True
        try:
            yield
            failed = False
        finally:
            for layer in self.shared.modules:
                layer.end_run(failed=failed)

    def close(self) -> None:
        """Layers complete what they write; for a network that is not needed any more."""
        for layer in self.shared.modules:
            layer.close()

    def _evaluate(self, out: NetworkOutput) -> None:
        """Losses, and the objective: scaled sums of losses plus the constraints."""
        terms = []
        for node in self.loss_nodes:
            value = out.losses[node.name] = node.compute(out.values, self.training)
            if value.objective is not None:
                terms.append(value.objective)
        if not self.context.config.bool("decouple_constraints", False):
            for factor, params in self.constraints:
                terms += [factor * p.square().sum() for p in params]
        terms += [term(out.values[node]) for node, term in self.output_constraints]
        if terms:
            out.objective = terms[0] if len(terms) == 1 else torch.stack([t.reshape(()) for t in terms]).sum()


def named_nodes(root: Net) -> Iterator[tuple[Net, str, str, Node]]:
    """(net, prefix, name, node) of all nodes of a net; behind that of a sub-network (no loop) those inside of it."""
    waiting = [(root, "", iter(list(root.nodes.items())))]
    while waiting:
        net, prefix, items = waiting[-1]
        for name, node in items:
            yield net, prefix, name, node
            inner = net.subnets.get(name)
            if inner is not None and not inner.is_loop:
                waiting.append((inner, f"{prefix}{name}/", iter(list(inner.nodes.items()))))
                break
        else:
            waiting.pop()


def start_points(entries: Mapping[str, Any], context: Context) -> list[str]:
    """The names that construction starts from: outputs, losses, output layers; by name."""
    found = []
    for name in sorted(n for n in entries if not n.startswith("#")):
        layer = entries[name]
        if not isinstance(layer, Mapping):
            raise ConfigError(f'network["{name}"]', f"a layer must be a dict, but is {layer!r} instead")
        if layer.get("only_on_search") and not context.search or layer.get("only_on_eval") and not context.losses:
            continue
        if name == "output" or name.endswith(":output") or layer.get("loss") or layer.get("is_output_layer"):
            found.append(name)
    return found
