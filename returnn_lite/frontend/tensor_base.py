"""What every `Tensor` has: data, axes in order, dtype, the axis of features, the axis of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch

from returnn_lite.frontend import dtypes, sizes_clock
from returnn_lite.frontend.dim import Dim, Dims
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import axis_of, show
from returnn_lite.frontend.types import AnyTensor, RawTensor, VocabLike
from returnn_lite.tensor.foreign import ForeignDim

T = TypeVar("T", bound=AnyTensor, covariant=True)


class TensorBase(AnyTensor, Generic[T]):
    """`raw_tensor` (torch's, or numpy's for texts and in callbacks; None for a template) with the axes `dims`.

    feature_dim_axis: position of the feature axis, or None. version: 1 if it was described by shape and dim as in older
    configs, then it may have a time axis `_time_axis`. T: the class of results, whatever the class of the operands.
    """

    __slots__ = (
        *("_dims", "_dtype", "_raw", "_sparse_dim", "feature_dim_axis", "_time_axis", "name", "version"),
        *("available_for_inference", "_vocab"),
    )
    _dims: Dims
    _sparse_dim: Dim | None
    _dtype: str

    @staticmethod
    def _new(
        raw: Any,
        dims: Sequence[Dim],
        *,
        sparse_dim: Dim | None = None,
        feature_axis: int | None = None,
        name: str = "",
    ) -> T:
        """A tensor of data that is known to fit its axes."""
        raise NotImplementedError

    def _like(self, raw: Any) -> T:
        """A tensor of other data with the axes and roles of this one."""
        return self._new(
            raw, self._dims, sparse_dim=self._sparse_dim, feature_axis=self.feature_dim_axis, name=self.name
        )

    # --- data ---------------------------------------------------------------------------------------------------------

    @property
    def raw_tensor(self) -> RawTensor:
        """The data; None in a template."""
        return self._raw

    @raw_tensor.setter
    def raw_tensor(self, value: RawTensor) -> None:
        if value is not None:
            self._check(value)
        self._raw = value
        sizes_clock.tick()

    placeholder = raw_tensor

    def _check(self, raw: Any) -> None:
        """WrongUse if the data does not fit the axes and the dtype."""
        what = f"tensor {self.name!r}"
        if isinstance(raw, TensorBase):
            raise WrongUse(f"the raw tensor of {what} must be torch's or numpy's, but is a Tensor instead")
        shape = tuple(raw.shape)
        if len(shape) != len(self._dims):
            raise WrongUse(
                f"{what} with the axes {show(self._dims)} must have as many in its data, but that is {shape}"
            )
        for dim, size in zip(self._dims, shape, strict=True):
            if dim.dimension is not None and dim.dimension != size:
                raise WrongUse(
                    f"axis {dim.short_repr()} of {what} cannot have the size {size} in data of shape {shape}"
                )
        found = dtypes.name_of(raw)
        if found != self._dtype and not (dtypes.is_text(found) and dtypes.is_text(self._dtype)):
            raise WrongUse(f"the data of {what} must be {self._dtype}, but is {found} instead")

    @property
    def dtype(self) -> str:
        """As configs write it: "float32"."""
        return self._dtype

    @dtype.setter
    def dtype(self, value: str) -> None:
        self._dtype = value

    @property
    def device(self) -> str | None:
        """Where the data is: "cpu", "cuda:0"; None in a template."""
        return str(self._raw.device) if isinstance(self._raw, torch.Tensor) else None if self._raw is None else "cpu"

    def reset(self) -> None:
        """Forgets the data."""
        self._raw = None
        sizes_clock.tick()

    # --- axes ---------------------------------------------------------------------------------------------------------

    @property
    def dims(self) -> tuple[Dim, ...]:
        """The axes in order."""
        return self._dims

    @property
    def dims_set(self) -> set[Dim]:
        """The axes."""
        return set(self._dims)

    dim_tags = dims

    @property
    def feature_dim(self) -> Dim | None:
        """The axis of the features, if there is one."""
        return None if self.feature_dim_axis is None else self._dims[self.feature_dim_axis]

    @feature_dim.setter
    def feature_dim(self, dim: Dim | None) -> None:
        if dim is not None and self._sparse_dim is not None:
            text = f"tensor {self.name!r} of classes {self._sparse_dim.short_repr()} cannot also have a feature axis"
            raise WrongUse(text)
        self.feature_dim_axis = None if dim is None else axis_of(self._dims, dim, f"tensor {self.name!r}")

    @property
    def sparse_dim(self) -> Dim | None:
        """The axis of the classes that the values count, if they do."""
        return self._sparse_dim

    @sparse_dim.setter
    def sparse_dim(self, dim: Dim | None) -> None:
        self._sparse_dim = dim

    @property
    def feature_dim_or_sparse_dim(self) -> Dim | None:
        """The axis of classes, else that of features."""
        return self._sparse_dim if self._sparse_dim is not None else self.feature_dim

    @property
    def sparse(self) -> bool:
        """Whether the values are classes."""
        return self._sparse_dim is not None

    @property
    def dim(self) -> int | None:
        """The number of classes, else of features."""
        found = self.feature_dim_or_sparse_dim
        return None if found is None else found.dimension

    @property
    def vocab(self) -> VocabLike:
        """The vocabulary of the classes, else of the features."""
        found = self.feature_dim_or_sparse_dim
        return self._vocab if found is None or found.vocab is None else found.vocab

    @property
    def batch_dim_axis(self) -> int | None:
        """The position of the batch axis."""
        return next((i for i, dim in enumerate(self._dims) if dim.is_batch_dim()), None)

    def __repr__(self) -> str:
        axes = [dim.short_repr() for dim in self._dims]
        if self.feature_dim_axis is not None:
            axes[self.feature_dim_axis] = f"F|{axes[self.feature_dim_axis]}"
        text = f"{self.name!r}, [{','.join(axes)}]"
        text += f", dtype={self._dtype!r}" if self._dtype != "float32" else ""
        text += f", sparse_dim={self._sparse_dim}" if self._sparse_dim is not None else ""
        return f"Tensor{{{text}}}"

    def __copy__(self) -> T:
        found = self._new(self._raw if self._raw is not None else torch.zeros(()), self._dims)
        for key in TensorBase.__slots__:
            setattr(found, key, getattr(self, key))
        return found


def checked_dims(dims: Any, what: str) -> tuple[Dim, ...]:  # Any: what users give, which is checked here
    """A tuple of axes. WrongUse if something else is among them."""
    if isinstance(dims, ForeignDim):
        raise WrongUse(f"`dims` of {what} must be a list of axes, but is the axis {dims} instead")
    if dims is None or isinstance(dims, int | str):
        raise WrongUse(f"`dims` of {what} must be a list of axes, but is {dims!r} instead")
    found = tuple(dims)
    for dim in found:
        if not isinstance(dim, ForeignDim):
            raise WrongUse(f"`dims` of {what} must be axes, but {dim!r} is not")
    return found
