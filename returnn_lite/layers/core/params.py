"""Named parameters: one store for the whole network, a scope of it for every layer."""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from returnn_lite.config.config_code import code_place
from returnn_lite.config.option_types import shortened
from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.init import InitialValue, initializer

Shape = tuple[int, ...]


@dataclass
class ParamOptions:
    """What others need to know of a parameter: its layer's `updater_opts`, and the sum of `L2` over its owner.

    `blocks`: for each axis the sizes of the blocks that it consists of (sources, gates); None: one block an axis.
    `counted`: the layer itself changes it, in place, as running statistics.
    """

    updater_opts: Mapping[str, Any] | None = None
    l2: float = 0.0
    blocks: tuple[Shape, ...] | None = None
    critical: bool = True  # a model file must have it
    counted: bool = False


@dataclass(frozen=True)
class ParamOwner:
    """What has a parameter: `name` and class of a layer, such as "conv"; `sparse_input`: whether it looks up rows.

    `classes`: names of the class and its bases, where `module` is one of torch.
    """

    name: str
    kind: str
    sparse_input: bool
    module: Any
    classes: frozenset[str] = frozenset()

    @classmethod
    def of_torch(cls, name: str, module: torch.nn.Module) -> ParamOwner:
        """A module of torch: LayerNorm is a "layer_norm", Conv1d a "conv". Classes of the frontend are "rf.…"."""
        inner = getattr(module, "rf_module", None)  # a module of the frontend in one of torch
        kind = type(module if inner is None else inner)
        bases = [base.__name__ for base in kind.__mro__]
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", re.sub(r"\d+d$", "", bases[0])).lower()
        known = bases if inner is None else [f"rf.{base}" for base in bases]
        return cls(name, words, "Embedding" in bases, module, frozenset(known))


@dataclass
class ParamStore:
    """All parameters of a network by their full names ("lstm/rec/W"), in construction order."""

    generator: torch.Generator
    params: dict[str, torch.nn.Parameter] = field(default_factory=dict)
    options: dict[str, ParamOptions] = field(default_factory=dict)

    def get(
        self, name: str, shape: Shape, init: InitialValue, *, trainable: bool, dtype: torch.dtype, path: str
    ) -> torch.nn.Parameter:
        """The parameter of this name, made and initialised at its first use. Raises ConfigError if its shape is
        another.
        """
        found = self.params.get(name)
        if found is None:
            values = _initial_values(name, shape, init, self.generator, dtype, path)
            trains = trainable and dtype.is_floating_point
            found = self.params[name] = torch.nn.Parameter(values, requires_grad=trains)
            self.options[name] = ParamOptions()
        elif tuple(found.shape) != tuple(shape):
            text = (
                f"parameter {name!r} is shared and must have shape {tuple(shape)}, but is {tuple(found.shape)} instead"
            )
            raise ConfigError(path, text)
        return found


def _initial_values(
    name: str, shape: Shape, init: InitialValue, generator: torch.Generator, dtype: torch.dtype, path: str
) -> torch.Tensor:
    """The values that a parameter begins with; ConfigError where the machine has no memory for them."""
    entries = math.prod(shape)
    text = f"parameter {name!r} has the shape {tuple(shape)}, which is {entries:.3g} numbers, more than fit into memory"
    if entries * dtype.itemsize > _memory():
        raise ConfigError(path, text)
    try:
        return initializer(init, path=path)(shape, generator, dtype)
    except ConfigError:
        raise
    except Exception as exc:  # of torch, which has no memory, or of a function of the config
        place = code_place(exc.__traceback__)
        where = f"{place[0].f_code.co_filename}:{place[1]}: " if place is not None else ""
        why = f"{where}{type(exc).__name__}: {(str(exc).splitlines() or [''])[0]}"
        failed = f"the initial values {shortened(init)} of parameter {name!r} cannot be made"
        raise ConfigError(path, f"{text if 'memory' in str(exc) else failed}: {why}") from exc


@functools.cache
def _memory() -> float:
    """Bytes of the machine's memory; infinite where the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if hasattr(os, "sysconf") else math.inf
    except (ValueError, OSError):
        return math.inf


@dataclass
class Derived:
    """A parameter that is computed anew in every run: by `value`, or as the output of `node`, its axes in `order`.

    In the layer `placeholder` stands for it.
    """

    placeholder: torch.nn.Parameter
    value: Callable[[], torch.Tensor] | None = None
    node: Any = None
    order: tuple[int, ...] = ()


Reuse = Callable[[str, Shape], "torch.nn.Parameter | Derived | None"]


@dataclass
class ParamScope:
    """The part of the store that belongs to one layer.

    `reuse` gives the parameters that come from elsewhere by name and shape. `owned`: those of the layer itself;
    `used`: all.
    """

    store: ParamStore
    prefix: str
    path: str
    trainable: bool = True
    updater_opts: Mapping[str, Any] | None = None
    reuse: Reuse | None = None
    owned: dict[str, torch.nn.Parameter] = field(default_factory=dict)
    derived: dict[str, Derived] = field(default_factory=dict)
    used: dict[str, torch.nn.Parameter] = field(default_factory=dict)

    def full_name(self, name: str) -> str:
        """Scope and name joined by "/"."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def get(
        self,
        name: str,
        shape: Shape,
        init: InitialValue = 0.0,
        *,
        trainable: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> torch.nn.Parameter:
        """The parameter `name` of this layer: shared from another layer if `reuse_params` says so, else its own."""
        shared = self.reuse(name, tuple(shape)) if self.reuse is not None else None
        if isinstance(shared, Derived):
            self.derived[name] = shared
            shared = shared.placeholder
        if shared is not None:
            if tuple(shared.shape) != tuple(shape):
                text = f"reuse_params: {name!r} must have shape {tuple(shape)}, but is {tuple(shared.shape)} instead"
                raise ConfigError(self.path, text)
            self.used[name] = shared
            return shared
        return self.own(name, shape, init, trainable=trainable, dtype=dtype)

    def own(
        self,
        name: str,
        shape: Shape,
        init: InitialValue = 0.0,
        *,
        trainable: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> torch.nn.Parameter:
        """The layer's own parameter of this name, made at its first use."""
        full = self.full_name(name)
        trains = trainable and self.trainable
        found = self.store.get(full, shape, init, trainable=trains, dtype=dtype, path=self.path)
        self.store.options[full].counted |= not trainable
        if self.store.options[full].updater_opts is None:
            self.store.options[full].updater_opts = self.updater_opts
        self.owned[name] = self.used[name] = found
        return found
