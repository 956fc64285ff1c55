"""What an axis and a tensor are for the files below `Dim` and `Tensor`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import torch

from returnn_lite.tensor.foreign import ForeignDim

# Where data is, or is to be; None: where it is, or the default.
Device: TypeAlias = str | torch.device | None
# A tensor, a parameter or a number (of numpy or a scalar of torch, too), and what operators give for them: a tensor if
# one operand is one, else a number. Which of them it is, operators check; `Tensor` is defined on top of them.
Operand: TypeAlias = Any
# Sizes of axes and what is made of them: a `Tensor`, which is defined on top of axes; where it is said also an int or
# None.
SizeTensor: TypeAlias = Any
# The data of a tensor: of torch, or of numpy; None in a template. Who reads it knows which.
RawTensor: TypeAlias = Any
# Nested dicts, lists, tuples and the like with tensors in them, as dm-tree knows them: no static type is like that.
Nested: TypeAlias = Any
# A vocabulary, or the dict that it is made of; any object with its methods will do.
VocabLike: TypeAlias = Any
# A value for all axes, or a sequence of values: which values, each function says, and checks them.
PerAxis: TypeAlias = Any
# An argument or option that is handed on to the function that the docstring names, where it has its type.
Option: TypeAlias = Any
# A function or class of the user's, of any signature.
UserFunction: TypeAlias = Any
# A module, a function that is called as one, or none: parts are exchangeable, and each is called in its own way.
Part: TypeAlias = Any
# A module of another library, whose attributes are read.
ForeignModule: TypeAlias = Any
# What an attribute holds: modules hold anything.
Attribute: TypeAlias = Any
# What hooks see: the object, positional and named arguments, and the result of a method of any signature.
Hook: TypeAlias = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], Any]


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
    def dyn_size_ext(self) -> SizeTensor:
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

    def get_mask(self, *, device: Device = None) -> SizeTensor:
        """Where positions are no padding: bool over the axes of the sizes and this one."""
        raise NotImplementedError

    def reset_eager(self) -> None:
        """Forgets the sizes and all that was computed from them."""
        raise NotImplementedError


# An axis, its description as in layer nets, or its position.
AxisLike: TypeAlias = Axis | str | int


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
    def raw_tensor(self) -> RawTensor:
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
