"""Axes of another language: what stands for a `Dim` in the words of configs, and how layers get the `Dim` itself."""

from __future__ import annotations

from collections.abc import Mapping

from returnn_lite.config_value import ConfigValue
from returnn_lite.tensor.dim import Dim

LEVELS = 6  # of structures in the options of a layer


class ForeignDim:
    """An axis object that is no `Dim` but stands for one, `core`."""

    __slots__ = ()

    @property
    def core(self) -> Dim:
        """The `Dim`; always the same object."""
        raise NotImplementedError


def with_core_dims(value: ConfigValue, levels: int = LEVELS) -> ConfigValue:
    """The value with the `Dim` in place of each foreign axis, in dicts, lists, tuples and sets.

    What holds none is returned as it is. `levels`: how deep is looked; nets within nets look for themselves.
    """
    if isinstance(value, ForeignDim):
        return value.core
    if levels == 0 or not isinstance(value, Mapping | list | tuple | set | frozenset):
        return value
    if isinstance(value, Mapping):
        pairs = [(with_core_dims(key, levels - 1), with_core_dims(item, levels - 1)) for key, item in value.items()]
        same = all(a is k and b is v for (a, b), (k, v) in zip(pairs, value.items(), strict=True))
        return value if same else dict(pairs)
    items = [with_core_dims(item, levels - 1) for item in value]
    if all(a is b for a, b in zip(items, value, strict=True)):
        return value
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
