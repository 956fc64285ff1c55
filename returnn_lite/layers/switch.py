"""Choosing between two tensors: `switch`."""

from __future__ import annotations

from typing import Any

import torch

from returnn_lite.config_value import ConfigOptions
from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.context import Surroundings
from returnn_lite.layers.core.registry import layer
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.align import common, joined, place
from returnn_lite.tensor.tensor import DTYPES

_BRANCHES = ("true_from", "false_from")


@layer("switch")
class Switch(Layer):
    """`true_from` where `condition` is True, else `false_from`.  Shape: (B, T), (B, T, F), (B, F) -> (B, T, F)

    The branches are layers or numbers. A condition that is a bool, or a function returning one, decides at
    construction: the other branch is not built.
    """

    sources = "none"

    def __init__(self, *, condition: LayerRef, true_from: LayerRef | float, false_from: LayerRef | float) -> None:
        super().__init__()
        self.condition = condition
        self.true_from = true_from
        self.false_from = false_from

    @classmethod
    def prepare(cls, description: ConfigOptions, net: Surroundings) -> ConfigOptions:
        """A condition known now leaves one branch."""
        condition = description.get("condition")
        condition = condition() if callable(condition) else condition
        if not isinstance(condition, bool):
            return description
        chosen = description.get("true_from" if condition else "false_from")
        rest = {k: v for k, v in description.items() if k not in ("condition", *_BRANCHES, "from")}
        if isinstance(chosen, str):
            return {**rest, "class": "copy", "from": chosen}
        return {**rest, "class": "constant", "value": chosen}

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The common layout; dtype and classes of the true branch, else of the false one."""
        layers = [refs[b] for b in _BRANCHES if b in refs]
        known = [s for s in layers if s is not None]
        condition = refs["condition"]
        if layers and not known or condition is None and not known:
            return None
        if len(known) == 2:
            self._check(known[0], known[1])
        layout = common(tuple(s for s in (*known, condition) if s is not None), self.behavior)
        typed = known[0] if known else None
        if typed is None:
            return layout.with_dtype(_dtype_of(self.true_from))
        out = layout.with_dtype(typed.dtype, typed.sparse_dim)
        if out.feature is None and typed.feature is not None and typed.dims[typed.feature] in out.dims:
            out = out.roles(feature=typed.dims[typed.feature])
        return out

    def _check(self, true: Spec, false: Spec) -> None:
        if true.dtype != false.dtype or true.sparse != false.sparse:
            raise self.error(f"both branches must have one dtype, and classes or none, but are {true} and {false}")

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The selected values."""
        spec = self.made_spec(**{k: r.spec for k, r in refs.items()})
        condition = place(refs["condition"], spec, self.behavior)
        dtype = DTYPES[spec.dtype]
        values = []
        for branch in _BRANCHES:
            if branch in refs:
                values.append(place(refs[branch], spec, self.behavior))
            else:
                values.append(torch.full((), getattr(self, branch), dtype=dtype, device=condition.device))
        true, false = values
        return joined(torch.where(condition, true, false), spec, list(refs.values()))


def _dtype_of(value: Any) -> str:
    return "bool" if isinstance(value, bool) else "int32" if isinstance(value, int) else "float32"
