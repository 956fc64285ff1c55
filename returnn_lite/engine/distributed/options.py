"""The option `torch_distributed`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import torch.distributed

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean

KEY = "torch_distributed"
KEYS = ("backend", "timeout_sec", "reduce_type", "param_sync_step", "sync_on_cpu", "class", "options", "data")
REDUCE_TYPES = ("grad", "grad_explicit", "param")
DDP = ("ddp", "DistributedDataParallel", "torch.nn.parallel.DistributedDataParallel")
FSDP = ("fsdp", "fully_shard", "torch.distributed.fsdp.fully_shard")
TIMEOUT = 1800.0  # seconds
SHARES = ("whole", "shares")


@dataclass(frozen=True)
class DistributedOptions:
    """How processes train together.

    `reduce_type`: "grad" averages gradients while they are computed, "grad_explicit" afterwards, "param" averages
    parameters every `sync_step` steps (`sync_on_cpu`: on the CPU). `sharded`: each process holds a part of every
    parameter. `wrapper` are the options of torch's DistributedDataParallel or fully_shard. `backend` None: by the
    device. `shares`: each process has its share of the epoch's sequences, else all of them in an order of its own.
    """

    backend: str | None = None
    timeout: timedelta = timedelta(seconds=TIMEOUT)
    reduce_type: str = "grad_explicit"
    sync_step: int = 0
    sync_on_cpu: bool = False
    sharded: bool = False
    wrapper: ConfigDict = field(default_factory=dict)
    shares: bool = True

    @classmethod
    def from_config(cls, config: Config) -> DistributedOptions:
        """By the config. Raises ConfigError for what is unknown or does not go together."""
        value = config.literal(KEY, None)
        if value is None:
            return cls()
        if not isinstance(value, Mapping):
            raise ConfigError(KEY, f"must be a dict or None, but is {value!r} instead")
        for key in value:
            if key not in KEYS:
                hint = did_you_mean(str(key), KEYS)
                raise ConfigError(_path(key), f"unknown option{hint}; options: {', '.join(KEYS)}")
        reduce_type = _one_of(value, "reduce_type", REDUCE_TYPES, "grad")
        sharded = _is_sharded(value.get("class"))
        _check_together(value, reduce_type, sharded)
        return cls(
            backend=_backend(value.get("backend")),
            timeout=timedelta(seconds=_positive(value, "timeout_sec", TIMEOUT)),
            reduce_type=reduce_type,
            sync_step=int(_positive(value, "param_sync_step", 1)) if reduce_type == "param" else 0,
            sync_on_cpu=bool(value.get("sync_on_cpu", False)),
            sharded=sharded,
            wrapper=_wrapper(value),
            shares=_one_of(value, "data", SHARES, "whole") == "shares",
        )


def _path(key: object) -> str:
    return f'{KEY}["{key}"]'


def _one_of(value: ConfigDict, key: str, known: tuple[str, ...], default: str) -> str:
    found = value.get(key) or default
    if found not in known:
        names = ", ".join(f'"{name}"' for name in known)
        hint = did_you_mean(str(found), known)
        raise ConfigError(_path(key), f"must be one of {names}, but is {found!r} instead{hint}")
    return str(found)


def _positive(value: ConfigDict, key: str, default: float) -> float:
    """A number of the same kind as the default (whole numbers are seconds, too)."""
    found = value.get(key, default)
    number = isinstance(found, int) or isinstance(found, float) and isinstance(default, float)
    if not number or isinstance(found, bool) or found <= 0:
        kind = "number" if isinstance(default, float) else "whole number"
        raise ConfigError(_path(key), f"must be a {kind} greater than 0, but is {found!r} instead")
    return float(found)


def _is_sharded(wanted: ConfigValue) -> bool:
    """Whether `class` asks for parameters that are shared out; ConfigError if it is no known class."""
    name = wanted if wanted is None or isinstance(wanted, str) else getattr(wanted, "__name__", repr(wanted))
    if name is None or name in DDP:
        return False
    if name in FSDP:
        return True
    known = ("ddp", "fsdp", *DDP[1:], *FSDP[1:])
    text = f'must be "ddp" (DistributedDataParallel) or "fsdp" (fully_shard), but is {name!r} instead'
    raise ConfigError(_path("class"), text + did_you_mean(str(name), known))


def _check_together(value: ConfigDict, reduce_type: str, sharded: bool) -> None:
    """ConfigError for options that have no meaning beside each other."""
    only = {"class": "grad", "options": "grad", "param_sync_step": "param", "sync_on_cpu": "param"}
    for key, wanted in only.items():
        if value.get(key) and reduce_type != wanted:
            text = f'only with "reduce_type": "{wanted}", but that is "{reduce_type}"'
            raise ConfigError(_path(key), text)
    if reduce_type == "param" and "param_sync_step" not in value:
        raise ConfigError(_path("param_sync_step"), 'must be set with "reduce_type": "param": steps between averages')
    if sharded and value.get("find_unused_parameters"):
        raise ConfigError(_path("options"), "find_unused_parameters is not an option of fully_shard")


def _wrapper(value: ConfigDict) -> ConfigDict:
    found = value.get("options") or {}
    if not isinstance(found, Mapping):
        raise ConfigError(_path("options"), f"must be a dict, but is {found!r} instead")
    return dict(found)


def _backend(value: ConfigValue) -> str | None:
    """A torch backend ("gloo"), or one by device ("cpu:gloo,cuda:nccl"). ConfigError where torch lacks it."""
    if value is None:
        return None
    known = [name for name in torch.distributed.Backend.backend_list if name != "undefined"]
    for part in str(value).split(","):
        name = part.rpartition(":")[2].strip()
        if name not in known:
            text = f"unknown backend {name!r}{did_you_mean(name, known)}; this build of torch has {', '.join(known)}"
            raise ConfigError(_path("backend"), text)
        if not torch.distributed.is_backend_available(name):
            raise ConfigError(_path("backend"), f'"{name}" is not in this build of torch; use "gloo" for CPUs')
    return str(value)
