"""Networks of layers whose parameters are in parts, one in each process: what is split, and gathered when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch.distributed.device_mesh import DeviceMesh

from returnn_lite.config_value import ConfigValue
from returnn_lite.engine.distributed.options import KEY
from returnn_lite.engine.distributed.shards import Shards, split_parameter, sum_of_squares
from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.node import Node, Slot, full_name
from returnn_lite.network import Network
from returnn_lite.network.compiling.options import OPTION as COMPILE
from returnn_lite.network.compiling.options import compile_options
from returnn_lite.network.gathering import Gathering, Unit, units
from returnn_lite.network.recomputation import nodes_of
from returnn_lite.network.substituted_params import Noisy, substituted
from returnn_lite.ops.recompute import Hooks

MODULES = f'{KEY}["options"]["modules"]'


def split_network(net: Network, mesh: DeviceMesh, *, again: bool, parts: ConfigValue) -> None:
    """Leaves to this process its part of all parameters, which are equal in all.

    What layers change themselves (running statistics) stays. again: the backward pass gathers a second time; parts: the
    names of layers, with all inside, to be gathered as one each. ConfigError for what cannot be done with parts.
    """
    refuse(net)
    split = {
        name: param for name, param in net.params.items()
        if param.is_floating_point() and not net.param_options[name].counted
    }  # fmt: skip
    found, left = units(net.program.parts, net.program.layers, split, _parts(net.program.nodes, parts))
    largest = max(sum(split[name].numel() for name in unit.places) for unit in (*found, left))
    net.context.log.v3(f"parameters in parts: {len(found)} units of layers, with {largest} numbers at most")
    made = {name: split_parameter(param, mesh) for name, param in split.items()}
    for unit in (*found, left):
        for name, places in unit.places.items():
            for container, key in places:
                container[key] = made[name]
    new = {id(param): made[name] for name, param in split.items()}
    constraints = tuple((factor, [new.get(id(p), p) for p in params]) for factor, params in net.program.constraints)
    for name, param in split.items():
        net.params[name] = net._parameters[name] = made[name]
        param.data = param.new_empty(0)  # whoever still has it must not go on with it
    noisy = {name: noise for noise in net.substituted_params.noisy for name, p in split.items() if noise.param is p}
    net.substituted_params.noisy = []
    gathering = UnitGathering(found, left, made, noisy, again)
    net.program = replace(net.program, constraints=constraints, gathering=gathering)


def _parts(nodes: Sequence[Node], names: ConfigValue) -> list[frozenset[Node]]:
    """The nodes of each of the layers, or patterns of them."""
    if names is None:
        return []
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ConfigError(MODULES, f"must be a list of names of layers, but is {names!r} instead")
    by_node = {node: full_name(node) for node in nodes}
    return [frozenset(nodes_of(name, by_node, MODULES)) for name in names]


def refuse(net: Network) -> None:
    """ConfigError for what needs whole parameters all the time."""
    config = net.context.config
    if compile_options(config) is not None:
        raise ConfigError(COMPILE, 'cannot be used together with torch_distributed = {"class": "fsdp"}')
    for layer in net.program.layers:
        if layer.scope is not None and any(derived.value is not None for derived in layer.scope.derived.values()):
            text = '`reuse_params` with `custom` cannot be used together with torch_distributed = {"class": "fsdp"}'
            raise layer.error(text)


class _OpenUnit:
    """A unit, of which all parameters are whole between `open` and `close`."""

    def __init__(
        self, unit: Unit, params: Mapping[str, torch.nn.Parameter], noisy: Mapping[str, Noisy], again: bool
    ) -> None:
        self.places: list[list[Slot]] = list(unit.places.values())
        self.noisy = [noisy.get(name) for name in unit.places]
        self.again = again
        self.hooks: Hooks | None = None
        self.shards = Shards([params[name] for name in unit.places], again)
        self.stack = ExitStack()

    def open(self, training: bool, generator: torch.Generator) -> None:
        """Gathers them."""
        whole: Sequence[torch.Tensor] = self.shards.open()
        if self.again and torch.is_grad_enabled():
            self.hooks = self.shards.pack, self.shards.unpack
            self.stack.enter_context(torch.autograd.graph.saved_tensors_hooks(*self.hooks))
        if training:
            pairs = zip(self.noisy, whole, strict=True)
            whole = [p if noise is None else noise.value(generator, p) for noise, p in pairs]
        self.stack.enter_context(substituted(list(zip(self.places, whole, strict=True))))

    def close(self) -> torch.Tensor | None:
        """Lets go of them; what the objective has to depend on."""
        self.stack.close()
        self.hooks = None
        return self.shards.close()


class UnitGathering(Gathering):
    """Gathers one unit after the other; and all the time what no unit has.

    `noisy`: what is added to parameters in training, by name.
    """

    def __init__(
        self,
        found: Sequence[Unit],
        left: Unit,
        params: Mapping[str, torch.nn.Parameter],
        noisy: Mapping[str, Noisy],
        again: bool,
    ) -> None:
        self.units = [_OpenUnit(unit, params, noisy, again) for unit in found if unit.places]
        self.always = _OpenUnit(left, params, noisy, False) if left.places else None
        nodes = [unit.nodes for unit in found if unit.places]
        self.unit_of: dict[Node, _OpenUnit] = {
            node: unit for unit, own in zip(self.units, nodes, strict=True) for node in own
        }
        self.current: _OpenUnit | None = None
        self.tokens: list[torch.Tensor] = []
        self.drawn: tuple[bool, torch.Generator] = False, torch.Generator()

    @contextmanager
    def running(self, training: bool, generator: torch.Generator) -> Iterator[None]:
        """While the network runs on a batch."""
        self.drawn, self.tokens = (training, generator), []
        try:
            if self.always is not None:
                self.always.open(*self.drawn)
            yield
        finally:
            self.after_steps()
            if self.always is not None:
                self.always.close()
            self.tokens = []

    @property
    def hooks(self) -> Hooks | None:
        """Those of the present unit."""
        return None if self.current is None else self.current.hooks

    def before(self, node: Node) -> None:
        """Opens the unit of a step, unless it is open."""
        unit = self.unit_of.get(node)  # None: a step inside of one that is no unit by itself
        if unit is not None and unit is not self.current:
            self.after_steps()
            self.current = unit
            unit.open(*self.drawn)

    def after_steps(self) -> None:
        """Closes the last unit."""
        unit, self.current = self.current, None
        token = None if unit is None else unit.close()
        if token is not None:
            self.tokens.append(token)

    def squares(self, params: Sequence[torch.nn.Parameter]) -> list[torch.Tensor]:
        """The sum of the squares of all numbers in these."""
        return [sum_of_squares(params)]

    def joined(self, objective: torch.Tensor) -> torch.Tensor:
        """The objective plus 0, which comes from all units."""
        tokens = [*self.tokens]
        if self.always is not None and self.always.shards.token is not None:
            tokens.append(self.always.shards.token)
        if not tokens or not torch.is_grad_enabled():
            return objective
        return objective.as_subclass(torch.Tensor) + torch.stack(tokens).sum()
