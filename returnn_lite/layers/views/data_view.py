"""What config functions see of an output: as `Data` of its axes alone (for `out_type`), or with values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from returnn_lite.config_value import ConfigOptions
from returnn_lite.errors import ConfigError, NamesKnown
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor

# Makes of a tensor (and its dtype, where it may be "string") what functions of configs expect.
Wrap = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class LengthsOf:
    """The lengths of an axis where there are no values yet; stands for the axis."""

    dim: Dim


class DimWithLengths(Dim):
    """An axis, equal to `dim`, with its lengths (B,) in this batch as `dyn_size`."""

    __slots__ = ("dyn_size",)

    def __init__(self, dim: Dim, lengths: torch.Tensor) -> None:
        super().__init__(dim.size, dim.name, kind=dim.kind, derived=("same", (dim,)))
        self.dyn_size = lengths


class DataView(NamesKnown):
    """The axes of an output: their positions, sizes and tags. `placeholder` is None."""

    what = "Data object"
    placeholder: Any = None
    beam: Any = None
    vocab: Any = None
    available_for_inference = True

    def __init__(self, spec: Spec, name: str) -> None:
        self.spec = spec
        self.name = name
        self.batch_dim_axis = spec.batch
        self.time_dim_axis = spec.time
        self.feature_dim_axis = spec.feature
        self.dim = spec.dim
        self.sparse = spec.sparse
        self.sparse_dim = spec.sparse_dim
        self.dtype = spec.dtype
        self.batch_ndim = spec.rank
        self.ndim = spec.rank - (spec.batch is not None)
        self.dim_tags = self.dims = spec.dims

    def __repr__(self) -> str:
        return f"Data({self.name!r}, {self.spec})"

    @property
    def output(self) -> DataView:
        """Itself: a layer's output."""
        return self

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Static sizes without batch."""
        return tuple(d.size for d in self.spec.dims if not d.is_batch)

    @property
    def batch_shape(self) -> tuple[int | None, ...]:
        """Static sizes."""
        return tuple(d.size for d in self.spec.dims)

    @property
    def is_batch_major(self) -> bool:
        """Whether the batch axis is the first one."""
        return self.batch_dim_axis == 0

    @property
    def is_time_major(self) -> bool:
        """Whether the time axis is the first one."""
        return self.time_dim_axis == 0

    @property
    def is_batch_feature_major(self) -> bool:
        """Whether batch and feature axis are the first two."""
        return self.batch_dim_axis == 0 and self.feature_dim_axis == 1

    def have_time_axis(self) -> bool:
        """Whether there is a time axis."""
        return self.time_dim_axis is not None

    def have_feature_axis(self) -> bool:
        """Whether there is a feature axis."""
        return self.feature_dim_axis is not None

    def have_batch_axis(self) -> bool:
        """Whether there is a batch axis."""
        return self.batch_dim_axis is not None

    # --- axes ---------------------------------------------------------------------------------------------------------

    def get_dim_tag(self, axis: int) -> Dim:
        """The axis at a position."""
        return self._tag(axis)

    def get_time_dim_tag(self) -> Dim:
        """The time axis. ConfigError without one."""
        return self._tag(self._axis(self.time_dim_axis, "time"))

    def get_batch_dim_tag(self) -> Dim:
        """The batch axis. ConfigError without one."""
        return self._tag(self._axis(self.batch_dim_axis, "batch"))

    def _tag(self, axis: int) -> Dim:
        return self.spec.dims[axis]

    def _axis(self, axis: int | None, what: str) -> int:
        if axis is None:
            raise ConfigError("", f"{self.name!r} has no {what} axis: {self.spec}")
        return axis

    def get_axes(
        self, exclude_time: bool = False, exclude_batch: bool = False, exclude_feature: bool = False
    ) -> list[int]:
        """Positions of the axes."""
        left = {self.time_dim_axis} if exclude_time else set()
        left |= {self.batch_dim_axis} if exclude_batch else set()
        left |= {self.feature_dim_axis} if exclude_feature else set()
        return [i for i in range(self.batch_ndim) if i not in left]

    def get_dynamic_axes(self) -> list[int]:
        """Positions of the axes with a length per sequence."""
        return [i for i, d in enumerate(self.spec.dims) if d.dynamic and not d.is_batch]

    def get_static_axes(self) -> list[int]:
        """Positions of the axes of a fixed size."""
        return [i for i, d in enumerate(self.spec.dims) if not d.dynamic and not d.is_batch]

    def get_spatial_batch_axes(self) -> list[int]:
        """Positions of the axes besides batch and feature."""
        return list(self.spec.spatial)

    def get_spatial_axes(self) -> list[int]:
        """The same, counted without batch."""
        return [i - (self.batch_dim_axis is not None and i > self.batch_dim_axis) for i in self.spec.spatial]

    def get_batch_axis_excluding_batch(self, axis: int) -> int:
        """A position counted without batch."""
        return axis - (self.batch_dim_axis is not None and axis > self.batch_dim_axis)

    # --- lengths ------------------------------------------------------------------------------------------------------

    def _lengths(self, dim: Dim) -> torch.Tensor | LengthsOf:
        return LengthsOf(dim)

    @property
    def size_placeholder(self) -> dict[int, torch.Tensor | LengthsOf]:
        """Lengths [B] by the position of the axis, counted without batch."""
        dims = [d for d in self.spec.dims if not d.is_batch]
        return {i: self._lengths(d) for i, d in enumerate(dims) if d.dynamic}

    def get_sequence_lengths(self) -> torch.Tensor | LengthsOf:
        """Lengths [B] of the time axis."""
        return self._lengths(self.get_time_dim_tag())

    def get_dynamic_size(self, axis: int) -> torch.Tensor | LengthsOf:
        """Lengths [B] of the axis at a position. ConfigError for an axis of fixed size."""
        if not self.spec.dims[axis].dynamic:
            raise ConfigError("", f"{self.name!r}: axis {axis} must be dynamic, but is {self.spec.dims[axis]}")
        return self._lengths(self.spec.dims[axis])

    # --- copies -------------------------------------------------------------------------------------------------------

    def permuted(self, order: tuple[int, ...]) -> DataView:
        """The same with the axes in another order."""
        return DataView(self.spec.permuted(order), self.name)

    def _with_first(self, axis: int) -> DataView:
        order = (axis, *(i for i in range(self.batch_ndim) if i != axis))
        return self.permuted(order) if axis else self

    def copy_as_batch_major(self) -> DataView:
        """The same with the batch axis first."""
        return self._with_first(self._axis(self.batch_dim_axis, "batch"))

    def copy_as_time_major(self) -> DataView:
        """The same with the time axis first."""
        return self._with_first(self._axis(self.time_dim_axis, "time"))

    def copy_with_feature_last(self) -> DataView:
        """The same with the feature axis last."""
        axis = self._axis(self.feature_dim_axis, "feature")
        return self.permuted((*(i for i in range(self.batch_ndim) if i != axis), axis))

    def copy(self, name: str | None = None) -> DataView:
        """The same."""
        return self.permuted(tuple(range(self.batch_ndim)))

    def copy_template(self, name: str | None = None) -> DataView:
        """The axes alone."""
        return DataView(self.spec, name or self.name)

    @property
    def out_type(self) -> ConfigOptions:
        """As an `out_type` dict."""
        spec = self.spec
        kind = {"sparse": spec.sparse, "sparse_dim": spec.sparse_dim}
        roles = {"time_dim_axis": spec.time, "feature_dim_axis": spec.feature}
        return {"dim_tags": spec.dims, "dtype": spec.dtype, **kind, **({} if spec.sparse else roles)}


class SourceView(DataView):
    """A source with its values."""

    def __init__(self, x: Tensor, name: str, wrap: Wrap = lambda t, dtype=None: t) -> None:
        super().__init__(x.spec, name)
        self._x = x
        self._wrap = wrap
        self.placeholder = wrap(x.data, x.spec.dtype)
        self.beam = x.beam

    def permuted(self, order: tuple[int, ...]) -> SourceView:
        """The same with the axes in another order."""
        return SourceView(self._x.permuted(order), self.name, self._wrap)

    def _tag(self, axis: int) -> Dim:
        dim = self.spec.dims[axis]
        return DimWithLengths(dim, self._lengths(dim)) if dim.dynamic else dim

    def _per_seq(self, dim: Dim) -> Lengths:
        """The lengths of an axis; full for one of fixed size."""
        self._axis(self.batch_dim_axis, "batch")
        return self._x.length_per_seq(dim)

    def _lengths(self, dim: Dim) -> torch.Tensor:
        return self._wrap(self._per_seq(dim).values)

    def get_sequence_lengths_broadcast(self) -> torch.Tensor:
        """Lengths of the time axis, shaped to broadcast against `placeholder`."""
        shape = [1] * self.batch_ndim
        shape[self.batch_dim_axis or 0] = -1
        return self._lengths(self.get_time_dim_tag()).reshape(shape)

    def get_placeholder_as_batch_major(self) -> torch.Tensor:
        """The values with the batch axis first."""
        found: torch.Tensor = self.copy_as_batch_major().placeholder
        return found

    def get_placeholder_as_time_major(self) -> torch.Tensor:
        """The values with the time axis first."""
        found: torch.Tensor = self.copy_as_time_major().placeholder
        return found

    def get_dim(self, axis: int) -> int:
        """The size of an axis."""
        return int(self._x.data.shape[axis])

    def get_batch_dim(self) -> int:
        """The number of sequences, times the beam."""
        return self.get_dim(self._axis(self.batch_dim_axis, "batch"))

    def time_dimension(self) -> int:
        """The size of the time axis."""
        return self.get_dim(self._axis(self.time_dim_axis, "time"))

    def get_sequence_mask(self) -> torch.Tensor:
        """True on valid frames.  Shape: (B, T), or (T, B) if time comes before batch"""
        mask = self._per_seq(self.get_time_dim_tag()).mask(self.time_dimension())
        time_first = (self.time_dim_axis or 0) < (self.batch_dim_axis or 0)
        return self._wrap(mask.T if time_first else mask)

    def get_sequence_mask_broadcast(self, axis: int | None = None) -> torch.Tensor:
        """True on valid frames of an axis (default: time), shaped to broadcast against `placeholder`."""
        axis = self._axis(self.time_dim_axis, "time") if axis is None else axis
        mask = self._per_seq(self.spec.dims[axis]).mask(self.get_dim(axis))
        batch = self._axis(self.batch_dim_axis, "batch")
        shape = [size if i in (axis, batch) else 1 for i, size in enumerate(self._x.data.shape)]
        return self._wrap((mask.T if axis < batch else mask).reshape(shape))

    def get_placeholder_time_flattened(self) -> torch.Tensor:
        """The valid frames of all sequences, one after another.  Shape: (N, …)"""
        view: Any = self.copy_as_batch_major()
        order = (0, view.time_dim_axis, *(i for i in range(1, view.batch_ndim) if i != view.time_dim_axis))
        view = view.permuted(order)
        flat: torch.Tensor = view.placeholder[view.get_sequence_mask()]
        return flat

    def get_placeholder_flattened(self, keepdims: bool = False) -> torch.Tensor:
        """The valid frames; without a time axis the values as they are."""
        flat = self.get_placeholder_time_flattened() if self.have_time_axis() else self.placeholder
        return flat.reshape(-1, *[1] * (self.batch_ndim - flat.dim()), *flat.shape[1:]) if keepdims else flat
