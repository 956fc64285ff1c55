"""Functions of structures of tensors and axes: gathered, masked, selected; axes whose sizes change go along."""

from __future__ import annotations

from typing import Any

import tree

from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.elementwise import copy_to_device
from returnn_lite.frontend.errors import WrongUse, missing_name
from returnn_lite.frontend.gather import gather
from returnn_lite.frontend.nested_axes import DimMap, check_structure, cut
from returnn_lite.frontend.nested_select import masked_scatter_nested, masked_select_nested
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.frontend.types import Nested
from returnn_lite.frontend.where import where


def gather_nested(s: Nested, *, indices: Tensor, dim_map: DimMap | None = None) -> Nested:
    """`gather` of all tensors that have the sparse axis of `indices`. Others stay.

    Axes whose sizes have that axis become new ones with gathered sizes; `dim_map` gets them.
    """
    axis = indices.sparse_dim
    if axis is None:
        raise WrongUse(f"gather_nested by {indices}: the indices must have a sparse axis")
    known = {} if dim_map is None else dim_map
    on_cpu: list[Tensor] = []

    def host_indices() -> Tensor:
        if not on_cpu:
            on_cpu.append(copy_to_device(indices, "cpu"))
        return on_cpu[0]

    def axis_after(dim: Dim) -> Dim:
        sizes = dim.dyn_size_ext
        if dim in known or sizes is None or axis not in sizes.dims:
            return known.get(dim, dim)
        known[dim] = Dim(gather(sizes, indices=host_indices(), axis=axis), name=f"{dim.name}_1", kind=dim.kind)
        return known[dim]

    def one(leaf: Any) -> Any:
        if isinstance(leaf, Dim):
            if leaf == axis:
                return _own_dim(indices, axis)
            return axis_after(leaf)
        if not isinstance(leaf, Tensor) or axis not in leaf.dims:
            return leaf
        found = gather(leaf, indices=indices, axis=axis)
        for dim in leaf.dims:
            new = axis_after(dim)
            if new is not dim and dim in found.dims:
                found = cut(found, dim, new)
        return found

    return tree.map_structure(one, s)


def _own_dim(indices: Tensor, axis: Dim) -> Dim:
    """The axis of the indices that stands for the gathered one: the last that is not the batch axis."""
    own = [dim for dim in indices.dims if not dim.is_batch_dim()]
    return own[-1] if own else axis


# --- masks ------------------------------------------------------------------------------------------------------------


def mask_nested(
    s: Nested,
    *,
    mask: Tensor,
    mask_cpu: Tensor | None = None,
    mask_value: Nested,
    dim_map: DimMap | None = None,
    allow_dim_extension: bool = True,
) -> Nested:
    """`where(mask, s, mask_value)` of all tensors; `mask_value` is such a structure, a tensor, or a number.

    Axes that differ on both sides become a new one, with the sizes that hold where; `dim_map` gets them.
    """
    values = mask_value
    if values is None or isinstance(values, Tensor | int | float | bool):
        values = tree.map_structure(lambda _: mask_value, s)
    known = {} if dim_map is None else dim_map
    merge = _Merge(mask, mask_cpu, known, allow_dim_extension)
    check_structure(s, values)
    tree.map_structure(lambda a, b: merge.pair(a, b) if isinstance(a, Dim) and isinstance(b, Dim) else None, s, values)
    return tree.map_structure(merge.one, s, values)


class _Merge:
    """Axes of two sides that become one. `known`: the new axis of each of them."""

    def __init__(self, mask: Tensor, mask_cpu: Tensor | None, known: DimMap, extend: bool) -> None:
        self.mask, self.known, self.extend = mask, known, extend
        self._mask_cpu = mask_cpu

    @property
    def mask_cpu(self) -> Tensor:
        """The mask where sizes are."""
        if self._mask_cpu is None:
            self._mask_cpu = copy_to_device(self.mask, "cpu")
        return self._mask_cpu

    def pair(self, a: Dim, b: Dim) -> Dim:
        """The axis that has the sizes of `a` where the mask is True, else those of `b`."""
        if a == b:
            return a
        if a in self.known and self.known.get(b) == self.known[a]:
            return self.known[a]
        if not self.extend:
            raise WrongUse(f"the axes {a} and {b} differ, which allow_dim_extension=False does not allow")
        sizes = where(self.mask_cpu, a.get_size_tensor(), b.get_size_tensor(), allow_broadcast_all_sources=True)
        found = Dim(sizes, name=f"{a.name}_masked", kind=a.kind)
        self.known[a] = self.known[b] = found
        return found

    def one(self, a: Any, b: Any) -> Any:
        """The entry of both structures."""
        if isinstance(a, Dim):
            return self.pair(a, b) if isinstance(b, Dim) else self.known.get(a, a)
        if not isinstance(a, Tensor):
            return a
        if isinstance(b, Tensor):
            a, b = self._fitted(a, b)
        return where(self.mask, a, b, allow_broadcast_all_sources=True)

    def _fitted(self, a: Any, b: Any) -> tuple[Tensor, Tensor]:
        """Both with the same axes."""
        only_a = [dim for dim in a.dims if dim not in b.dims and dim not in self.mask.dims]
        only_b = [dim for dim in b.dims if dim not in a.dims and dim not in self.mask.dims]
        for one, other in zip(only_a, only_b, strict=False):
            new = self.pair(one, other)
            a, b = cut(a, one, new), cut(b, other, new)
        return a, b


def where_nested(
    x: Nested,
    y: Nested,
    *,
    condition: Tensor,
    condition_cpu: Tensor | None = None,
    dim_map: DimMap | None = None,
    allow_dim_extension: bool = True,
) -> Nested:
    """`x` where the condition holds, else `y`, of all tensors of two structures."""
    return mask_nested(
        x,
        mask=condition,
        mask_cpu=condition_cpu,
        mask_value=y,
        dim_map=dim_map,
        allow_dim_extension=allow_dim_extension,
    )


__all__ = [
    "gather_nested",
    "mask_nested",
    "masked_scatter_nested",
    "masked_select_nested",
    "where_nested",
]


__getattr__ = missing_name("rf.nested", globals())
