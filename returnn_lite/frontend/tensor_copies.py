"""Copies of a tensor: other order, other axes, padding replaced, or without its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import MOST_PLANS, all_different, arranged, axis_of, permutation, plans, show
from returnn_lite.frontend.masks import padding_mask
from returnn_lite.frontend.tensor_axes import TensorAxes
from returnn_lite.frontend.tensor_base import T, checked_dims
from returnn_lite.frontend.types import AnyTensor, AxisLike, Operand, RawTensor

_ORDERS: dict[Any, tuple[int, ...]] = plans()


class TensorCopies(TensorAxes[T]):
    """The methods `copy…`."""

    __slots__ = ()

    def _with(self, raw: Any, dims: Sequence[Dim], feature: Dim | int | None = None, name: str | None = None) -> T:
        """Data and axes in place of these; `feature`: the axis or its position."""
        if isinstance(feature, Dim):
            feature = next((i for i, dim in enumerate(dims) if dim is feature or dim == feature), None)
        name = self.name if name is None else name
        if raw is not None:
            return self._new(raw, dims, sparse_dim=self._sparse_dim, feature_axis=feature, name=name)
        return self._template(dims, feature, name)

    def _template(self, dims: Sequence[Dim], feature: int | None, name: str, dtype: str | None = None) -> T:
        raise NotImplementedError

    def copy(self, name: str | None = None) -> T:
        """The same data under another name."""
        found = self.__copy__()
        found.name = self.name if name is None else name
        return found

    # --- order --------------------------------------------------------------------------------------------------------

    def copy_transpose(self, perm: Sequence[Dim | int], *, allow_int: bool = True) -> T:
        """The axes in another order, all of them. WrongUse if one is missing."""
        key = (self._dims, tuple(perm))
        try:
            order = _ORDERS.get(key)
        except TypeError:  # something in it is neither an axis nor a number
            order = None
        if order is None:
            order = self._order(perm)
            if len(_ORDERS) >= MOST_PLANS:
                _ORDERS.clear()
            if all_different(self._dims):
                _ORDERS[key] = order
        return self._permuted(order)

    def _order(self, perm: Sequence[Dim | int]) -> tuple[int, ...]:
        """The positions of the axes in another order."""
        if all(isinstance(entry, int) for entry in perm):
            order: list[int] | None = [int(entry) % len(self._dims) for entry in perm]
        else:
            order = permutation(self._dims, checked_dims(perm, "copy_transpose"))
        if order is None or sorted(order) != list(range(len(self._dims))):
            raise WrongUse(f"{self} cannot be transposed to {show(perm)}: these must be all of its axes, once")
        return tuple(order)

    def _permuted(self, order: Sequence[int]) -> T:
        dims = tuple([self._dims[i] for i in order])
        feature = None if self.feature_dim_axis is None else order.index(self.feature_dim_axis)
        raw = self._raw
        if raw is not None and tuple(order) != tuple(range(len(dims))):
            raw = raw.permute(tuple(order)) if isinstance(raw, torch.Tensor) else raw.transpose(order)
        found = self._with(raw, dims, feature)
        found._time_axis = None if self._time_axis is None else order.index(self._time_axis)
        found.version = self.version
        return found

    def copy_move_axis(self, old_axis: AxisLike, new_axis: AxisLike) -> T:
        """An axis moved to another position."""
        old = self.get_axis_from_description(old_axis, allow_int=True)
        new = self.get_axis_from_description(new_axis, allow_int=True)
        order = [i for i in range(len(self._dims)) if i != old]
        order.insert(new, old)
        return self._permuted(order)

    def copy_swap_axes(self, axis1: AxisLike, axis2: AxisLike) -> T:
        """Two axes exchanged."""
        a = self.get_axis_from_description(axis1, allow_int=True)
        b = self.get_axis_from_description(axis2, allow_int=True)
        order = list(range(len(self._dims)))
        order[a], order[b] = b, a
        return self._permuted(order)

    def copy_as_batch_major(self) -> T:
        """The batch axis first. WrongUse without one."""
        return self.copy_move_axis(self._dims.index(self.get_batch_dim_tag()), 0)

    def copy_as_time_major(self) -> T:
        """The time axis first."""
        return self.copy_move_axis(self._dims.index(self.get_time_dim_tag()), 0)

    def copy_with_feature_last(self) -> T:
        """The feature axis last. WrongUse without one."""
        if self.feature_dim_axis is None:
            raise WrongUse(f"{self} has no feature axis")
        return self.copy_move_axis(self.feature_dim_axis, len(self._dims) - 1)

    # --- other axes ---------------------------------------------------------------------------------------------------

    def copy_compatible_to_dims(self, dims: Sequence[Dim], *, add_dims: bool = True, unbroadcast: bool = False) -> T:
        """The axes `dims` in this order; those that are missing are of size 1, or with `unbroadcast` of full size.

        WrongUse if an own axis is not among them, or with `add_dims` False if one is missing.
        """
        wanted = checked_dims(dims, "copy_compatible_to_dims")
        missing = [dim for dim in wanted if dim not in self._dims]
        if missing and not add_dims:
            raise WrongUse(f"{self} lacks {show(missing)} of {show(wanted)}, and no axes are to be added")
        raw = None if self._raw is None else self.copy_compatible_to_dims_raw(wanted, unbroadcast=unbroadcast)
        if unbroadcast:
            return self._with(raw, wanted, self.feature_dim)
        return self._with(raw, tuple(_broadcast(dim) if dim in missing else dim for dim in wanted), self.feature_dim)

    def copy_compatible_to_dims_raw(
        self, dims: Sequence[Dim], *, add_dims: bool = True, unbroadcast: bool = False
    ) -> RawTensor:
        """The data for `copy_compatible_to_dims`."""
        wanted = tuple(dims)
        raw = arranged(self._raw, self._dims, wanted)
        if not add_dims and raw.ndim != self._raw.ndim:
            raise WrongUse(f"{self} lacks some of {show(wanted)}, and no axes are to be added")
        if not unbroadcast or raw.ndim == self._raw.ndim:
            return raw
        return raw.expand([-1 if dim in self._dims else dim.padded_size() for dim in wanted])

    def copy_compatible_to(
        self,
        data: TensorAxes[AnyTensor],
        add_dims: bool = True,
        unbroadcast: bool = False,
        check_sparse: bool = True,
        check_dtype: bool = True,
    ) -> T:
        """The axes of another tensor; the feature axis is where it is there."""
        if check_dtype and data.dtype != self._dtype:
            raise WrongUse(f"{self} must have the dtype of {data}")
        if check_sparse and data.sparse != self.sparse:
            raise WrongUse(f"{self} and {data} must both be of classes, or none of them")
        found = self.copy_compatible_to_dims(data.dims, add_dims=add_dims, unbroadcast=unbroadcast)
        found.feature_dim_axis = data.feature_dim_axis if self._sparse_dim is None else None
        return found

    def copy_add_dim_by_tag(self, dim_tag: Dim, unbroadcast: bool = False, axis: int | None = None) -> T:
        """A further axis at a position: of size 1, or with `unbroadcast` that axis itself."""
        if dim_tag in self._dims:
            raise WrongUse(f"{self} has the axis {dim_tag} already")
        at = place_for(dim_tag, self._dims, self.feature_dim_axis) if axis is None else axis % (len(self._dims) + 1)
        dims = (*self._dims[:at], dim_tag, *self._dims[at:])
        return self.copy_compatible_to_dims(dims, unbroadcast=unbroadcast)

    def copy_masked(self, mask_value: Operand, *, dims: Sequence[Dim] | None = None, **_unused: object) -> T:
        """The padding replaced by a number or tensor, over all axes with sizes, or those given.

        Axes with sizes over axes that the tensor lacks are left alone.
        """
        mask = padding_mask(self, self._dims if dims is None else dims)
        if mask is None:
            return self.copy()
        value = mask_value
        if isinstance(value, TensorAxes):
            value = arranged(value.raw_tensor, value.dims, self._dims).to(self._raw.dtype)
        return self._like(torch.where(mask, self._raw, value))

    # --- templates ----------------------------------------------------------------------------------------------------

    def copy_template(self, name: str | None = None, dtype: str | None = None) -> T:
        """Without data."""
        found = self._template(self._dims, self.feature_dim_axis, self.name if name is None else name, dtype)
        found._time_axis, found.version, found._vocab = self._time_axis, self.version, self._vocab
        return found

    def copy_template_excluding_axis(self, exclude_axis: int, name: str | None = None) -> T:
        """Without data and one axis."""
        axis = exclude_axis % len(self._dims)
        feature = self.feature_dim_axis
        if feature is not None:
            feature = None if feature == axis else feature - (feature > axis)
        dims = self._dims[:axis] + self._dims[axis + 1 :]
        return self._template(dims, feature, self.name if name is None else name)

    def copy_template_replace_dim_tag(self, axis: int, new_dim_tag: Dim, name: str | None = None) -> T:
        """Without data, with another axis at a position."""
        dims = list(self._dims)
        dims[axis] = new_dim_tag
        return self._template(dims, self.feature_dim_axis, self.name if name is None else name)

    def copy_template_new_dim_tags(
        self, new_dim_tags: Sequence[Dim], name: str | None = None, keep_special_axes: bool = False
    ) -> T:
        """Without data, with other axes; the feature axis is lost unless it is to be kept."""
        feature = self.feature_dim_axis if keep_special_axes and len(new_dim_tags) == len(self._dims) else None
        return self._template(tuple(new_dim_tags), feature, self.name if name is None else name)


def place_for(dim: Dim, dims: Sequence[Dim], feature_axis: int | None) -> int:
    """Where a further axis is put: one with sizes after the last such one, others before the features."""
    if dim.is_batch_dim():
        return 0
    if dim.is_feature_dim():
        return len(dims) if feature_axis is None else feature_axis + 1
    if dim.is_dynamic():
        dynamic = [i for i, other in enumerate(dims) if other.is_dynamic()]
        if dynamic:
            return dynamic[-1] + 1
    if dim.is_spatial_dim():
        spatial = [i for i, other in enumerate(dims) if other.is_spatial_dim()]
        if spatial:
            return spatial[-1] + 1
        return len(dims) if feature_axis is None else feature_axis
    return len(dims)


def _broadcast(dim: Dim) -> Dim:
    """What stands for an axis that is only there for broadcasting."""
    return Dim(1, name=f"{dim.name}_bc_dim1", kind=dim.kind if not dim.is_batch_dim() else None, auto_generated=True)


def all_axes(dims: Sequence[Dim], of: AnyTensor) -> list[int]:
    """The positions of some axes. WrongUse if one is missing."""
    return [axis_of(of.dims, dim, of) for dim in dims]
