"""The network of each epoch: its description, its construction, and taking over parameters from the previous one."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy
import torch

from returnn_lite.config import Config
from returnn_lite.engine.load_on_init import load_on_init
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.network import Network

COPY_MODES = (None, "ifpossible", "reset")


def describe_network(config: Config, epoch: int) -> dict[str, Any]:
    """The net dict of `epoch`, from `get_network(epoch=…)` or `network`; raises ConfigError if there is none."""
    if config.bool_or_other("pretrain", None):
        raise ConfigError("pretrain", "pretraining is not supported yet; `get_network` is")
    get_network = config.typed_value("get_network")
    if callable(get_network):
        description = get_network(epoch=epoch)
    else:
        description = config.typed_value("network")
    if not isinstance(description, dict):
        name = "get_network" if callable(get_network) else "network"
        raise ConfigError(name, f"`{name}` must be a dict of layers, but is {description!r} instead")
    return description


def network_seed(config: Config, epoch: int) -> int:
    """The seed of everything random in the network during `epoch` (initial values, dropout, …)."""
    seed = config.int("random_seed", None)
    return epoch if seed is None else (3 * epoch + 5 * seed + 7) % 2**31


def build_network(
    config: Config,
    description: dict[str, Any],
    *,
    epoch: int,
    device: torch.device,
    log: Log,
    search: bool = False,
    eval: bool = True,
    extra_layers: tuple[str, ...] = (),
) -> Network:
    """Constructs the network with initial values that depend on the seed of `epoch` alone, on `device`."""
    seed = network_seed(config, epoch)
    net = Network(config, description, search=search, eval=eval, log=log, seed=seed, extra_layers=extra_layers)
    net.loaded_on_init = load_on_init(net.params, net.layer_modules, log)
    net.to(device)
    start_epoch(net, config, epoch)
    return net


def start_epoch(net: Network, config: Config, epoch: int) -> None:
    """Seeds everything random in the network, so that an epoch does not depend on what was run before it."""
    net.context.epoch = epoch
    net.seed(network_seed(config, epoch))


def print_network(net: Network, log: Log) -> None:
    """The layers and the number of parameters (verbosity 2)."""
    specs = net.extern_data.specs
    log.v2("Network layer topology:")
    log.v2(f"  extern data: {', '.join(f'{key}: {specs[key]}' for key in sorted(specs))}")
    log.v2(f"  used data keys: {sorted(net.used_data_keys)}")
    log.v2("  layers:")
    for name, layer in sorted(net.layers.items()):
        if name != "data" and not name.startswith("data:"):
            log.v2(f"    layer {layer.class_name} {name!r} #: {net.spec(name).dim}")
    log.v2(f"net params #: {sum(param.numel() for param in net.params.values())}")
    log.v2(f"net trainable params: {sorted(name for name, param in net.params.items() if param.requires_grad)}")


def same_description(a: Any, b: Any) -> bool:
    """Deep equality of net descriptions; functions count as equal only if they are the same object."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_description(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and type(a) is type(b):
        return len(a) == len(b) and all(map(same_description, a, b))
    if isinstance(a, (numpy.ndarray, torch.Tensor)) or isinstance(b, (numpy.ndarray, torch.Tensor)):
        return type(a) is type(b) and a.shape == b.shape and bool((a == b).all())
    return bool(a is b or (type(a) is type(b) or not callable(a)) and a == b)


def description_diff(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """One line for every entry that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}, key=str):
            where = f"{path}[{key!r}]"
            if key not in new:
                yield f"{where} removed"
            elif key not in old:
                yield f"{where} added: {new[key]!r}"
            else:
                yield from description_diff(old[key], new[key], where)
    elif not same_description(old, new):
        yield f"{path}: {old!r} -> {new!r}"


def take_over_params(old: Any, new: Any, mode: str | None, log: Log) -> None:
    """Copies the parameters that both networks have under one name and in one shape; others stay as initialised."""
    if mode not in COPY_MODES:
        text = f"must be one of {COPY_MODES}, but is {mode!r} instead (not supported yet)"
        raise ConfigError('network["#copy_param_mode"]', text)
    if mode == "reset":
        return
    with torch.no_grad():
        for name, param in new.params.items():
            before = old.params.get(name)
            if before is None:
                continue
            if before.shape == param.shape:
                param.copy_(before)
            else:
                log.v3(f"Will not set param {name!r} because its shape {list(before.shape)} != {list(param.shape)}.")


class EpochOverrides:
    """The `#config` entry of a net description: options that hold for its epochs only."""

    def __init__(self, config: Config, log: Log) -> None:
        self.config, self.log = config, log
        self._saved: dict[str, tuple[Any, bool]] = {}

    def apply(self, epoch: int, overrides: Mapping[str, Any]) -> set[str]:
        """Sets these options and restores those of the previous epoch; returns the options whose value changed."""
        before = {key: self.config.typed_value(key) for key in {*self._saved, *overrides}}
        for key, (value, typed) in self._saved.items():
            if typed:
                self.config.set(key, value)
            else:
                self.config.typed.pop(key)
        self._saved = {}
        for key, value in overrides.items():
            if not self.config.has(key):
                path = f'network["#config"]["{key}"]'
                raise ConfigError(path, f"`{key}` must be an option of the config, but there is none")
            old = self.config.opt_typed_value(key)
            self.log.v3(f"Update config key {key!r} for epoch {epoch}: {old!r} -> {value!r}")
            self._saved[key] = (old, self.config.is_typed(key))
            self.config.set(key, value)
        return {key for key, value in before.items() if not same_description(value, self.config.typed_value(key))}
