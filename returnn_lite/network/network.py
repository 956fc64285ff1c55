"""`Network`: a dict of layers as one torch module – construct, run a batch, losses and objective."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

import torch

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.context import Context, RunState
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.params import ParamOptions, ParamOwner, ParamStore
from returnn_lite.log import Log
from returnn_lite.network.builder import build_program
from returnn_lite.network.extern import ExternData
from returnn_lite.network.objective import LossNode, LossValue
from returnn_lite.network.saving import MakeEvalNames, NetworkState, Origin, learned, relearn
from returnn_lite.network.substituted_params import SubstitutedParams
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.precision import in_float32


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
        """The output of a layer ("output", "rec/sub"), half precision as float32. Raises KeyError for a layer that was
        not built."""
        return in_float32(self.values[self.nodes[name]])

    def asked(self, name: str, *, for_callback: bool = False) -> dict[str, Tensor]:
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

    `print` shows the program: the layers in the order in which they run. `state_dict` has the parameters by their
    names in checkpoints ("output/W"). Copies and pickled networks are made again from the description, and then get
    parameters, counters and random numbers; functions in it must be importable for a file.
    """

    lengths_on_host = False
    wanted: frozenset[str] | None = None
    data_as_they_are = False

    def __init__(
        self,
        config: Config,
        net_dict: Mapping[str, Any],
        *,
        search: bool = False,
        eval: bool = True,  # noqa: A002 - the field's word
        log: Log | None = None,
        eval_names: MakeEvalNames | None = None,
        seed: int = 1,
        extra_layers: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.context = Context(
            config, log or Log.silent(), behavior=config.int("behavior_version", 0) or 0, search=search, losses=eval,
            beams=search,
        )  # fmt: skip
        self.origin = Origin(config, net_dict, search, eval, eval_names, seed, extra_layers)
        names = eval_names or config.eval_names
        self.context.eval_names = names(self.context) if names is not None else {}
        self.extern_data = self.context.data_keys = ExternData(config)
        self.store = ParamStore(torch.Generator().manual_seed(seed))
        self.program = build_program(net_dict, self.context, self.store, self.extern_data, extra_layers=extra_layers)
        self.loaded_on_init: frozenset[str] = frozenset()  # parameters that `load_on_init` of a layer has set
        self.infinite_constants: frozenset[str] = frozenset()  # of buffers, such as a mask
        self.autocast: torch.dtype | None = None  # of mixed precision, in which whoever runs it does so
        self.layer_modules = torch.nn.ModuleList(self.program.layers)
        self.substituted_params = SubstitutedParams(self.program.layers, config)
        self._parameters.update(self.params)  # under their own names: those of checkpoints
        self.seed(seed)

    # --- copies and files ---------------------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        made = _made_from(type(self), self.origin)
        memo[id(self)] = made
        made.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return made

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return _made_from, (type(self), self.origin.portable()), self.__getstate__()

    def __getstate__(self) -> NetworkState:
        state = learned(self.params, self.context, self.program.layers)
        plain = {name: getattr(self, name) for name in ("training", "loaded_on_init", "infinite_constants", "autocast")}
        return {**state, "plain": plain}

    def __setstate__(self, state: NetworkState) -> None:
        with torch.no_grad():
            device = next((values.device for values, _ in state["params"].values()), torch.device("cpu"))
            self.to(device)  # constants of the layers too
            self.context.generator = torch.Generator(device)
            relearn(state, self.params, self.context, self.program.layers)
        for name, value in state["plain"].items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        lines = "\n".join(f"  {line}" for line in str(self.program).splitlines())
        return f"{type(self).__name__}(\n{lines}\n)"

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Network:
        """On another device random numbers are drawn there, from the same seed."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.device.type != "meta" and self.context.generator.device != self.device:
            self.seed(self.context.generator.initial_seed())
        return self

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def params(self) -> dict[str, torch.nn.Parameter]:
        """All parameters by their names, in construction order."""
        return self.store.params

    @property
    def saved_params(self) -> dict[str, torch.nn.Parameter]:
        """The same, as files hold them."""
        return self.store.params

    @property
    def param_options(self) -> dict[str, ParamOptions]:
        """What the optimizer needs to know per parameter."""
        return self.store.options

    def param_owners(self) -> dict[str, ParamOwner]:
        """The layer of each parameter."""
        found: dict[str, ParamOwner] = {}
        for name, node in self.program.owners.items():
            sparse = any(source.spec is not None and source.spec.sparse for source in node.sources)
            prefix = node.layer.scope.prefix if node.layer.scope is not None else ""
            found[name] = ParamOwner(prefix, node.layer.class_name, sparse, node.layer)
        return found

    @property
    def loss_nodes(self) -> tuple[LossNode, ...]:
        """The losses."""
        return self.program.losses

    @property
    def used_data_keys(self) -> frozenset[str]:
        """The keys that a batch must hold."""
        return self.program.data_keys

    @property
    def layers(self) -> dict[str, Layer]:
        """The built layers of the root net by name."""
        return {n: node.layer for n, node in self.program.names.items()}

    def spec(self, name: str) -> Spec:
        """The axes of a layer's output. Raises ConfigError for a layer that was not built."""
        node = self.program.names.get(name)
        if node is None or node.spec is None:
            raise ConfigError("network", f"layer {name!r} was not built{did_you_mean(name, list(self.program.names))}")
        return node.spec

    @property
    def recurrent(self) -> bool:
        """Whether frames depend on each other, so that batches must keep sequences apart."""
        return any(m.is_recurrent() for m in self.program.layers) or any(n.loss.recurrent for n in self.loss_nodes)

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
        if self.context.generator.device != self.device:
            self.context.generator = torch.Generator(self.device)
        self.context.generator.manual_seed(seed)  # the same one: recorded steps draw from it

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
        self, data: Mapping[str, torch.Tensor], lengths: Mapping[str, torch.Tensor], tags: list[str] | None = None
    ) -> NetworkOutput:
        """Runs all layers on a batch: batch-first arrays by key, and int lengths [B] of the keys with a time axis."""
        with self._running(data, lengths, tags) as state:
            values = self.program.run(state)
            losses, objective = self.evaluate(values)
        out = NetworkOutput(values, self.program.names, losses)
        if objective is not None:
            out.objective = objective
        return out

    def outputs(self, data: Mapping[str, torch.Tensor], lengths: Mapping[str, torch.Tensor]) -> dict[Node, Tensor]:
        """The outputs of all layers for a batch; the losses are left to `evaluate`."""
        with self._running(data, lengths, None) as state:
            return self.program.run(state)

    @contextmanager
    def running_until(
        self, node: Node, data: Mapping[str, torch.Tensor], lengths: Mapping[str, torch.Tensor]
    ) -> Iterator[tuple[dict[Node, Tensor], RunState]]:
        """While the layers before `node` have run on a batch: their outputs, and the state of the run."""
        with self._running(data, lengths, None) as state:
            yield self.program.run(state, until=node), state

    def evaluate(self, values: dict[Node, Tensor]) -> tuple[dict[str, LossValue], torch.Tensor | None]:
        """The losses by name, and the objective; None without any."""
        constrained = not self.context.config.bool("decouple_constraints", False)
        return self.program.evaluate(values, training=self.training, constrained=constrained)

    @contextmanager
    def _running(
        self, data: Mapping[str, torch.Tensor], lengths: Mapping[str, torch.Tensor], tags: list[str] | None
    ) -> Iterator[RunState]:
        """While layers run on a batch."""
        feed = {k: self.extern_data.feed(k, v, lengths) for k, v in data.items() if k in self.used_data_keys}
        batch = next((len(v) for v in (*lengths.values(), *data.values(), tags) if v is not None), None)
        wanted = None if self.program.looks_around else self.wanted
        state = self.context.run = RunState(feed, tags, batch, wanted)
        grad = torch.is_grad_enabled() or self.context.differentiates
        drawn = self.training, self.context.generator
        params = self.substituted_params.running(*drawn), self.program.gathering.running(*drawn)
        try:
            with torch.set_grad_enabled(grad), params[0], params[1]:
                yield state
        finally:
            self.context.run = RunState()

    @contextmanager
    def running_over(self, dataset_name: str) -> Iterator[None]:
        """One pass over a dataset; layers then complete what they write for each pass, or give it up after an error."""
        self.context.dataset_name = dataset_name
        failed = True
        try:
            yield
            failed = False
        finally:
            for layer in self.program.layers:
                layer.end_run(failed=failed)

    def close(self) -> None:
        """Layers complete what they write; for a network that is not needed any more."""
        for layer in self.program.layers:
            layer.close()


def _made_from(cls: type[Network], origin: Origin) -> Network:
    """The network of a description, as it was when it was made."""
    return cls(
        origin.config, origin.description, search=origin.search, eval=origin.evaluates, eval_names=origin.eval_names,
        seed=origin.seed, extra_layers=origin.extra_layers,
    )  # fmt: skip
