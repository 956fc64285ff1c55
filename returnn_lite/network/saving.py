"""A network as `pickle`, `copy.deepcopy` and `torch.save` see it: what it was made from, and what it has learned."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, TypedDict

import torch

from returnn_lite.config import Config
from returnn_lite.config_value import EvalNames
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.context import Context

MakeEvalNames = Callable[[Context], EvalNames]
KEPT = ("global_step", "epoch", "dataset_name", "epoch_start", "tick_offset")  # of the context


@dataclass(frozen=True)
class Origin:
    """What a network is made from; made again of it, it is the same but for what it has learned."""

    config: Config
    description: Mapping[str, Any]
    search: bool
    evaluates: bool
    eval_names: MakeEvalNames | None
    seed: int
    extra_layers: tuple[str, ...]

    def portable(self) -> Origin:
        """For a file: without the settings that no file can hold, as modules and functions of a config file."""
        config = Config({k: v for k, v in self.config.typed.items() if _is_portable(k, v)})
        config.untyped = dict(self.config.untyped)
        return replace(self, config=config, eval_names=self.eval_names or self.config.eval_names)


class Learned(TypedDict):
    """What a network has learned: `params`: values, and whether they are trained, by name; `training`: the flag of each
    layer; `memories`: what each remembers; `context`: counters; `random`: device and state of the generator."""

    params: dict[str, tuple[torch.Tensor, bool]]
    training: list[bool]
    memories: list[dict[str, Any]]
    context: dict[str, Any]
    random: tuple[str, torch.Tensor]


class NetworkState(Learned):
    """The same, and plain attributes of the network."""

    plain: dict[str, Any]


def _is_portable(key: str, value: Any) -> bool:
    """Whether a setting of a config can be saved."""
    if key.startswith("__") or isinstance(value, (ModuleType, Config)):
        return False
    try:
        pickle.dumps(value)
    except Exception:  # pickle and the values raise what they like
        return False
    return True


def learned(params: Mapping[str, torch.nn.Parameter], context: Context, layers: tuple[Layer, ...]) -> Learned:
    """What is not in the origin: parameters, flags, counters, random numbers, what layers remember."""
    return {
        "params": {name: (p.detach(), p.requires_grad) for name, p in params.items()},
        "training": [layer.training for layer in layers],
        "memories": [{name: getattr(layer, name) for name in layer.remembers} for layer in layers],
        "context": {name: getattr(context, name) for name in KEPT},
        "random": (str(context.generator.device), context.generator.get_state()),
    }


def relearn(
    state: Learned,
    params: Mapping[str, torch.nn.Parameter],
    context: Context,
    layers: tuple[Layer, ...],
) -> None:
    """Sets what `learned` gives."""
    for name, (values, trains) in state["params"].items():
        params[name].data = values
        params[name].requires_grad_(trains)
    for layer, training, memory in zip(layers, state["training"], state["memories"], strict=True):
        layer.training = training
        for name, value in memory.items():
            setattr(layer, name, value)
    for name, value in state["context"].items():
        setattr(context, name, value)
    device, random_state = state["random"]
    if str(context.generator.device) == device:  # else they are others on this device
        context.generator.set_state(random_state)
