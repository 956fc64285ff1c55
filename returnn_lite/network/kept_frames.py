"""Layers in loops whose frames somebody outside asks for by a name like "output/att_weights"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from returnn_lite.config_value import ConfigDict, ConfigValue, NetDict


def with_kept_frames(description: NetDict, names: Iterable[str]) -> NetDict:
    """The description with `is_output_layer` set on those of the layers that stand in a loop.

    Without it a layer that runs tick by tick can't be read from outside. Names of other layers, or of none, change
    nothing.
    """
    for name in names:
        description = _kept(description, name.split("/"))
    return description


def _kept(description: NetDict, path: list[str]) -> NetDict:
    """The same for one layer; what is on the way to it is copied."""
    nets: list[tuple[ConfigDict, str]] = []  # of every sub-network on the way: its layer, the option that holds it
    net: ConfigValue = description
    for name in path[:-1]:
        layer = net.get(name)
        option = _net_option(layer)
        if option is None:
            return description
        nets.append((layer, option))
        net = layer[option]
    if not nets or nets[-1][1] != "unit" or not isinstance(net.get(path[-1]), Mapping):
        return description
    changed: NetDict = {**net, path[-1]: {**net[path[-1]], "is_output_layer": True}}
    outer: list[NetDict] = [description, *(layer[option] for layer, option in nets[:-1])]
    for name, (layer, option), around in zip(path[-2::-1], nets[::-1], outer[::-1], strict=True):
        changed = {**around, name: {**layer, option: changed}}
    return changed


def _net_option(layer: ConfigValue) -> str | None:
    """The option of a layer that holds the dict of its sub-network; "unit": that of a loop."""
    options = ("unit", "subnetwork") if isinstance(layer, Mapping) else ()
    return next((option for option in options if isinstance(layer.get(option), Mapping)), None)
