"""Other tensors in the place of parameters while the network runs: noise, weight dropout, computed parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.layers.batch_statistics import BatchStatistics
from returnn_lite.layers.core.base import Layer

Slot = tuple[dict[str, Any], str]  # a dict that holds a parameter, and the key


def slots(layer: Layer, param: torch.nn.Parameter) -> list[Slot]:
    """The places where a layer keeps this parameter: attributes, and dicts and statistics that are attributes."""
    return [(container, key) for container in containers(layer) for key, value in container.items() if value is param]


def containers(layer: Layer) -> Iterator[dict[str, Any]]:  # Any: attributes
    """The dicts in which a layer keeps tensors: attributes, and dicts and statistics that are attributes."""
    for module in layer.modules():
        plain = [v for v in vars(module).values() if type(v) is dict]
        plain += [vars(v) for v in vars(module).values() if isinstance(v, BatchStatistics)]
        yield from (vars(module), *plain)


@contextmanager
def substituted(replacements: Iterable[tuple[list[Slot], torch.Tensor]]) -> Iterator[None]:
    """These tensors stand in the slots until the context ends."""
    before = [(container, key, container[key]) for places, _ in replacements for container, key in places]
    try:
        for places, value in replacements:
            for container, key in places:
                container[key] = value
        yield
    finally:
        for container, key, value in before:
            container[key] = value


@dataclass
class Noisy:
    """A parameter with noise in training: plus normal(0, `noise`), times a mask of rate `dropout` (kept values scaled
    up).
    """

    param: torch.nn.Parameter
    noise: float
    dropout: float
    slots: list[Slot]

    def value(self, generator: torch.Generator, p: torch.Tensor | None = None) -> torch.Tensor:
        """The parameter with new noise; `p`: its values, where it does not hold them itself."""
        p = self.param if p is None else p
        if self.noise:
            p = p + self.noise * torch.randn(p.shape, generator=generator, device=p.device, dtype=p.dtype)
        if self.dropout:
            keep = 1.0 - self.dropout
            mask = torch.rand(p.shape, generator=generator, device=p.device, dtype=p.dtype) < keep
            p = p * (mask / keep)
        return p


class SubstitutedParams:
    """All parameters of a network that something else stands for during a run.

    `param_variational_noise`, `param_dropout`, `param_dropout_min_ndim`: options of layers, or of the config for all;
    `reuse_params` with functions. Raises ConfigError for a dropout rate outside [0, 1).
    """

    def __init__(self, layers: Iterable[Layer], config: Config) -> None:
        self.noisy: list[Noisy] = []
        self.computed: list[tuple[list[Slot], Any]] = []
        layers = [m for m in layers if m.scope is not None]
        found: dict[int, Noisy] = {}
        for layer in layers:
            self._add_noisy(layer, config, found)
            for derived in layer.scope.derived.values() if layer.scope is not None else ():
                if derived.value is not None:
                    self.computed.append((slots(layer, derived.placeholder), derived.value))
        for layer in layers:
            for param in layer.scope.used.values() if layer.scope is not None else ():
                if id(param) in found:
                    found[id(param)].slots += slots(layer, param)
        self.noisy = list(found.values())

    @staticmethod
    def _add_noisy(layer: Layer, config: Config, found: dict[int, Noisy]) -> None:
        options, scope = layer.options, layer.scope
        noise = _option(options.param_variational_noise, config, "param_variational_noise")
        dropout = _option(options.param_dropout, config, "param_dropout")
        axes = _option(options.param_dropout_min_ndim, config, "param_dropout_min_ndim")
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(layer.path, f"`param_dropout` must be in [0, 1), but is {dropout} instead")
        if scope is None or not (noise or dropout):
            return
        for param in scope.owned.values():
            if param.requires_grad and param.dtype.is_floating_point:
                rate = dropout if param.dim() >= axes else 0.0
                if noise or rate:
                    found[id(param)] = Noisy(param, noise, rate, [])

    @contextmanager
    def running(self, training: bool, generator: torch.Generator) -> Iterator[None]:
        """While the network runs: noise (in training), then what is computed from the parameters."""
        noisy = [(n.slots, n.value(generator)) for n in self.noisy] if training else []
        with substituted(noisy):
            computed = [(places, value()) for places, value in self.computed]
            with substituted(computed):
                yield


def _option(value: float | None, config: Config, name: str) -> float:
    """The layer's value, or that of the config."""
    return float(config.float(name, 0.0) or 0.0) if value is None else float(value)
