"""Structures of tensors and axes: what a mask selects, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tree

from returnn_lite.frontend.axes import expand_dim
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.elementwise import copy_to_device
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.masked import masked_scatter, masked_select
from returnn_lite.frontend.nested_axes import DimMap, check_structure, cut
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.frontend.types import Nested
from returnn_lite.frontend.where import where


def masked_select_nested(
    s: Nested,
    *,
    mask: Tensor,
    mask_cpu: Tensor | None = None,
    dims: Sequence[Dim],
    out_dim: Dim | None = None,
    dim_map: DimMap | None = None,
) -> tuple[Nested, Dim, DimMap]:
    """`masked_select` of all tensors that have any of `dims`: (structure, new axis, the new axes of old ones)."""
    known = {} if dim_map is None else dim_map
    on_cpu = copy_to_device(mask, "cpu") if mask_cpu is None else mask_cpu
    if out_dim is None:
        out_dim = Dim(None, name="masked_select")
    out = out_dim
    if not out.is_dim_known_in_batch():
        masked_select(on_cpu, mask=on_cpu, dims=dims, out_dim=out)

    def axis_after(dim: Dim) -> Dim:
        sizes = dim.dyn_size_ext
        if dim in known or sizes is None or not any(d in sizes.dims for d in dims):
            return known.get(dim, dim)
        picked, _ = masked_select(_with_all(sizes, dims), mask=on_cpu, dims=dims, out_dim=out)
        known[dim] = Dim(picked, name=f"{dim.name}_masked", kind=dim.kind)
        return known[dim]

    def one(leaf: Any) -> Any:
        if isinstance(leaf, Dim):
            return axis_after(leaf)
        if not isinstance(leaf, Tensor) or not any(dim in leaf.dims for dim in dims):
            return leaf
        found, _ = masked_select(_with_all(leaf, dims), mask=mask, dims=dims, out_dim=out)
        for dim in leaf.dims:
            new = axis_after(dim)
            if new is not dim and dim in found.dims:
                found = cut(found, dim, new)
        return found

    return tree.map_structure(one, s), out, known


def _with_all(x: Any, dims: Sequence[Dim]) -> Tensor:
    for dim in dims:
        if dim not in x.dims:
            x = expand_dim(x, dim)
    result: Tensor = x
    return result


def masked_scatter_nested(
    s: Nested,
    s_backup: Nested,
    *,
    mask: Tensor,
    mask_cpu: Tensor | None = None,
    dims: Sequence[Dim],
    in_dim: Dim,
    masked_select_dim_map: DimMap,
    masked_scatter_dim_map: DimMap | None = None,
) -> Nested:
    """The inverse of `masked_select_nested`: what was selected is put back into `s_backup`.

    masked_select_dim_map: what that gave. Axes that differ become a new one; `masked_scatter_dim_map` gets them.
    """
    known = {} if masked_scatter_dim_map is None else masked_scatter_dim_map
    on_cpu = copy_to_device(mask, "cpu") if mask_cpu is None else mask_cpu
    check_structure(s, s_backup)
    scatter = _Scatter(mask, on_cpu, dims, in_dim, masked_select_dim_map, known)
    pairs = zip(tree.flatten(s), tree.flatten(s_backup), strict=True)
    for a, b in pairs:
        if isinstance(a, Dim) and isinstance(b, Dim):
            scatter.pair(a, b)
    return tree.map_structure(scatter.one, s, s_backup)


class _Scatter:
    """Selected tensors and axes put back."""

    def __init__(
        self, mask: Tensor, on_cpu: Tensor, dims: Sequence[Dim], in_dim: Dim, selected: DimMap, known: DimMap
    ) -> None:
        self.mask, self.on_cpu, self.dims, self.in_dim, self.known = mask, on_cpu, tuple(dims), in_dim, known
        self.before = {new: old for old, new in selected.items()}

    def pair(self, new: Dim, old: Dim) -> Dim:
        """The axis that has the sizes of `new` where something was selected, else those of `old`."""
        if new in (old, self.in_dim):
            return old
        self.before[new] = old
        found = self.known.get(new)
        if found is None:
            sizes = _with_all(new.get_size_tensor(), [self.in_dim])
            spread = masked_scatter(sizes, old.get_size_tensor(), mask=self.on_cpu, dims=self.dims, in_dim=self.in_dim)
            found = self.known[new] = self.known[old] = Dim(spread, name=f"{old.name}_scatter", kind=old.kind)
        return found

    def one(self, new: Any, old: Any) -> Any:
        """The entry of both structures."""
        if isinstance(new, Dim):
            return self.pair(new, old) if isinstance(old, Dim) else self.known.get(new, new)
        if not isinstance(new, Tensor) or self.in_dim not in new.dims:
            return self._other(new, old)
        backup = old if isinstance(old, Tensor) else None
        x: Any = new
        for dim, origin in self._changed(new, backup):
            axis = self.pair(dim, origin)
            x = cut(x, dim, axis)
            if backup is not None and origin in backup.dims:
                backup = cut(backup, origin, axis)
        return masked_scatter(x, backup, mask=self.mask, dims=self.dims, in_dim=self.in_dim)

    def _changed(self, new: Tensor, backup: Tensor | None) -> list[tuple[Dim, Dim]]:
        """The axes that the backup lacks, each with the one that it was before: by name, else by place."""
        if backup is None:
            return [(dim, self.before[dim]) for dim in new.dims if dim in self.before]
        unknown = [dim for dim in new.dims if dim != self.in_dim and dim not in backup.dims]
        found = [(dim, self.before[dim]) for dim in unknown if dim in self.before]
        unknown = [dim for dim in unknown if dim not in self.before]
        taken = (*new.dims, *self.dims, *(origin for _, origin in found))
        free = [dim for dim in backup.dims if dim not in taken]
        if len(free) != len(unknown):
            raise WrongUse(f"masked_scatter_nested: the axes of {new} and {backup} do not belong together")
        return [*found, *zip(unknown, free, strict=True)]

    def _other(self, new: Any, old: Any) -> Any:
        """What was not selected from stays; where the backup depends on the mask, that decides."""
        if isinstance(new, Tensor) and isinstance(old, Tensor) and any(dim in old.dims for dim in self.dims):
            return where(self.mask, new, old, allow_broadcast_all_sources=True)
        return new
