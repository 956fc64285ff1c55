"""How calls of torch are written in Python."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch.overrides import resolve_name

T = torch.Tensor


def _getter(name: str) -> Callable[..., Any]:
    """The function that reads a property of tensors."""
    found: Callable[..., Any] = T.__dict__[name].__get__ if name in T.__dict__ else getattr(T, name).__get__
    return found


# Questions about a tensor whose answers shapes and types give already.
IGNORED = frozenset(
    {T.dim, T.size, T.numel, T.is_floating_point, T.is_complex, T.__len__, T.is_contiguous, T.stride, T.element_size,
     torch.is_floating_point, torch.is_complex, torch.numel, T.ndimension, T.type, T.is_signed, T.get_device,
     T.data_ptr, T.storage_offset, torch.is_tensor, T.__repr__, T.__format__, T.__hash__, T.register_hook,
     T.is_pinned, T.nelement, T.untyped_storage}
)  # fmt: skip
# What gives the same numbers as an object of its own.
ALIASES = frozenset({T.detach, _getter("data"), T.requires_grad_})
PROPERTIES = {_getter(name): f".{name}" for name in ("T", "mT", "H", "mH", "real", "imag")}
NUMBERS = frozenset({T.__int__, T.__bool__, T.__index__, T.item, T.__float__, T.tolist})

INFIX: dict[Callable[..., Any], str] = {
    T.add: "+", T.__add__: "+", T.sub: "-", T.__sub__: "-", T.mul: "*", T.__mul__: "*", T.div: "/", T.true_divide: "/",
    T.__truediv__: "/", T.__floordiv__: "//", T.pow: "**", T.__pow__: "**", T.__mod__: "%", T.eq: "==", T.__eq__: "==",
    T.ne: "!=", T.__ne__: "!=", T.lt: "<", T.__lt__: "<", T.le: "<=", T.__le__: "<=", T.gt: ">", T.__gt__: ">",
    T.ge: ">=", T.__ge__: ">=", T.__and__: "&", T.__or__: "|", T.__xor__: "^", T.matmul: "@", T.__matmul__: "@",
    torch.add: "+", torch.sub: "-", torch.mul: "*", torch.div: "/", torch.matmul: "@",
}  # fmt: skip
REVERSED = {T.__radd__: "+", T.__rsub__: "-", T.__rmul__: "*", T.__rdiv__: "/", T.__rtruediv__: "/",
            T.__rpow__: "**", T.__rfloordiv__: "//", torch.rsub: "-"}  # fmt: skip
IN_PLACE = {T.__iadd__: "+=", T.__isub__: "-=", T.__imul__: "*=", T.__itruediv__: "/="}
PREFIX = {T.neg: "-", T.__neg__: "-", T.__invert__: "~", torch.neg: "-"}


@functools.cache
def _names() -> dict[Any, str]:
    """The public name of each function of torch."""
    found: dict[Any, str] = {}
    rooms = ("torch", torch), ("F", F), ("torch.special", torch.special), ("torch.linalg", torch.linalg)
    for prefix, room in (*rooms, ("torch.fft", torch.fft)):
        for name in dir(room):
            value = getattr(room, name)
            if callable(value) and not name.startswith("_"):
                try:
                    found.setdefault(value, f"{prefix}.{name}")
                except TypeError:
                    continue
    return found


def name_of(function: Callable[..., Any]) -> str:
    """`F.linear`, `torch.cat`, or `.permute` for a method of tensors. Raises ValueError for what has no public name."""
    known = _names().get(function)
    if known is not None:
        return known
    resolved: str = resolve_name(function) or getattr(function, "__qualname__", "")
    if resolved.startswith("torch.Tensor."):
        return resolved[len("torch.Tensor") :]
    name = getattr(function, "__name__", "")
    for prefix, room in (("F", F), ("torch", torch)):
        if callable(getattr(room, name, None)):
            return f"{prefix}.{name}"
    raise ValueError(f"it calls {resolved or function}, which a file of plain calls cannot")


def changes_in_place(function: Callable[..., Any]) -> bool:
    """Whether a function writes into its first argument."""
    name = getattr(function, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or function in IN_PLACE or function is T.__setitem__


def draws(function: Callable[..., Any]) -> bool:
    """Whether a function draws random numbers."""
    name = getattr(function, "__name__", "")
    return "rand" in name or name.rstrip("_") in ("dropout", "bernoulli", "multinomial", "normal", "uniform")
