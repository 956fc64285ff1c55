"""Tensors as TensorFlow code expects them: dtypes, conversion of Python numbers, the attributes torch lacks.

A result computed from a `TFTensor` is one again (torch does that), and so is what any function of `tf` gives.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves

from returnn_lite.compat.tf.texts import numbers_of, texts_of
from returnn_lite.errors import ConfigError, did_you_mean


@dataclass
class Context:
    """What the functions that make tensors out of nothing need: where, by which random numbers, and the train flag.

    `generator` None: torch's own. It must be of the same device.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    generator: torch.Generator | None = None
    train: bool = False


DTYPES: dict[str, Any] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "bool": torch.bool,
    "complex64": torch.complex64,
    "complex128": torch.complex128,
    "string": "string",
}


def to_dtype(dtype: Any) -> torch.dtype:
    """torch's dtype for a torch, numpy or Python one or a name. ConfigError if there is none."""
    if isinstance(dtype, torch.dtype):
        return dtype
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    found = DTYPES.get(name)
    if not isinstance(found, torch.dtype):
        raise ConfigError("", f'unknown dtype "{name}"{did_you_mean(name, DTYPES)}')
    return found


class TensorShape(tuple[Any, ...]):  # noqa: SLOT000 - nothing to gain
    """The sizes of all axes: a tuple with TensorFlow's attributes."""

    def __new__(cls, dims: Iterable[Any] | None = ()) -> TensorShape:
        return super().__new__(cls, () if dims is None else dims)

    @property
    def ndims(self) -> int:
        """Number of axes."""
        return len(self)

    rank = ndims

    @property
    def dims(self) -> list[Dimension]:
        """The sizes as objects with `.value`."""
        return [Dimension(size) for size in self]

    def as_list(self) -> list[int]:
        """The sizes."""
        return list(self)

    def is_fully_defined(self) -> bool:
        """Whether no size is None."""
        return None not in self

    def num_elements(self) -> int:
        """The product of the sizes."""
        return int(np.prod(self, dtype="int64"))

    numel = num_elements


@dataclass(frozen=True)
class Dimension:
    """One size."""

    value: int | None


class TFTensor(torch.Tensor):
    """A torch tensor with the methods and operators of TensorFlow's that config code uses."""

    @property
    def shape(self) -> TensorShape:  # type: ignore[override]
        """The sizes."""
        return TensorShape(self.size())

    def get_shape(self) -> TensorShape:
        """The sizes."""
        return self.shape

    def set_shape(self, shape: Any) -> None:
        """Does nothing: all sizes are known."""

    def __getitem__(self, index: Any) -> Tensor:
        """Also slices with a negative step."""
        parts = list(index) if isinstance(index, tuple) else [index]
        if not any(_backwards(part) for part in parts):
            return super().__getitem__(index)
        # First everything else, then the backward slices, each on the axis where it has ended up.
        result = super().__getitem__(tuple(slice(None) if _backwards(part) else part for part in parts))
        for place, part in enumerate(parts):
            if not _backwards(part):
                continue
            if Ellipsis in parts[:place]:
                axis = result.dim() - sum(_keeps_axis(after) for after in parts[place:])
            else:
                axis = sum(_keeps_axis(before) for before in parts[:place])
            bounds = [None if x is None else int(x) for x in (part.start, part.stop, part.step)]
            picked = range(*slice(*bounds).indices(result.size(axis)))
            result = result.index_select(axis, torch.tensor(list(picked), dtype=torch.int64, device=result.device))
        return result

    def __truediv__(self, other: Any) -> Tensor:
        return true_divide(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return true_divide(other, self)


def _backwards(part: Any) -> bool:
    return isinstance(part, slice) and part.step is not None and int(part.step) < 0


def _keeps_axis(part: Any) -> bool:
    return part is None or isinstance(part, slice)


def _in_left_dtype(method: Callable[[Tensor, Any], Tensor]) -> Callable[[Tensor, Any], Tensor]:
    """TensorFlow never widens int32 to int64 or float32 to float64 in mixed arithmetic."""

    def apply(self: Tensor, other: Any) -> Tensor:
        return method(self, _same_kind(other, self) if isinstance(other, Tensor) else other)

    return apply


for _name in ("add", "sub", "mul", "floordiv", "mod", "pow"):
    setattr(TFTensor, f"__{_name}__", _in_left_dtype(getattr(torch.Tensor, f"__{_name}__")))


class RecordedTensor(TFTensor, FakeTensor):
    """A `TFTensor` without numbers, while layers are recorded for `torch_compile`."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """torch computes with tensors of its own class alone; results are like those of a `TFTensor`."""
        given = [x for x in tree_leaves((args, kwargs)) if type(x) is cls]
        for x in given:
            x.__class__ = FakeTensor  # type: ignore[assignment]
        try:
            with torch._C.DisableTorchFunctionSubclass():
                result = func(*args, **(kwargs or {}))
        finally:
            for x in given:
                x.__class__ = cls
        for x in tree_leaves(result):
            if type(x) is FakeTensor:
                x.__class__ = cls
        return result


def _recorded(x: FakeTensor, kind: type[FakeTensor]) -> Any:
    """The same tensor as one of this class."""
    before, x.__class__ = type(x), FakeTensor
    made = torch.ops.aten.alias(x)
    x.__class__ = before
    made.__dict__.update({key: value for key, value in x.__dict__.items() if key not in made.__dict__})
    made.__class__ = kind
    return made


class TextTensor(TFTensor):
    """Texts, as their numbers (`texts.py`): `+` joins them, and int64 results of torch are texts again."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Results other than numbers of texts are tensors as usual."""
        result = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        return result.as_subclass(TFTensor) if isinstance(result, Tensor) and result.dtype != torch.int64 else result

    def __add__(self, other: Any) -> Tensor:
        return _joined(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return _joined(other, self)

    def texts(self) -> Any:
        """As nested lists of str, or one str."""
        return texts_of(self.tolist())


def _joined(x: Any, y: Any) -> Tensor:
    first, second = torch.broadcast_tensors(*[as_tensor(part).as_subclass(torch.Tensor) for part in (x, y)])
    pairs = zip(texts_of(first.reshape(-1).tolist()), texts_of(second.reshape(-1).tolist()), strict=True)
    made = torch.tensor(numbers_of([a + b for a, b in pairs]), dtype=torch.int64, device=first.device)
    return made.reshape(first.size()).as_subclass(TextTensor)


def wrap(x: Tensor, dtype: str | None = None) -> TFTensor:
    """The same tensor with TensorFlow's attributes. An exact logarithm (of a softmax …) stays known.

    `dtype`: "string" if it holds numbers of texts.
    """
    if dtype == "string":
        return x.as_subclass(TextTensor)
    if isinstance(x, TFTensor):
        return x
    if isinstance(x, FakeTensor):
        wrapped: TFTensor = _recorded(x, RecordedTensor)
        return wrapped
    wrapped = x.as_subclass(TFTensor)
    if x.__dict__:
        wrapped.__dict__.update(x.__dict__)
    return wrapped


def unwrap(x: Any) -> Any:
    """The same tensor as a plain one, also within tuples, lists and dicts; other things as they are."""
    if isinstance(x, RecordedTensor):
        return _recorded(x, FakeTensor)
    if isinstance(x, TFTensor):
        plain = x.as_subclass(torch.Tensor)
        plain.__dict__.update(x.__dict__)
        return plain
    if isinstance(x, dict):
        return {key: unwrap(value) for key, value in x.items()}
    if type(x) in (list, tuple):
        return type(x)(unwrap(value) for value in x)
    return x


def wrap_all(x: Any, texts: bool = False) -> Any:
    """Tensors wrapped, also within tuples and lists; other things as they are. `texts`: int64 holds texts."""
    if isinstance(x, Tensor):
        return wrap(x, "string" if texts and x.dtype == torch.int64 else None)
    if isinstance(x, (tuple, list)) and not isinstance(x, torch.Size):
        parts = [wrap_all(part, texts) for part in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    return x


def wrap_like(x: Tensor, *others: Any) -> Tensor:
    """Wrapped if one of the others is: for results that are not computed out of them by torch."""
    return wrap(x) if any(isinstance(other, TFTensor) for other in others) else x


def as_tensor(value: Any, dtype: Any = None, *, device: torch.device | None = None) -> Tensor:
    """A tensor of a tensor, array, number, or nested list of these.

    Python floats become float32, ints int32 (int64 where they must), bools bool; arrays keep their dtype.
    """
    if dtype is not None and dtype != "string":
        dtype = to_dtype(dtype)
    if isinstance(value, Tensor):
        return value if dtype is None or dtype == value.dtype else cast(value, dtype)
    if isinstance(value, (list, tuple)) and _has_tensor(value):
        parts = [as_tensor(part, dtype, device=device) for part in value]
        return torch.stack(common(parts))
    array = np.asarray(value)
    if array.dtype.kind == "U" or dtype == "string":
        return torch.tensor(numbers_of(array.tolist()), dtype=torch.int64, device=device).as_subclass(TextTensor)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"a tensor cannot be made of {value!r}")
    if dtype is None:
        dtype = _dtype_of(value, array)
    return torch.as_tensor(array, device=device).to(dtype)


def _has_tensor(values: Sequence[Any]) -> bool:
    return any(
        isinstance(value, Tensor) or (isinstance(value, (list, tuple)) and _has_tensor(value)) for value in values
    )


def _dtype_of(value: Any, array: np.ndarray) -> torch.dtype:
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    if isinstance(value, (np.ndarray, np.generic)):
        return to_dtype(array.dtype)
    if array.dtype.kind == "i":
        fits = array.size == 0 or (array.min() >= -(2**31) and array.max() < 2**31)
        return torch.int32 if fits else torch.int64
    return {"b": torch.bool, "c": torch.complex64}.get(array.dtype.kind, torch.float32)


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Floats become ints by cutting off, numbers become bools by != 0."""
    return x != 0 if dtype == torch.bool and x.dtype != torch.bool else x.to(dtype)


def common(parts: Sequence[Tensor]) -> list[Tensor]:
    """All in the dtype of the first that is float (else of the first), on the one device that is no CPU, if any."""
    first = next((part for part in parts if part.is_floating_point()), parts[0])
    device = next((part.device for part in parts if part.device.type != "cpu"), first.device)
    return [part.to(device, first.dtype) for part in parts]


def pair(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Two tensors ready for a binary operation. A number takes the dtype of the tensor.

    TypeError: a float where the tensor holds ints.
    """
    if not isinstance(x, Tensor):
        if not isinstance(y, Tensor):
            x, y = as_tensor(x), as_tensor(y)
            return (x.to(y.dtype), y) if y.is_floating_point() else (x, y.to(torch.promote_types(x.dtype, y.dtype)))
        return _number_like(x, y), y
    if not isinstance(y, Tensor):
        return x, _number_like(y, x)
    y = _same_kind(y, x)
    if x.device != y.device and x.dim() and y.dim():
        # Shapes and the like live on the CPU.
        device = x.device if y.device.type == "cpu" else y.device
        x, y = x.to(device), y.to(device)
    return x, y


def _number_like(value: Any, tensor: Tensor) -> Tensor:
    number = as_tensor(value, device=tensor.device if isinstance(value, (list, tuple, np.ndarray)) else None)
    if number.dtype == tensor.dtype:
        return number
    if number.is_floating_point() and not (tensor.is_floating_point() or tensor.is_complex()):
        raise TypeError(f"expected {tensor.dtype}, but got the float {value!r}")
    return number.to(tensor.dtype)


def _same_kind(y: Tensor, x: Tensor) -> Tensor:
    if x.dtype == y.dtype or torch.bool in (x.dtype, y.dtype) or x.is_floating_point() != y.is_floating_point():
        return y
    return y.to(x.dtype)


def true_divide(x: Any, y: Any) -> Tensor:
    """x / y; of two ints float64."""
    x, y = (part if isinstance(part, Tensor) else as_tensor(part) for part in (x, y))
    if not (x.is_floating_point() or y.is_floating_point() or x.is_complex() or y.is_complex()):
        return torch.true_divide(x.double(), y.double())
    return torch.true_divide(x, _same_kind(y, x))


def to_int(value: Any) -> int:
    """A Python int of an int or a scalar tensor."""
    return operator.index(value)


def to_ints(values: Any) -> list[int]:
    """Python ints of a shape: a list of ints and scalar tensors, a vector, or one int."""
    if isinstance(values, Tensor):
        return values.reshape(-1).tolist()
    if isinstance(values, (list, tuple)):
        return [-1 if value is None else operator.index(value) for value in values]
    if isinstance(values, np.ndarray):
        return [int(value) for value in values.reshape(-1)]
    return [operator.index(values)]


def to_axes(axis: Any, rank: int) -> list[int]:
    """Axes as non-negative ints; None = all."""
    return list(range(rank)) if axis is None else [a % rank for a in to_ints(axis)]
