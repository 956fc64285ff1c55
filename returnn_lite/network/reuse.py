"""`reuse_params`: parameters of a layer taken from other layers, from a layer's output, or from a function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.params import Derived, ParamScope
from returnn_lite.tensor import Dim

if TYPE_CHECKING:
    from returnn_lite.network.construct import Net
    from returnn_lite.network.graph import Node

_KEYS = ("reuse_layer", "map", "auto_create_missing", "layer_output", "shape", "custom")
Shape = tuple[int, ...]


@dataclass
class Reuse:
    """Where the parameters of one layer come from.

    Called with a parameter's name and shape: another layer's parameter, a `Derived` one, or None where the layer makes
    its own. `entries`: one of the forms of the option, checked; `layers`: the layers whose parameters are shared;
    `outputs`: the nodes whose output is a parameter. Raises ConfigError for unknown layers, missing parameters and
    other shapes.
    """

    net: Net
    path: str
    options: dict[str, Any]
    owner: Layer
    layers: list[str] = field(default_factory=list)
    outputs: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._collect(self.options)

    def _collect(self, options: Mapping[str, Any]) -> None:
        """Checks the entries of a form and notes the layers it names."""
        for key in options:
            if key not in _KEYS:
                raise ConfigError(self.path, f"reuse_params: unknown entry {key!r}{did_you_mean(str(key), _KEYS)}")
        if options.get("reuse_layer"):
            self.layers.append(options["reuse_layer"])
        if options.get("layer_output"):
            name = options["layer_output"]
            self.outputs[name] = self.net.get(name)
        for entry in (options.get("map") or {}).values():
            if entry:
                self._collect(_as_dict(entry))

    def __call__(self, name: str, shape: Shape) -> torch.nn.Parameter | Derived | None:
        """The parameter of this name."""
        return self._find(self.options, name, shape)

    def _find(self, options: Mapping[str, Any], name: str, shape: Shape) -> torch.nn.Parameter | Derived | None:
        create = bool(options.get("auto_create_missing"))
        if options.get("custom") is not None:
            return self._custom(options, name, shape)
        if options.get("layer_output"):
            return self._output(options, name, shape)
        if "map" in options:
            entries = options["map"] or {}
            if name not in entries:
                if create:
                    return None
                raise ConfigError(self.path, f"reuse_params: parameter {name!r} is not in the map {sorted(entries)}")
            return self._find(_as_dict(entries[name]), name, shape) if entries[name] else None
        if not options.get("reuse_layer"):
            return None
        return self._of_layer(options["reuse_layer"], name, create)

    def _of_layer(self, layer: str, name: str, create: bool) -> torch.nn.Parameter | None:
        used = scope_of(self.net, layer, self.path).used
        if name not in used and not create:
            have = ", ".join(used) or "none"
            raise ConfigError(self.path, f"reuse_params: layer {layer!r} has no parameter {name!r}; it has: {have}")
        return used.get(name)

    def _output(self, options: Mapping[str, Any], name: str, shape: Shape) -> Derived:
        """The output of a layer as a parameter; `shape` tells the order of its axes."""
        node = self.outputs[options["layer_output"]]
        if node.spec is None:
            raise ConfigError(self.path, f"reuse_params: the axes of layer {node.name!r} are not known")
        order = _order(node, options.get("shape"), self.path)
        found = tuple(node.spec.dims[i].size for i in order)
        if found != shape:
            raise ConfigError(
                self.path, f"reuse_params: {name!r} must have shape {shape}, but layer {node.name!r} gives {found}"
            )
        return Derived(torch.nn.Parameter(torch.zeros(shape), requires_grad=False), node=node, order=order)

    def _custom(self, options: Mapping[str, Any], name: str, shape: Shape) -> torch.nn.Parameter | Derived:
        """What the function `custom` makes of other parameters."""
        other = options.get("reuse_layer")
        reused = ParamsView(other, scope_of(self.net, other, self.path), self.owner) if other else None
        scope = self.owner.scope
        if scope is None:
            raise ConfigError(self.path, "reuse_params: the layer has no parameters")
        base = ParamsView(self.owner.name, scope, self.owner)
        wrap, unwrap = _wrappers(self.owner)

        def getter(name: str = name, shape: Shape = shape, init: Any = "glorot_uniform", **_: Any) -> Any:
            return wrap(scope.own(name.removeprefix(f"{scope.prefix}/"), tuple(shape), init))

        def value() -> torch.Tensor:
            made = options["custom"](
                base_layer=base, reuse_layer=reused, name=name, full_name=scope.full_name(name), shape=shape,
                dtype="float32", getter=getter,
            )  # fmt: skip
            return unwrap(made)  # type: ignore[no-any-return]

        first = value()
        if isinstance(first, torch.nn.Parameter):
            return first
        if not isinstance(first, torch.Tensor) or tuple(first.shape) != shape:
            what = f"a tensor of shape {tuple(first.shape)}" if isinstance(first, torch.Tensor) else repr(first)
            raise ConfigError(
                self.path, f"reuse_params: `custom` must give {name!r} with shape {shape}, but gives {what}"
            )
        return Derived(torch.nn.Parameter(torch.zeros(shape), requires_grad=False), value=value)

    def waits(self) -> bool:
        """Whether a layer whose parameters are shared is under construction itself."""
        asking = self.net.shared.asking
        return any((net, inner) in asking for net, inner in (resolve(self.net, n) for n in self.layers))


class ParamsView:
    """A layer as `custom` functions see it: `name`, and `params` by name."""

    def __init__(self, name: str, scope: ParamScope, owner: Layer) -> None:
        self.name = name
        self._scope = scope
        self._owner = owner

    @property
    def params(self) -> dict[str, Any]:
        """The parameters by name."""
        wrap, _ = _wrappers(self._owner)
        return {n: wrap(p) for n, p in self._scope.used.items()}


def _wrappers(owner: Layer) -> tuple[Any, Any]:
    """How config code wants to see tensors, and the way back."""
    names = owner.context.eval_names
    return names.get("as_tf_tensor", _unchanged), names.get("as_plain_tensor", _unchanged)


def _unchanged(x: Any) -> Any:
    return x


def _as_dict(options: Any) -> Mapping[str, Any]:
    return {"reuse_layer": options} if isinstance(options, str) else options


def reuse_function(options: Any, net: Net, path: str, owner: Layer) -> Reuse | None:
    """The option `reuse_params` of a layer.

    Forms: "layer"; {"reuse_layer": "layer", "auto_create_missing": bool}; {"map": {"W": "layer" | None | dict}};
    {"layer_output": "layer", "shape": Dims}; {"custom": function, "reuse_layer": "layer"}.
    """
    if not options:
        return None
    if not isinstance(options, (str, Mapping)):
        raise ConfigError(path, f"reuse_params: must be a layer name or a dict, but is {options!r} instead")
    return Reuse(net, path, dict(_as_dict(options)), owner)


def resolve(net: Net, name: str) -> tuple[Net, str]:
    """The net that owns a layer, and its name there: "base:" goes up, "sub/inner" down."""
    while name.startswith("base:") and net.parent is not None:
        net, name = net.parent, name[len("base:") :]
    outer, _, inner = name.partition("/")
    if inner and outer in net.subnets and name not in net.descriptions:
        return resolve(net.subnets[outer], inner)
    return net, name


def scope_of(net: Net, name: str, path: str) -> ParamScope:
    """The parameters of a layer, made now if they do not exist yet."""
    if "/" in name and not name.startswith("base:"):
        net.get(name.partition("/")[0])
    owner, inner = resolve(net, name)
    node = owner.get(inner)
    if not node.built:
        node.build()
    if node.layer.scope is None:
        raise ConfigError(path, f"reuse_params: layer {name!r} has no parameters")
    return node.layer.scope


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
