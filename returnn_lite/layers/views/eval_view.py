"""The present layer (`self`) as eval strings and functions see it, and functions that say what comes out of it."""

from __future__ import annotations

import torch

from returnn_lite.config_value import ConfigDict, ConfigFunction, ConfigOptions
from returnn_lite.errors import NamesKnown
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.views.data_view import DataView
from returnn_lite.layers.views.network_view import ComputedLayer, NetworkView, SearchChoices, choices_of
from returnn_lite.tensor import Spec, Tensor


class LayerView(NamesKnown):
    """The layer itself (`self`) as eval functions see it.

    `names`: those of its sources, "<name>:source<i>" without. `spec`: its own output's axes. `description`: its dict.
    """

    what = "layer"

    def __init__(
        self,
        layer: Layer,
        sources: tuple[Tensor, ...],
        names: list[str] | None = None,
        spec: Spec | None = None,
        description: ConfigDict | None = None,
    ) -> None:
        self.network = NetworkView(layer)
        self.name = layer.name
        self._layer = layer
        self._sources = sources
        self._names = names or [f"{layer.name}:source{i}" for i in range(len(sources))]
        self._spec = spec
        self._description = description or {}

    @property
    def sources(self) -> list[ComputedLayer]:
        """The layer's sources."""
        return [ComputedLayer(self._layer, x, name) for x, name in zip(self._sources, self._names, strict=True)]

    def get_dep_layers(self) -> list[ComputedLayer]:
        """The same."""
        return self.sources

    @property
    def output(self) -> DataView:
        """The axes of its output, which has no values yet."""
        if self._spec is None:
            raise self._layer.error("the axes of the output are not known here")
        return DataView(self._spec, self.name)

    @property
    def kwargs(self) -> ConfigOptions:
        """The layer's dict."""
        return dict(self._description)

    @property
    def search_choices(self) -> SearchChoices | None:
        """The hypotheses of its sources; None without search."""
        return choices_of(list(self._sources), self._layer)

    _src_common_search_choices = search_choices

    @property
    def params(self) -> dict[str, torch.nn.Parameter]:
        """The layer's own parameters by name."""
        return dict(self._layer.scope.used) if self._layer.scope is not None else {}


class SourceTemplate(DataView):
    """A source before there are values: its `output` is itself."""

    search_choices = None


def called_out_type(layer: Layer, function: ConfigFunction, sources: tuple[Spec, ...]) -> ConfigOptions:
    """The `out_type` dict that a function of the config gives, called as `function(sources=…, name=…, …)`."""
    found = function(
        name=layer.name,
        sources=[SourceTemplate(spec, f"{layer.name}:source{i}") for i, spec in enumerate(sources)],
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
