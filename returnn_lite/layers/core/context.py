"""What the layers of one network share, and what they are told of the net around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigDict, EvalNames
from returnn_lite.log import Log
from returnn_lite.tensor import Beam, Spec, Tensor


class DataKeys(Protocol):
    """The data keys of a network."""

    @property
    def specs(self) -> Mapping[str, Spec]:
        """The Specs by key."""
        ...

    @property
    def options(self) -> Mapping[str, ConfigDict]:
        """What the config says of each key."""
        ...

    def spec(self, key: str, path: str = "extern_data") -> Spec:
        """The Spec of a key. Raises ConfigError with the path of who asks for an unknown one."""
        ...


def _nothing(_: object) -> None:
    """What most runs do before a node."""


@dataclass
class RunState:
    """What one run of a network was given, and where it is.

    `data`: the batch by key; `tags`: names of its sequences; `batch`: their number. `values`: outputs by node, those of
    the innermost loop in front. `wanted`: the names of outputs that somebody asks for; None: perhaps all, otherwise
    `values` has only what is still to be read. `before`: to be called with each node (the first one of those in the
    ticks of a loop) before it is computed. In a loop `tick` is its number, and `ended(beam)` tells
    which of these hypotheses (by default of the present ones) have ended before it, bool (B * K,).
    """

    data: Mapping[str, Tensor] = field(default_factory=dict)
    tags: Sequence[str] | None = None
    batch: int | None = None
    wanted: frozenset[str] | None = None
    values: list[dict[Any, Tensor]] = field(default_factory=list)  # the keys are nodes, which know layers
    before: Callable[[Any], None] = _nothing
    tick: int | None = None
    ended: Callable[[Beam | None], torch.Tensor] | None = None


@dataclass
class Context:
    """What the layers of one network share: the config, flags, random numbers, and names for eval strings.

    `search`: choices search; `beams`: tensors may hold beams. `differentiates`: gradients are always kept, since a
    layer needs them. `keeps_batch`: in a search, sequences that have ended stay in the batch, and there may be ticks
    after all have ended. `full_beam`: it begins with as many hypotheses as it keeps, all but the first one impossible,
    so that the first tick is like the others. `losses`: losses are evaluated. `train`: the train flag. `generator`:
    random numbers of dropout and noise, `device`: where they are drawn. `eval_names`: what eval strings may name.
    `global_step`, `epoch`: set by the engine, `dataset_name` too: which one a pass goes over. `tick_offset`: where the
    ticks of loops with `use_global_rec_step_offset` start; callers may set it. `data_keys`: those of the network.
    `run`: the present run.
    """

    config: Config
    log: Log
    behavior: int = 0
    search: bool = False
    beams: bool = False
    differentiates: bool = False
    keeps_batch: bool = False
    full_beam: bool = False
    losses: bool = True
    train: bool = False
    generator: torch.Generator = field(default_factory=torch.Generator)
    eval_names: EvalNames = field(default_factory=dict)
    global_step: int = 0
    epoch: int = 1
    dataset_name: str = ""
    epoch_start: int | None = None  # global_step of the epoch's first step; None before it
    tick_offset: int = 0
    data_keys: DataKeys | None = None
    run: RunState = field(default_factory=RunState)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.generator.device


class Surroundings(Protocol):
    """What a layer class is told of the net around it before there is a layer."""

    @property
    def context(self) -> Context:
        """What all layers share."""
        ...

    @property
    def in_loop(self) -> bool:
        """Whether the layer is one of a loop."""
        ...

    def has_layer(self, name: str) -> bool:
        """Whether the net's dict describes a layer of this name."""
        ...

    def layer_path(self, name: str) -> str:
        """A layer in config syntax."""
        ...


@dataclass
class NetName:
    """The net that a layer is one of: where its parameters stand ("" for the root net)."""

    prefix: str = ""
