"""`reuse_params`: parameters of a layer taken from other layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from returnn_lite.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from returnn_lite.network.construct import Net

Reuse = Callable[[str], "torch.nn.Parameter | None"]
_KEYS = ("reuse_layer", "map", "auto_create_missing")


def reuse_function(options: Any, net: Net, path: str) -> Reuse | None:
    """Maps a parameter name to the shared parameter, or to None where the layer makes its own.

    Forms: "layer"; {"reuse_layer": "layer", "auto_create_missing": bool}; {"map": {"W": "layer" | None | dict}}.
    Raises ConfigError for unknown layers and missing parameters.
    """
    if not options:
        return None
    if isinstance(options, str):
        options = {"reuse_layer": options}
    for key in options:
        if key not in _KEYS:
            raise ConfigError(path, f"reuse_params: unknown entry {key!r}{did_you_mean(key, _KEYS)}")
    create = bool(options.get("auto_create_missing"))
    if "map" in options:
        return _by_map(dict(options["map"]), create, net, path)
    return _whole(options["reuse_layer"], create, net, path)


def _whole(layer: str, create: bool, net: Net, path: str) -> Reuse:
    def find(name: str) -> torch.nn.Parameter | None:
        scope = net.get(layer).layer.scope
        shared = scope.used.get(name) if scope is not None else None
        if shared is None and not create:
            have = ", ".join(scope.used) if scope is not None else ""
            raise ConfigError(path, f"reuse_params: layer {layer!r} has no parameter {name!r}; it has: {have or 'none'}")
        return shared

    return find


def _by_map(entries: dict[str, Any], create: bool, net: Net, path: str) -> Reuse:
    def find(name: str) -> torch.nn.Parameter | None:
        if name not in entries:
            if create:
                return None
            raise ConfigError(path, f"reuse_params: parameter {name!r} is not in the map {sorted(entries)}")
        entry = entries[name]
        inner = reuse_function(entry, net, path)
        return inner(name) if inner is not None else None

    return find
