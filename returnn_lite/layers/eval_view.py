"""What eval strings and functions see of layers and the network, by the names that configs use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy
import torch

from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.data_view import DataView, SourceView
from returnn_lite.tensor import Spec, Tensor

if TYPE_CHECKING:
    from returnn_lite.layers.base import Layer


class NetworkView:
    """The network as eval functions see it."""

    parent_net = None
    parent_layer = None
    name = "root"

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    def get_config(self) -> Any:
        """The config object, for `typed_value`, `float`, `int`, `bool`, `value`."""
        return self._layer.context.config

    @property
    def _config(self) -> Any:
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

    def cond_on_train(self, fn_train: Callable[[], Any], fn_eval: Callable[[], Any]) -> Any:
        """One of two functions' values, by the train flag."""
        return fn_train() if self._layer.training else fn_eval()

    def have_rec_step_info(self) -> bool:
        """Whether a loop is at one of its ticks."""
        return self._layer.context.run.get("tick") is not None

    is_inside_rec_layer = have_rec_step_info

    def get_rec_step_index(self) -> torch.Tensor:
        """The tick of the loop, an int32 scalar. ConfigError outside of loops, and for a layer moved out of one."""
        tick = self._layer.context.run.get("tick")
        if tick is None:
            raise ConfigError(self._layer.path, "`get_rec_step_index()` needs a layer that runs inside of a loop")
        wrap = self._layer.context.eval_names.get("as_tf_tensor", _unchanged)
        index: torch.Tensor = wrap(torch.tensor(tick, dtype=torch.int32, device=self._layer.context.device))
        return index

    def get_root_network(self) -> NetworkView:
        """Itself."""
        return self

    @property
    def random(self) -> numpy.random.RandomState:
        """Random numbers by the network's seed."""
        return numpy.random.RandomState(self._layer.context.generator.initial_seed() % 2**32)

    @property
    def extern_data(self) -> ExternView:
        """The data of the batch."""
        return ExternView(self._layer)

    def get_data_batch_dim(self) -> int:
        """The number of sequences, times the beam."""
        data: dict[str, Tensor] = self._layer.context.run["data"]
        return next(SourceView(x, key).get_batch_dim() for key, x in data.items() if isinstance(x, Tensor))


class ExternView:
    """`network.extern_data`."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    @property
    def data(self) -> dict[str, SourceView]:
        """The data keys of the batch."""
        wrap = self._layer.context.eval_names.get("as_tf_tensor", _unchanged)
        found = self._layer.context.run["data"].items()
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


class LayerView:
    """The layer itself (`self`) as eval functions see it."""

    search_choices = None

    def __init__(self, layer: Layer, sources: tuple[Tensor, ...]) -> None:
        self.network = NetworkView(layer)
        self.name = layer.name
        self._layer = layer
        self._sources = sources

    @property
    def sources(self) -> list[SourceView]:
        """The layer's sources."""
        wrap = self._layer.context.eval_names.get("as_tf_tensor", _unchanged)
        return [SourceView(x, f"{self.name}:source{i}", wrap) for i, x in enumerate(self._sources)]

    @property
    def params(self) -> dict[str, Any]:
        """The layer's own parameters by name."""
        return dict(self._layer.scope.used) if self._layer.scope is not None else {}


def called_out_type(layer: Layer, function: Callable[..., Any], sources: tuple[Spec, ...]) -> dict[str, Any]:
    """The `out_type` dict that a function of the config gives, called as `function(sources=…, name=…, …)`."""
    found = function(
        name=layer.name,
        sources=[DataView(spec, f"{layer.name}:source{i}") for i, spec in enumerate(sources)],
        network=NetworkView(layer),
        n_out=layer.options.n_out,
        target=layer.options.target,
        size_target=layer.options.size_target,
        **getattr(layer, "eval_locals", {}),
    )
    found = getattr(found, "out_type", found)
    if not isinstance(found, dict):
        raise layer.error(f"the function `out_type` must return a Data object, but returned {found!r} instead")
    return found


def _unchanged(x: Any) -> Any:
    return x
