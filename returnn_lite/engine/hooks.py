"""Functions of a config that are called around a training's epochs, and after a model was loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from returnn_lite.config import Config
from returnn_lite.config.config_code import call
from returnn_lite.config_value import ConfigFunction
from returnn_lite.engine.models.model import Model
from returnn_lite.engine.precision import float_dtype, floats_by_default
from returnn_lite.errors import ConfigError
from returnn_lite.ops.precision import lowered

EPOCH_START, EPOCH_END, AFTER_LOAD = "epoch_start", "epoch_end", "load_model_post_hooks"
# Functions must take any further keyword: a name that nobody asks for finds those which do not.
FURTHER = {"__fwd_compat_random_arg_000": None}


class EpochHooks:
    """`epoch_start` and `epoch_end`: called by `epoch`, `step` (steps so far), `model` and `dataset_name` around the
    training of an epoch ("train") and around each evaluation. ConfigError for what is no function."""

    def __init__(self, config: Config) -> None:
        self.start, self.end = (_function(config, name) for name in (EPOCH_START, EPOCH_END))

    @contextmanager
    def around(self, net: Model, dataset: str, epoch: int, step: int) -> Iterator[None]:
        """Calls them before and after; `net.global_step` is the step of the end. Not after an error."""
        _call(self.start, EPOCH_START, net, dataset, epoch, step)
        yield
        _call(self.end, EPOCH_END, net, dataset, epoch, max(step, net.global_step))


def user_model(net: Model) -> Any:  # Any: whatever `get_model` of a config returned
    """What a config knows the model as: what its `get_model` returned, or the net of layers."""
    return getattr(net, "user_model", net)


def after_load(config: Config, net: Model) -> None:
    """Calls the functions of `load_model_post_hooks` by `model`."""
    hooks = config.typed_value(AFTER_LOAD, None) or []
    if callable(hooks) or not isinstance(hooks, list | tuple) or not all(callable(hook) for hook in hooks):
        raise ConfigError(AFTER_LOAD, f"must be a list of functions, but is {hooks!r} instead")
    for i, hook in enumerate(hooks):
        with torch.no_grad(), floats_by_default(float_dtype(config)), lowered(net.device, net.autocast):
            call(hook, f"{AFTER_LOAD}[{i}]", model=user_model(net), **FURTHER)


def _function(config: Config, name: str) -> ConfigFunction | None:
    value = config.typed_value(name, None)
    if value is not None and not callable(value):
        raise ConfigError(name, f"must be a function, but is {value!r} instead")
    return value  # type: ignore[no-any-return]


def _call(function: ConfigFunction | None, name: str, net: Model, dataset: str, epoch: int, step: int) -> None:
    if function is not None:
        known = {"epoch": epoch, "step": step, "model": user_model(net), "dataset_name": dataset}
        call(function, name, **known, **FURTHER)
