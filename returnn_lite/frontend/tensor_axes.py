"""Finding axes of a tensor, and checking them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import OutShapeMismatch, WrongUse
from returnn_lite.frontend.layout import axis_of, show
from returnn_lite.frontend.marked_dim import ImplicitDim, ImplicitDynSizeDim, ImplicitSparseDim, OptionalDim
from returnn_lite.frontend.tensor_base import T, TensorBase
from returnn_lite.frontend.types import AnyTensor, AxisLike, RawTensor
from returnn_lite.tensor import Spec
from returnn_lite.tensor.axes import axis as named_axis

if TYPE_CHECKING:
    from typing_extensions import Self


class TensorAxes(TensorBase[T]):
    """The questions about axes."""

    __slots__ = ()

    @property
    def batch_ndim(self) -> int:
        """The number of axes."""
        return len(self._dims)

    @property
    def ndim(self) -> int:
        """The number of axes but the batch axis."""
        return len(self._dims) - self.have_batch_axis()

    @property
    def batch_shape(self) -> tuple[int | None, ...]:
        """The fixed sizes, None for the others."""
        return tuple(dim.dimension for dim in self._dims)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The fixed sizes, None for the others, without the batch axis."""
        return tuple(dim.dimension for dim in self._dims if not dim.is_batch_dim())

    def have_batch_axis(self) -> bool:
        """Whether there is a batch axis."""
        return self.batch_dim_axis is not None

    def have_feature_axis(self) -> bool:
        """Whether there is a feature axis."""
        return self.feature_dim_axis is not None

    def have_time_axis(self) -> bool:
        """Whether there is a time axis; only older descriptions have one."""
        return self._time_axis is not None

    @property
    def time_dim_axis(self) -> int | None:
        """The position of the time axis; only older descriptions have one."""
        return self._time_axis

    @time_dim_axis.setter
    def time_dim_axis(self, axis: int | None) -> None:
        self._time_axis = axis

    def get_batch_dim_tag(self) -> Dim:
        """The batch axis. WrongUse without one."""
        axis = self.batch_dim_axis
        if axis is None:
            raise WrongUse(f"{self} has no batch axis")
        return self._dims[axis]

    def get_time_dim_tag(self) -> Dim:
        """The time axis. WrongUse without one."""
        if self._time_axis is None:
            hint = "only those described by `dim_tags` or `shape` have one; use `dims`"
            raise WrongUse(f"{self} has no time axis; {hint}")
        return self._dims[self._time_axis]

    def get_dyn_size_tags(self) -> list[Dim]:
        """The axes with sizes."""
        return [dim for dim in self._dims if dim.is_dynamic_seq_length()]

    def get_sequence_lengths(self) -> RawTensor:
        """The raw sizes of the time axis."""
        return self.get_time_dim_tag().get_size_tensor().raw_tensor

    def get_sequence_mask_broadcast(self, axis: AxisLike | None = None) -> RawTensor:
        """The raw mask of an axis (of time by default), with size 1 for the axes that do not matter."""
        dim = self.get_time_dim_tag() if axis is None else self._dims[self.get_axis_from_description(axis)]
        return dim.get_mask(device=self.device).copy_compatible_to_dims_raw(self._dims)

    def get_dim_tag(self, axis: AxisLike) -> Dim:
        """The axis at a position, or by description."""
        return self._dims[axis if isinstance(axis, int) else self.get_axis_from_description(axis)]

    def get_dim(self, axis: AxisLike) -> RawTensor:
        """The size at a position: a number, or torch's scalar."""
        return self.get_dim_tag(axis).get_dim_value()

    def remaining_dims(self, remove: Dim | Sequence[Dim] | None = None) -> list[Dim]:
        """The axes without some. WrongUse if one of them is missing."""
        found = list(self._dims)
        for dim in () if remove is None else (remove,) if isinstance(remove, Dim) else remove:
            del found[axis_of(tuple(found), dim, self)]
        return found

    def get_axis_from_description(self, axis: AxisLike, allow_int: bool = False) -> int:
        """The position of an axis: a Dim, or a text as in layer nets ("B", "T", "F", "spatial:0", "dim:5")."""
        if isinstance(axis, Dim):
            return axis_of(self._dims, axis, self)
        if isinstance(axis, int) and allow_int:
            return axis % len(self._dims)
        return named_axis(self._spec(), str(axis), option="axis")

    def _spec(self) -> Spec:
        """The axes as layers know them, where all axis texts are read."""
        dims = tuple(dim.core for dim in self._dims)
        sparse = None if self._sparse_dim is None else self._sparse_dim.core
        return Spec(dims, self._dtype, sparse_dim=sparse, time=self._time_axis, feature=self.feature_dim_axis)

    def get_axes_from_description(self, axes: str | Dim | Sequence[AxisLike], allow_int: bool = False) -> list[int]:
        """The positions of several axes."""
        given = [axes] if isinstance(axes, str | Dim) else axes
        return [self.get_axis_from_description(axis, allow_int) for axis in given]

    def replace_dim(self, axis: int, dim: Dim) -> None:
        """Replaces the Dim at a position, in place."""
        self._dims = (*self._dims[:axis], dim, *self._dims[axis + 1 :])

    def find_matching_dim_map(self, other: AnyTensor, other_axes: Sequence[int]) -> dict[int, int]:
        """For positions in another tensor the position of the same axis here. WrongUse if one is missing."""
        return {axis: axis_of(self._dims, other.dims[axis], self) for axis in other_axes}

    def verify_out_shape(self, out_shape: Iterable[object], allow_missing_implicit_dims: bool = False) -> Self:
        """Checks that these are the axes, and returns the tensor. OutShapeMismatch if not.

        out_shape: a set of axes; with them the implicit ones: `ImplicitSparseDim(dim)` of classes,
        `ImplicitDynSizeDim(dim)` of sizes whose axes the tensor lacks; `OptionalDim(dim)` may be there or not.
        """
        given = set(out_shape)
        plain = {dim for dim in given if isinstance(dim, Dim)}
        optional = {dim.tag for dim in given if isinstance(dim, OptionalDim)}
        implicit = {dim for dim in given if isinstance(dim, ImplicitDim)}
        have = set(self._dims)
        wrong = (plain - have) | (have - plain - optional)
        needed = self._implicit_dims()
        if wrong or implicit - needed or (needed - implicit and not allow_missing_implicit_dims):
            want = [*plain, *optional, *implicit]
            raise OutShapeMismatch(f"{self} must have the axes {show(want)}, implicit: {show(list(needed)) or 'none'}")
        return self

    def _implicit_dims(self) -> set[ImplicitDim]:
        found: set[ImplicitDim] = set()
        if self._sparse_dim is not None:
            found.add(ImplicitSparseDim(self._sparse_dim))
        for dim in self._dims:
            sizes = dim.dyn_size_ext
            if sizes is not None:
                found |= {ImplicitDynSizeDim(inner) for inner in sizes.dims if inner not in self._dims}
        return found
