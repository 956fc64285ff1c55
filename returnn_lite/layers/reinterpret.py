"""Giving axes other roles, Dims or classes, the data unchanged: `reinterpret_data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from returnn_lite.config.option_types import PositiveInt
from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.reduce import has_int
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor, batch_dim
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axis as find_axis
from returnn_lite.tensor.dim import FEATURE

_ROLES = ("B", "T", "F")


Keep = Literal["keep"]


@layer("reinterpret_data")
class ReinterpretData(Layer):
    """The source with other roles, Dims or classes.  Shape: unchanged, but for `enforce_batch_major` / `_time_major`

    `switch_axes` "bt", "tf", …: two roles exchanged. `set_axes`: {"B" | "T" | "F": axis or None}. `size_base`: a layer
    whose dynamic axes these are, in order. `batch_dim_base`: a layer with the same batch. `set_dim_tags`: {axis: Dim}.
    `set_sparse`, `set_sparse_dim` (classes), `increase_sparse_dim` (more classes). Applied in this order.
    """

    def __init__(
        self,
        *,
        switch_axes: str | list[str] | None = None,
        size_base: LayerRef | None = None,
        batch_dim_base: LayerRef | None = None,
        set_axes: Mapping[str, AxisText] | None = None,
        set_dim_tags: Mapping[AxisText, Dim] | None = None,
        enforce_batch_major: bool = False,
        enforce_time_major: bool = False,
        set_sparse: bool | None = None,
        set_sparse_dim: PositiveInt | Dim | Keep | None = "keep",
        increase_sparse_dim: int | None = None,
    ) -> None:
        super().__init__()
        if enforce_batch_major and enforce_time_major:
            raise self.error("give either `enforce_batch_major` or `enforce_time_major`")
        self.roles = {str(k).upper()[:1]: v for k, v in (set_axes or {}).items()}
        if any(k not in _ROLES for k in self.roles):
            raise self.error(f'the keys of `set_axes` must be "B", "T", "F", but are {list(set_axes or ())} instead')
        if any(has_int(v) for v in self.roles.values()) and not (enforce_batch_major or enforce_time_major):
            raise self.error("a number in `set_axes` needs `enforce_batch_major` or `enforce_time_major`")
        self.switched = tuple(str(c).upper()[:1] for c in switch_axes or ())
        if self.switched and (len(self.switched) != 2 or any(c not in _ROLES for c in self.switched)):
            raise self.error(f'`switch_axes` must name two roles such as "bt", but is {switch_axes!r} instead')
        self.size_base = size_base
        self.batch_dim_base = batch_dim_base
        self.dim_tags = dict(set_dim_tags or {})
        self.first = "B" if enforce_batch_major else "T" if enforce_time_major else ""
        self.set_sparse = set_sparse
        self.set_sparse_dim = set_sparse_dim
        self.increase_sparse_dim = increase_sparse_dim

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The reinterpreted Spec."""
        x, base = sources[0], refs.get("size_base")
        if x is None or (self.size_base is not None and base is None):
            return None
        x = x.permuted(self._order(x))
        x = self._with_roles(x)
        if base is not None:
            x = self._with_sizes_of(x, base)
        for text, dim in self.dim_tags.items():
            at = find_axis(x, text, option="set_dim_tags")
            x = x.with_dims([dim if i == at else d for i, d in enumerate(x.dims)], time=x.time, feature=x.feature)
            x = x if x.time is not None else x.roles(time=None)
        return self._with_classes(x)

    def _order(self, x: Spec) -> tuple[int, ...]:
        """The permutation that puts the batch or time axis in front."""
        first = {"B": (x.batch, x.time), "T": (x.time, x.batch), "": (None, None)}[self.first]
        if first[0] is None:
            return tuple(range(x.rank))
        return x.order(first[0]) if self.first == "B" else x.order(*(i for i in first if i is not None))

    def _with_roles(self, x: Spec) -> Spec:
        """The roles after `switch_axes` and `set_axes`."""
        old = {"B": x.batch, "T": x.time, "F": x.feature}
        new = dict(old)
        if self.switched:
            a, b = self.switched
            new[a], new[b] = old[b], old[a]
        for role, axis in self.roles.items():
            new[role] = None if axis is None else find_axis(x, axis, option="set_axes")
            if new["T"] == new["B"] and role == "B":
                new["T"] = old["B"]
        dims = list(x.dims)
        if new["B"] != old["B"]:
            if old["B"] is not None:
                dims[old["B"]] = self.dim("old-batch", None)
            if new["B"] is not None:
                dims[new["B"]] = batch_dim
        return x.with_dims(dims).roles(time=new["T"], feature=new["F"])

    def _with_sizes_of(self, x: Spec, base: Spec) -> Spec:
        mine, theirs = x.dynamic, [base.dims[i] for i in base.dynamic]
        if len(mine) != len(theirs):
            text = f"`size_base` must have as many dynamic axes as the source, {len(mine)}, but has {len(theirs)}"
            raise self.error(f"{text}; the source: {x}; size_base: {base}")
        new = dict(zip(mine, theirs, strict=True))
        out = x.with_dims([new.get(i, d) for i, d in enumerate(x.dims)], feature=x.feature)
        return out.roles(time=x.time, feature=x.feature)

    def _with_classes(self, x: Spec) -> Spec:
        sparse_dim = x.sparse_dim
        if self.set_sparse is False:
            return x.with_dtype(x.dtype)
        if self.set_sparse and sparse_dim is None:
            sparse_dim = x.feature_dim
        if self.set_sparse_dim != "keep":
            sparse_dim = self._classes(self.set_sparse_dim)
        if self.increase_sparse_dim and sparse_dim is not None and sparse_dim.size is not None:
            sparse_dim = self._classes(sparse_dim.size + self.increase_sparse_dim)
        return x if sparse_dim is x.sparse_dim else x.with_dtype(x.dtype, sparse_dim)

    def _classes(self, value: Any) -> Dim | None:
        if value is None or isinstance(value, Dim):
            return value
        return self.dim("sparse-dim", int(value), FEATURE)

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """The same data."""
        specs = {k: r.spec for k, r in refs.items()}
        spec = self.spec(x.spec, **specs)
        if spec is None:
            return x
        x = x.permuted(self._order(x.spec)).copy()
        x.lengths = {**x.lengths, **self._lengths(x, spec, refs)}
        x.spec = spec
        if "batch_dim_base" in refs:
            x.beam = refs["batch_dim_base"].beam
        return x

    def _lengths(self, x: Tensor, spec: Spec, refs: Mapping[str, Tensor]) -> dict[Dim, Lengths]:
        """The lengths of axes whose Dims are new: those of the size base, else those of the old Dim."""
        found: dict[Dim, Lengths] = {}
        base = refs.get("size_base")
        for i, (old, new) in enumerate(zip(x.spec.dims, spec.dims, strict=True)):
            if not new.dynamic or new == old:
                continue
            if base is not None and new in base.spec.dims:
                found[new] = base.length(new)
            elif old.dynamic:
                found[new] = x.length(old)
            else:
                size = x.data.shape[i]
                batch = x.data.shape[spec.batch] if spec.batch is not None else 1
                found[new] = Lengths(torch.full((batch,), size, dtype=torch.int32, device=x.device), size)
        return found
