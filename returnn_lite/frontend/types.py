"""What an axis and a tensor are for the files below `Dim` and `Tensor`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from returnn_lite.tensor.foreign import ForeignDim


class Axis(ForeignDim):
    """An axis with its sizes in the batch at hand. There is one kind, `Dim`."""

    __slots__ = ()
    name: str
    match_priority: int

    @property
    def dimension(self) -> int | None:
        """The fixed size; None for other axes."""
        raise NotImplementedError

    @property
    def dyn_size_ext(self) -> Any:
        """The sizes as an int tensor; None for a fixed size, and while nothing is known."""
        raise NotImplementedError

    def is_static(self) -> bool:
        """Whether the size is fixed."""
        raise NotImplementedError

    def is_batch_dim(self) -> bool:
        """Whether this is the batch axis."""
        raise NotImplementedError

    def need_masking(self) -> bool:
        """Whether tensors with this axis may have padding."""
        raise NotImplementedError

    def padded_size(self) -> int:
        """The size of the axis in tensors."""
        raise NotImplementedError

    def get_mask(self, *, device: Any = None) -> Any:
        """Where positions are no padding: bool over the axes of the sizes and this one."""
        raise NotImplementedError

    def reset_eager(self) -> None:
        """Forgets the sizes and all that was computed from them."""
        raise NotImplementedError


class AnyTensor:
    """Data with axes. There is one kind, `Tensor`, and those made from it."""

    __slots__ = ()
    new: ClassVar[Callable[..., AnyTensor]]  # makes a Tensor of data and axes that fit; see `Tensor._new`
    name: str
    version: int
    available_for_inference: bool
    feature_dim_axis: int | None
    _time_axis: int | None
    _raw: Any
    _vocab: Any

    @property
    def dims(self) -> tuple[Axis, ...]:
        """The axes in order."""
        raise NotImplementedError

    @property
    def raw_tensor(self) -> Any:
        """The data; None in a template."""
        raise NotImplementedError

    @property
    def dtype(self) -> str:
        """As configs write it: "float32"."""
        raise NotImplementedError

    @property
    def device(self) -> str | None:
        """Where the data is: "cpu", "cuda:0"; None in a template."""
        raise NotImplementedError

    def _check(self, raw: Any) -> None:
        raise NotImplementedError

    def _like(self, raw: Any) -> AnyTensor:
        raise NotImplementedError

    def copy(self, name: str | None = None) -> AnyTensor:
        """The same data under another name."""
        raise NotImplementedError

    def copy_template(self) -> AnyTensor:
        """Without data."""
        raise NotImplementedError
