"""The sizes of an axis in the batch at hand: what they are, their largest, masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from returnn_lite.frontend import dtypes
from returnn_lite.frontend.dim_operators import DimOperators
from returnn_lite.frontend.dim_sizes import CPU, as_torch, largest, valid
from returnn_lite.frontend.errors import NoSizes, WrongUse
from returnn_lite.frontend.types import AnyTensor, Axis, Device, RawTensor, SizeTensor


class DimWithSizes(DimOperators):
    """The questions about sizes. They are on the CPU, whatever the device of the data."""

    __slots__ = ()

    def _checked_sizes(self, sizes: Any) -> Any:
        raise NotImplementedError

    @property
    def dimension(self) -> int | None:
        """The fixed size; None for other axes."""
        return self.extent().fixed()

    def is_static(self) -> bool:
        """Whether the size is fixed."""
        return self.dimension is not None

    def is_dynamic(self) -> bool:
        """Whether the size is not fixed."""
        return self.dimension is None

    def is_dynamic_seq_length(self) -> bool:
        """Whether the sizes differ within a batch, or may."""
        if self.dimension is not None:
            return False
        sizes = self.dyn_size_ext
        return not self.is_batch_dim() if sizes is None else bool(sizes.dims)

    def is_dim_known(self) -> bool:
        """Whether it has a size, or sizes, or is the batch axis."""
        return self.dimension is not None or self.is_batch_dim() or self.dyn_size_ext is not None

    def is_dim_known_in_batch(self) -> bool:
        """Whether sizes are there now."""
        sizes = self.dyn_size_ext
        return self.dimension is not None or (sizes is not None and sizes.raw_tensor is not None)

    def need_masking(self) -> bool:
        """Whether tensors with this axis may have padding."""
        return self.extent().size is None and self.is_dynamic_seq_length()

    @property
    def dyn_size_ext(self) -> SizeTensor:
        """The sizes as an int tensor; None for a fixed size, and while nothing is known."""
        return self.extent().sizes()

    @dyn_size_ext.setter
    def dyn_size_ext(self, value: SizeTensor) -> None:
        self.extent().given = None if value is None else self._checked_sizes(value)

    @property
    def dyn_size(self) -> RawTensor:
        """The sizes as a torch tensor; None if there are none."""
        sizes = self.dyn_size_ext
        return None if sizes is None else sizes.raw_tensor

    @dyn_size.setter
    def dyn_size(self, value: RawTensor) -> None:
        self.dyn_size_ext = value

    def _known_sizes(self) -> Any:
        sizes = self.dyn_size_ext
        if sizes is None or sizes.raw_tensor is None:
            raise NoSizes(f"the sizes of axis {self.name!r} are not known; set its `dyn_size_ext` to an int tensor")
        return sizes

    def get_size_tensor(self, device: Device = None) -> SizeTensor:
        """The sizes, or the fixed size as a scalar. NoSizes if they are not known."""
        size = self.dimension
        if size is None:
            return self._known_sizes() if device is None else self.get_dyn_size_ext_for_device(device)
        return AnyTensor.new(torch.tensor(size, dtype=torch.int32, device=device), (), name=self.name)

    def get_size_tensor_or_int(self) -> SizeTensor:
        """The fixed size as a number, else the sizes."""
        size = self.dimension
        return size if size is not None else self._known_sizes()

    def get_dyn_size_ext_for_device(self, device: Device) -> SizeTensor:
        """The sizes on a device, copied once. WrongUse for a fixed size."""
        if self.is_static():
            raise WrongUse(f"axis {self.name!r} has a fixed size and no sizes")
        sizes = self._known_sizes()
        where = torch.device(device or "cpu")
        if as_torch(sizes).device == where:
            return sizes
        moved = lambda: sizes._like(as_torch(sizes).to(where, non_blocking=True))  # noqa: E731
        return self.extent().memo(("sizes", where), moved)

    def get_dim_value(self) -> RawTensor:
        """The size of the axis in tensors: an int, or the largest size as a torch scalar. NoSizes if not known."""
        size = self.dimension
        if size is not None:
            return size
        sizes = self._known_sizes()
        return self.extent().memo("largest", lambda: largest(sizes))

    def padded_size(self) -> int:
        """`get_dim_value` as a number; known once per batch."""
        size = self.dimension
        if size is not None:
            return size
        sizes = self._known_sizes()
        found: int = self.extent().memo("number", lambda: (int(largest(sizes)),))[0]
        return found

    def get_dim_value_tensor(self) -> SizeTensor:
        """The size of the axis in tensors: an int, or a scalar tensor."""
        value = self.get_dim_value()
        return value if isinstance(value, int) else AnyTensor.new(value, (), name=self.name)

    def complete_dyn_size(self, **_unused: object) -> None:
        """Computes the sizes of a derived axis now, if they can be computed."""
        self.extent().sizes()

    def get_mask(self, dim_order: Iterable[Axis] | None = None, device: Device = None) -> SizeTensor:
        """Where positions are no padding: bool over the axes of the sizes and this one.

        dim_order: the order of these axes; others in it do not matter. Made once per batch.
        """
        sizes = self._known_sizes() if self.is_dynamic() else self.get_size_tensor()
        where = torch.device(device) if device is not None else _default_device()
        dims = (*sizes.dims, self)
        if dim_order is not None:
            wanted = tuple(dim for dim in dim_order if dim in dims)
            dims = (*wanted, *(dim for dim in dims if dim not in wanted))
        plain: SizeTensor = self.extent().memo(
            ("mask", where),
            lambda: AnyTensor.new(valid(self, sizes, where), (*sizes.dims, self), name="mask"),
        )
        if dims == plain.dims:
            return plain
        return self.extent().memo(("mask", where, dims), lambda: plain.copy_transpose(dims))

    # --- new batches --------------------------------------------------------------------------------------------------

    def reset_eager(self) -> None:
        """Forgets the sizes and all that was computed from them."""
        self.extent().forget()

    def reset_raw(self, **_unused: object) -> None:
        """The same."""
        self.extent().forget()

    def reset_batch_and_raw(self) -> None:
        """The same."""
        self.extent().forget()

    def transform_tensors(self, func: Callable[[SizeTensor], None]) -> None:
        """Applies a function that changes the size tensor in place."""
        extent = self.extent()
        if extent.given is not None:
            func(extent.given)
            extent.changed()


def _default_device() -> torch.device:
    found = dtypes.get_default_device()
    return CPU if found is None else torch.device(found)
