"""Names of dtypes, default dtypes and devices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch

from returnn_lite.errors import did_you_mean
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.types import RawTensor

BY_NAME: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128, torch.bool),
        *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    )
}


class _Names(dict[torch.dtype, str]):
    """The names of types; of others than those above what torch calls them."""

    def __missing__(self, dtype: torch.dtype) -> str:
        return str(dtype).removeprefix("torch.")


NAMES = _Names({dtype: name for name, dtype in BY_NAME.items()})
_FLOATS = {name for name, dtype in BY_NAME.items() if dtype.is_floating_point}
_TEXTS = ("string", "str", "object")
# The smallest positive number of each type, in the precision that log needs.
SMALLEST = {"float32": 1.4013e-45, "float64": 4.9407e-324, "float16": 6e-08, "bfloat16": 9.1835e-41}

_FLOAT: ContextVar[str] = ContextVar("default float dtype", default="float32")
_DEVICE: ContextVar[str | None] = ContextVar("default device", default=None)


def torch_dtype(name: str) -> torch.dtype:
    """The torch type of a name. WrongUse with the nearest name if there is none."""
    found = BY_NAME.get(name)
    if found is None:
        raise WrongUse(f"`dtype` must be the name of a type, but is {name!r} instead{did_you_mean(str(name), BY_NAME)}")
    return found


def name_of(raw: RawTensor) -> str:
    """The name of the type of a torch tensor or numpy array; "string" for texts."""
    if isinstance(raw, torch.Tensor):
        return NAMES[raw.dtype]
    dtype = np.asarray(raw).dtype
    return "string" if dtype.kind in "UOS" else dtype.name


def is_text(name: str) -> bool:
    """Whether values of this type are texts."""
    return name in _TEXTS


def is_float_dtype(dtype: str) -> bool:
    """Whether this is a type of real floating point numbers."""
    return dtype in _FLOATS


def is_integer(name: str) -> bool:
    """Whether values of this type are whole numbers; bool is not."""
    return name.startswith(("int", "uint"))


def get_default_float_dtype() -> str:
    """The default type of floats; "float32" unless set."""
    return _FLOAT.get()


def set_default_float_dtype(dtype: str) -> None:
    """Sets the default type of floats."""
    if not is_float_dtype(dtype):
        raise WrongUse(f"the default float dtype must be one of {sorted(_FLOATS)}, but is {dtype!r} instead")
    _FLOAT.set(dtype)


@contextmanager
def set_default_float_dtype_ctx(dtype: str | None) -> Iterator[None]:
    """While open, `dtype` is the default of floats; None changes nothing."""
    before = _FLOAT.get()
    if dtype is not None:
        set_default_float_dtype(dtype)
    try:
        yield
    finally:
        _FLOAT.set(before)


def get_default_int_dtype() -> str:
    """The default type of integers."""
    return "int32"


def get_default_array_index_dtype() -> str:
    """The default type of indices."""
    return "int32"


def get_default_device() -> str | None:
    """The device on which functions without input create tensors; None is torch's default."""
    return _DEVICE.get()


def set_default_device(device: str | None) -> None:
    """Sets the device on which functions without input create tensors."""
    _DEVICE.set(None if device is None else str(device))


@contextmanager
def set_default_device_ctx(device: str | None) -> Iterator[None]:
    """While open, functions without input create tensors on this device."""
    before = _DEVICE.get()
    set_default_device(device)
    try:
        yield
    finally:
        _DEVICE.set(before)


def get_default_dim_size_device() -> str:
    """Where lengths are: on the CPU, whatever the device of the tensors is."""
    return "cpu"
