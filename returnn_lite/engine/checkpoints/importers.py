"""`custom_param_importer` of layers: how their parameters are taken from the model file of another network."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from returnn_lite.engine.checkpoints.checkpoint import read_model
from returnn_lite.engine.models.model import Model
from returnn_lite.engine.models.take_over import copy_blocks
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log

MODES = ("reset", "ifpossible", "subset")


def import_params(net: Model, filename: str, log: Log, *, done: Collection[str] = ()) -> set[str]:
    """Takes over what layers with the option want from the file; returns the names of all their parameters.

    "reset": nothing; "ifpossible": what has the same shape; "subset": as much of each parameter as both have.
    Those in `done` have their values already.
    """
    modes = {name: mode for layer in net.layer_modules for name, mode in _modes(layer).items() if name not in done}
    if not modes:
        return set()
    file = read_model(filename)
    with torch.no_grad():
        for name, mode in modes.items():
            taken = name in file and _import(net.params[name], file[name], mode, net.param_options[name].blocks)
            log.v3(
                f"custom_param_importer {mode!r}: {name} {'taken from the file' if taken else 'stays as initialised'}"
            )
    return set(modes)


def _modes(layer: Any) -> dict[str, str]:
    """{full name: mode} of the layer's own parameters, if it has the option."""
    mode = layer.options.custom_param_importer
    if mode is None or layer.scope is None:
        return {}
    if mode not in MODES:
        hint = did_you_mean(mode, MODES) if isinstance(mode, str) else ""
        words = ", ".join(f'"{word}"' for word in MODES)
        text = f"`custom_param_importer` must be one of {words} (functions are not supported), but is {mode!r} instead"
        raise ConfigError(f'{layer.path}["custom_param_importer"]', text + hint)
    return {layer.scope.full_name(name): mode for name in layer.scope.owned}


def _import(param: torch.Tensor, value: torch.Tensor, mode: str, blocks: Any) -> bool:
    """Copies one value; whether there was something to copy."""
    if mode == "reset":
        return False
    if param.shape == value.shape:
        param.copy_(value)
        return True
    if mode == "subset" and param.dim() == value.dim():
        copy_blocks(value.to(param), param, _as_many(blocks, value), blocks)
        return True
    return False


def _as_many(blocks: Any, value: torch.Tensor) -> Any:
    """The blocks of the file's array: as many as the net's parameter has where they are alike (gates), else one."""
    if blocks is None:
        return None
    pairs = zip(blocks, value.shape, strict=True)
    return tuple((n // len(b),) * len(b) if len(set(b)) == 1 and n % len(b) == 0 else (n,) for b, n in pairs)
