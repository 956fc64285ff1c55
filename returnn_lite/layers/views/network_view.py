"""The network, and layers that have been computed, as functions of configs see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import numpy as np
import torch

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError, NamesKnown, did_you_mean
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.node import NamedNet
from returnn_lite.layers.core.states import state_part
from returnn_lite.layers.views.data_view import SourceView, Wrap
from returnn_lite.tensor import Beam, Tensor
from returnn_lite.tensor.align import first_beam

T = TypeVar("T")


class LayerNotFound(ConfigError, KeyError):
    """`network.get_layer(name)` of a layer that does not exist or has no value yet."""


class NetworkView(NamesKnown):
    """The network of a layer: the root net, a sub-network or the unit of a loop."""

    what = "network"

    def __init__(self, layer: Layer, net: NamedNet | None = None) -> None:
        self._layer = layer
        self._net = _net_of(layer) if net is None else net

    @property
    def name(self) -> str:
        """Where the net stands, "root" for the outermost."""
        return "root" if self.parent_net is None else self._net.prefix

    def get_config(self) -> Config:
        """The config object, for `typed_value`, `float`, `int`, `bool`, `value`."""
        return self._layer.context.config

    @property
    def _config(self) -> Config:
        return self.get_config()

    @property
    def train_flag(self) -> bool:
        """Whether the network trains."""
        return self._layer.training

    @property
    def search_flag(self) -> bool:
        """Whether choices search."""
        return self._layer.context.search

    @property
    def eval_flag(self) -> bool:
        """Whether losses are evaluated."""
        return self._layer.context.losses

    @property
    def global_train_step(self) -> int:
        """Number of training steps so far."""
        return self._layer.context.global_step

    @property
    def epoch_step(self) -> int:
        """Number of training steps so far in this epoch."""
        context = self._layer.context
        return context.global_step - (context.epoch_start or 0)

    def cond_on_train(self, fn_train: Callable[[], T], fn_eval: Callable[[], T]) -> T:
        """One of two functions' values, by the train flag."""
        return fn_train() if self._layer.training else fn_eval()

    # --- other nets and layers ----------------------------------------------------------------------------------------

    @property
    def parent_net(self) -> NetworkView | None:
        """The net around this one; None for the outermost."""
        parent = self._net.parent
        return None if parent is None else NetworkView(self._layer, parent)

    @property
    def parent_layer(self) -> ComputedLayer | None:
        """The layer that this net belongs to, by its `name`; None for the outermost."""
        owner = self._net.owner
        return None if owner is None else ComputedLayer(owner, None)

    def get_root_network(self) -> NetworkView:
        """The outermost net."""
        parent = self.parent_net
        return self if parent is None else parent.get_root_network()

    def get_layer(self, name: str) -> ComputedLayer:
        """A layer that has been computed: "x", "base:x", "data:key", "prev:x", "sub/x". LayerNotFound for others."""
        node = self._net.nodes.get(name)
        data = self._layer.context.run.data
        for values in self._layer.context.run.values:
            if node is not None and node in values:
                return ComputedLayer(node.layer, values[node], name)
        parent = self.parent_net
        if name.startswith("base:") and parent is not None:
            return parent.get_layer(name[len("base:") :])
        key = name.removeprefix("data:") if name.startswith("data") else None
        if key is not None and (key := "data" if key == name else key) in data:
            return ComputedLayer(self._layer, data[key], name)
        known = list(self._net.nodes)
        reason = did_you_mean(name, known) if node is None else "; it is computed later, or its value was discarded"
        raise LayerNotFound(self._layer.path, f"`get_layer`: layer {name!r} not found{reason}")

    @property
    def layers(self) -> Mapping[str, ComputedLayer]:
        """The layers of this net that have been computed, by name."""
        return _Layers(self)

    @property
    def extern_data(self) -> ExternView:
        """The data of the batch."""
        return ExternView(self._layer)

    def get_data_batch_dim(self) -> int:
        """The number of sequences, times the beam."""
        data = self._layer.context.run.data
        return next(SourceView(x, key).get_batch_dim() for key, x in data.items() if isinstance(x, Tensor))

    # --- loops --------------------------------------------------------------------------------------------------------

    def have_rec_step_info(self) -> bool:
        """Whether a loop is at one of its ticks."""
        return self._layer.context.run.tick is not None

    is_inside_rec_layer = have_rec_step_info

    def get_rec_step_info(self) -> StepInfo:
        """The tick of the loop, and which hypotheses have ended. ConfigError outside of loops."""
        index, ended = self.get_rec_step_index(), self._layer.context.run.ended
        if ended is None:
            raise ConfigError(self._layer.path, "`get_rec_step_info()` needs a layer that runs inside of a loop")
        return StepInfo(index, ended)

    def get_rec_step_index(self) -> torch.Tensor:
        """The tick of the loop, an int32 scalar. ConfigError outside of loops, and for a layer moved out of one."""
        tick = self._layer.context.run.tick
        if tick is None:
            raise ConfigError(self._layer.path, "`get_rec_step_index()` needs a layer that runs inside of a loop")
        index: torch.Tensor = wrapper(self._layer)(
            torch.tensor(tick, dtype=torch.int32, device=self._layer.context.device)
        )
        return index

    @property
    def random(self) -> np.random.RandomState:
        """Random numbers by the network's seed."""
        return np.random.RandomState(self._layer.context.generator.initial_seed() % 2**32)


class StepInfo(NamesKnown):
    """What `network.get_rec_step_info()` gives: `step`, and `get_end_flag`."""

    what = "rec step info"

    def __init__(self, step: torch.Tensor, ended: Callable[[Beam | None], torch.Tensor]) -> None:
        self.step = step
        self._ended = ended

    def get_end_flag(self, target_search_choices: SearchChoices | None = None) -> torch.Tensor:
        """Which hypotheses have ended before this tick, those of the given `search_choices`.  Shape: bool (B * K,)"""
        return self._ended(getattr(target_search_choices, "beam", None))


class SearchChoices(NamesKnown):
    """`search_choices` of a layer: `beam_scores` (B, K) natural log, `beam_size`, `src_beams` (B, K)."""

    what = "search choices"

    def __init__(self, beam: Beam, wrap: Wrap) -> None:
        self.beam = beam
        self.beam_size = beam.size
        self.beam_scores = wrap(beam.scores)

    @property
    def src_beams(self) -> torch.Tensor:
        """For every hypothesis the one it extends, counted within its sequence."""
        before = self.beam.parent.size if self.beam.parent is not None else 1
        source: torch.Tensor = (self.beam.source % before).unflatten(0, (-1, self.beam_size))
        return source.to(torch.int32)


class ComputedLayer(NamesKnown):
    """A layer other than the present one: `name`, `network`, `params`, and if it has been computed its `output`."""

    what = "layer"

    def __init__(self, layer: Layer, x: Tensor | None, name: str | None = None) -> None:
        self.name = name or layer.name
        self.network = NetworkView(layer)
        self._layer = layer
        self._x = x

    def __repr__(self) -> str:
        return f"<layer {self.name!r}>"

    @property
    def output(self) -> SourceView:
        """The output as Data."""
        if self._x is None:
            raise LayerNotFound(self._layer.path, f"layer {self.name!r} has no output yet")
        return SourceView(self._x, self.name, wrapper(self._layer))

    @property
    def params(self) -> dict[str, torch.nn.Parameter]:
        """The layer's own parameters by name."""
        return dict(self._layer.scope.used) if self._layer.scope is not None else {}

    @property
    def search_choices(self) -> SearchChoices | None:
        """The hypotheses that the output holds; None without search."""
        return choices_of([self._x] if self._x is not None else [], self._layer)

    def get_last_hidden_state(self, key: str | int | None = "*") -> torch.Tensor:
        """The state of a recurrent layer behind its last frame, (B, H): "c", "h", …, "*" for all parts together."""
        if self._x is None or not self._x.state:
            text = f"layer {self.name!r} has no hidden state, or has not kept it"
            hint = "the code of the `eval` layer itself must contain `get_last_hidden_state`"
            raise ConfigError(self._layer.path, f"{text} ({hint})")
        error = ConfigError(self._layer.path, "")
        return wrapper(self._layer)(state_part(self._x.state, key, lambda text: ConfigError(error.path, text)))


class _Layers(Mapping[str, ComputedLayer]):
    """`network.layers`."""

    def __init__(self, network: NetworkView) -> None:
        self._network = network

    def __getitem__(self, name: str) -> ComputedLayer:
        return self._network.get_layer(name)

    def __iter__(self) -> Iterator[str]:
        stack = self._network._layer.context.run.values
        nodes = self._network._net.nodes
        return (name for name, node in nodes.items() if any(node in values for values in stack))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class ExternView(NamesKnown):
    """`network.extern_data`."""

    what = "extern data"

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    @property
    def data(self) -> dict[str, SourceView]:
        """The data keys of the batch."""
        wrap = wrapper(self._layer)
        found = self._layer.context.run.data.items()
        return {key: SourceView(x, f"data:{key}", wrap) for key, x in found if isinstance(x, Tensor)}

    def get_default_input_data(self) -> SourceView:
        """The data key that layers read by default."""
        return self._find("data")

    def get_default_target_data(self) -> SourceView:
        """The data key that losses compare with by default."""
        return self._find(self._layer.context.config.value("target", "classes"))

    def _find(self, key: str) -> SourceView:
        data = self.data
        if key not in data:
            raise ConfigError(self._layer.path, f"the batch has no data key {key!r}{did_you_mean(key, data)}")
        return data[key]


def _net_of(layer: Layer) -> NamedNet:
    """The net of a layer; one without names for a layer that stands alone."""
    return layer.net if isinstance(layer.net, NamedNet) else NamedNet()


def choices_of(xs: list[Tensor], layer: Layer) -> SearchChoices | None:
    """The newest hypotheses of these tensors; None without any."""
    beam = first_beam(reversed(xs))
    return None if beam is None else SearchChoices(beam, wrapper(layer))


def wrapper(layer: Layer) -> Wrap:
    """What makes tensors (and their dtype, where it may be "string") as functions of configs expect them."""
    found: Wrap = layer.context.eval_names.get("as_tf_tensor", _unchanged)
    return found


def _unchanged(x: torch.Tensor, dtype: str | None = None) -> torch.Tensor:  # noqa: ARG001 - as the wrapper is called
    return x
