"""`reuse_params`: parameters of a layer taken from other layers, from a layer's output, or from a function."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.params import Derived, ParamScope
from returnn_lite.tensor import Dim

_KEYS = ("reuse_layer", "map", "auto_create_missing", "layer_output", "shape", "custom")
Shape = tuple[int, ...]


@dataclass
class ReuseOptions:
    """The option, checked: its `entries`, the `layers` whose parameters are shared, the `outputs` that are parameters.

    Raises ConfigError for unknown entries.
    """

    path: str
    entries: Mapping[str, Any]
    layers: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        waiting = [self.entries]
        while waiting:
            entries = waiting.pop()
            for key in entries:
                if key not in _KEYS:
                    raise ConfigError(self.path, f"reuse_params: unknown entry {key!r}{did_you_mean(str(key), _KEYS)}")
            self._check(entries)
            if entries.get("reuse_layer"):
                self.layers.append(entries["reuse_layer"])
            if entries.get("layer_output"):
                self.outputs.append(entries["layer_output"])
            inner = [_as_dict(entry) for entry in (entries.get("map") or {}).values() if entry]
            waiting += reversed(inner)

    def _check(self, entries: Mapping[str, Any]) -> None:
        """ConfigError for an entry of another kind."""
        for key in ("reuse_layer", "layer_output"):
            if entries.get(key) and not isinstance(entries[key], str):
                self._wrong(f'["{key}"]', "a layer name", entries[key])
        if entries.get("custom") is not None and not callable(entries["custom"]):
            self._wrong('["custom"]', "a function", entries["custom"])
        inner = entries.get("map") or {}
        if not isinstance(inner, Mapping):
            self._wrong('["map"]', "a dict by parameter", inner)
        for name, entry in inner.items():
            if entry and not isinstance(entry, (str, Mapping)):
                self._wrong(f'["map"]["{name}"]', "a layer name, a dict or None", entry)

    def _wrong(self, key: str, wanted: str, found: Any) -> None:
        raise ConfigError(self.path, f"reuse_params{key}: must be {wanted}, but is {found!r} instead")


def reuse_options(options: ConfigValue, path: str) -> ReuseOptions | None:
    """The option `reuse_params` of a layer.

    Forms: "layer"; {"reuse_layer": "layer", "auto_create_missing": bool}; {"map": {"W": "layer" | None | dict}};
    {"layer_output": "layer", "shape": Dims}; {"custom": function, "reuse_layer": "layer"}.
    """
    if not options:
        return None
    if not isinstance(options, (str, Mapping)):
        raise ConfigError(path, f"reuse_params: must be a layer name or a dict, but is {options!r} instead")
    return ReuseOptions(path, dict(_as_dict(options)))


def _named(name: str, names: Container[str]) -> str | None:
    """A parameter among others by its name; those of recurrent layers may be called without "rec/"."""
    plain = name.removeprefix("rec/")
    return next((found for found in (name, plain, f"rec/{plain}") if found in names), None)


@dataclass
class SharedParams:
    """Where the parameters of the layer `reader` come from.

    Called with a parameter's name and shape: another layer's parameter, a `Derived` one, or None where the layer makes
    its own. `owners`: the nodes whose parameters are shared, `outputs`: those whose output is a parameter, by the names
    in the options. Raises ConfigError for missing parameters and other shapes.
    """

    options: ReuseOptions
    reader: Layer
    owners: dict[str, Node] = field(default_factory=dict)
    outputs: dict[str, Node] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The reader's."""
        return self.options.path

    def __call__(self, name: str, shape: Shape) -> torch.nn.Parameter | Derived | None:
        """The parameter of this name."""
        entries = self.options.entries
        while True:
            create = bool(entries.get("auto_create_missing"))
            if entries.get("custom") is not None:
                return self._custom(entries, name, shape)
            if entries.get("layer_output"):
                return self._output(entries, name, shape)
            if "map" not in entries:
                break
            by_name = entries["map"] or {}
            known = _named(name, by_name)
            if known is None and not create:
                raise ConfigError(self.path, f"reuse_params: parameter {name!r} is not in the map {sorted(by_name)}")
            if known is None or not by_name[known]:
                return None
            entries = _as_dict(by_name[known])
        return self._of_layer(entries["reuse_layer"], name, create) if entries.get("reuse_layer") else None

    def _scope(self, layer: str) -> ParamScope:
        """The parameters of a layer."""
        scope = self.owners[layer].layer.scope
        if scope is None:
            raise ConfigError(self.path, f"reuse_params: layer {layer!r} has no parameters")
        return scope

    def _of_layer(self, layer: str, name: str, create: bool) -> torch.nn.Parameter | None:
        used = self._scope(layer).used
        known = _named(name, used)
        if known is None and not create:
            have = ", ".join(used) or "none"
            raise ConfigError(self.path, f"reuse_params: layer {layer!r} has no parameter {name!r}; it has: {have}")
        return None if known is None else used[known]

    def _output(self, entries: Mapping[str, Any], name: str, shape: Shape) -> Derived:
        """The output of a layer as a parameter; `shape` tells the order of its axes."""
        node = self.outputs[entries["layer_output"]]
        if node.spec is None:
            raise ConfigError(self.path, f"reuse_params: the axes of layer {node.name!r} are not known")
        order = _order(node, entries.get("shape"), self.path)
        found = tuple(node.spec.dims[i].size for i in order)
        if found != shape:
            raise ConfigError(
                self.path, f"reuse_params: {name!r} must have shape {shape}, but layer {node.name!r} gives {found}"
            )
        return Derived(torch.nn.Parameter(torch.zeros(shape), requires_grad=False), node=node, order=order)

    def _custom(self, entries: Mapping[str, Any], name: str, shape: Shape) -> torch.nn.Parameter | Derived:
        """What the function `custom` makes of other parameters."""
        other = entries.get("reuse_layer")
        reused = ParamsView(other, self._scope(other), self.reader) if other else None
        value = CustomParam(entries["custom"], reused, self.reader, name, shape)
        first = value()
        if isinstance(first, torch.nn.Parameter):
            return first
        if not isinstance(first, torch.Tensor) or tuple(first.shape) != shape:
            what = f"a tensor of shape {tuple(first.shape)}" if isinstance(first, torch.Tensor) else repr(first)
            raise ConfigError(
                self.path, f"reuse_params: `custom` must return {name!r} with shape {shape}, but returned {what}"
            )
        return Derived(torch.nn.Parameter(torch.zeros(shape), requires_grad=False), value=value)


@dataclass
class CustomParam:
    """A parameter that the `function` of a config makes of others, each time that it is called."""

    function: Callable[..., Any]
    reused: ParamsView | None
    reader: Layer
    name: str
    shape: Shape

    def __call__(self) -> torch.Tensor:
        """The parameter."""
        scope = self._scope
        made = self.function(
            base_layer=ParamsView(self.reader.name, scope, self.reader), reuse_layer=self.reused, name=self.name,
            full_name=scope.full_name(self.name), shape=self.shape, dtype="float32", getter=self._own,
        )  # fmt: skip
        return _wrappers(self.reader)[1](made)  # type: ignore[no-any-return]

    @property
    def _scope(self) -> ParamScope:
        if self.reader.scope is None:
            raise ConfigError(self.reader.path, "reuse_params: the layer has no parameters")
        return self.reader.scope

    def _own(self, name: str = "", shape: Shape | None = None, init: Any = "glorot_uniform", **_: Any) -> Any:
        """A parameter of the layer itself, by default the one that is asked for."""
        local = (name or self.name).removeprefix(f"{self._scope.prefix}/")
        return _wrappers(self.reader)[0](self._scope.own(local, tuple(self.shape if shape is None else shape), init))


class ParamsView:
    """A layer as `custom` functions see it: `name`, and `params` by name."""

    def __init__(self, name: str, scope: ParamScope, owner: Layer) -> None:
        self.name = name
        self._scope = scope
        self._owner = owner

    @property
    def params(self) -> dict[str, torch.Tensor]:
        """The parameters by name."""
        wrap, _ = _wrappers(self._owner)
        return {n: wrap(p) for n, p in self._scope.used.items()}


def _wrappers(owner: Layer) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """How config code wants to see tensors, and the way back."""
    names = owner.context.eval_names
    return names.get("as_tf_tensor", _unchanged), names.get("as_plain_tensor", _unchanged)


def _unchanged(x: Any) -> Any:
    return x


def _as_dict(options: Any) -> Mapping[str, Any]:
    return {"reuse_layer": options} if isinstance(options, str) else options


def _order(node: Node, shape: Any, path: str) -> tuple[int, ...]:
    """The axes of a layer's output in the order of the Dims of `shape`."""
    dims = node.spec.dims if node.spec is not None else ()
    if not shape:
        return tuple(range(len(dims)))
    order = []
    for i, dim in enumerate(shape):
        size = dim.size if isinstance(dim, Dim) else dim
        fits = [j for j, d in enumerate(dims) if j not in order and (d == dim or d.size == size)]
        if not fits:
            raise ConfigError(path, f"reuse_params: `shape` must name the axes of {node.spec}, but entry {i} is {dim}")
        order.append(next((j for j in fits if dims[j] == dim), fits[0]))
    return tuple(order)
