"""What is marked in a step: as a Tensor, in the order of axes that is asked for, checked against what is declared."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from returnn_lite.frontend import dtypes
from returnn_lite.frontend.dim import Dim, batch_dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import show
from returnn_lite.frontend.tensor import Tensor, TensorLike

Dims = Sequence[Dim | int]


def named(value: TensorLike, dims: Dims | None, what: str) -> Tensor:
    """A Tensor of a number or torch tensor with these axes, numbers among them as fixed ones; a Tensor with its own.

    Without axes every entry counts.
    """
    if isinstance(value, Tensor):
        return value if dims is None else _in_order(value, dims, what)
    try:
        raw = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise WrongUse(f"{what} must be a Tensor, a torch tensor or a number, but is {value!r} instead") from None
    if dims is None:
        dims = [Dim(size, name=f"axis{i}") for i, size in enumerate(raw.shape)]
    found = tuple(dim if isinstance(dim, Dim) else Dim(int(dim)) for dim in dims)
    sizes = tuple(dim.dimension for dim in found)
    shape = tuple(raw.shape)
    if len(sizes) != len(shape) or any(a not in (None, b) for a, b in zip(sizes, shape, strict=True)):
        raise WrongUse(f"{what} must have the axes [{', '.join(map(plain_name, found))}], but its shape is {shape}")
    return Tensor._new(raw, found)


def plain_axes(value: TensorLike, name: str) -> Dims:
    """The axes of a torch tensor of which nothing is said: batch, and others without padding. ConfigError if the first
    one cannot be the batch.
    """
    shape, batch = tuple(torch.as_tensor(value).shape), batch_dim.padded_size()
    if not shape or shape[0] != batch:
        text = f"must have the {batch} sequences of the batch as first axis, but its shape is {shape}"
        hint = "give mark_as_output(…, dims=[…]), or declare it in `model_outputs`"
        raise WrongUse(f"forward_step: output {name!r} {text}; {hint}")
    return [batch_dim, *(Dim(size, name=f"{name}:axis{i}") for i, size in enumerate(shape[1:], 1))]


def plain_name(dim: Dim) -> str:
    """The axis as errors about torch tensors name it."""
    return f"{dim.name}({'?' if dim.dimension is None else dim.dimension})"


def ordered(tensor: Tensor, dims: Dims | None, expected: Tensor | None, name: str) -> Tensor:
    """The tensor with these axes in this order, else in that of what is expected, else batch, time, rest."""
    if dims is None and expected is not None:
        return _like_expected(tensor, expected, name)
    if dims is None:
        return tensor.copy_transpose(default_order(tensor, name))
    return _in_order(tensor, dims, f"output {name!r}")


def _in_order(tensor: Tensor, dims: Dims, what: str) -> Tensor:
    """The tensor with these axes, all of its own; numbers stand for the axis of this size."""
    wanted = tuple(dim if isinstance(dim, Dim) else _sized(tensor, int(dim), what) for dim in dims)
    if len(wanted) != len(tensor.dims) or any(dim not in tensor.dims for dim in wanted):
        raise WrongUse(f"{what} must have the axes {show(wanted)}, but has {show(tensor.dims)}")
    return tensor.copy_transpose(wanted)


def _sized(tensor: Tensor, size: int, what: str) -> Dim:
    found = [dim for dim in tensor.dims if dim.dimension == size]
    if len(found) != 1:
        raise WrongUse(f"{what} has no single axis of size {size}, but {show(tensor.dims)}")
    return found[0]


def default_order(tensor: Tensor, name: str) -> list[Dim]:
    """Batch, time, rest. ConfigError if more than one axis could be time or the rest."""
    batch = [dim for dim in tensor.dims if dim.is_batch_dim()]
    dynamic = [dim for dim in tensor.dims if dim.is_dynamic() and not dim.is_batch_dim()]
    static = [dim for dim in tensor.dims if dim.is_static()]
    if len(tensor.dims) > 1 and (len(dynamic) > 1 or len(static) > 1):
        raise WrongUse(f"forward_step: output {name!r} must be given the order of its axes, dims=…: {tensor}")
    return [*batch, *dynamic, *static]


def _like_expected(tensor: Tensor, expected: Tensor, name: str) -> Tensor:
    """In the order of what is expected; axes of it that are not known yet stand for those that are left."""
    left = [dim for dim in tensor.dims if dim not in expected.dims]
    order: list[Dim] = []
    for dim in expected.dims:
        if dim in tensor.dims:
            order.append(dim)
            continue
        fits = [d for d in left if d.is_static() == dim.is_static() and dim.dimension in (None, d.dimension)]
        if not fits:
            raise WrongUse(f"forward_step: output {name!r} must have the axes {show(expected.dims)}, but is {tensor}")
        order.append(fits[0])
        left.remove(fits[0])
    if left:
        raise WrongUse(f"forward_step: output {name!r} must have the axes {show(expected.dims)}, but is {tensor}")
    return tensor.copy_transpose(order)


def with_roles(value: Tensor, expected: Tensor | None) -> Tensor:
    """The tensor with the classes and the feature axis of what is expected."""
    if expected is not None:
        value.sparse_dim = expected.sparse_dim
        value.feature_dim_axis = expected.feature_dim_axis
    return value


def check_output(name: str, value: Tensor, expected: Tensor, *, strict: bool) -> None:
    """ConfigError if an output is not as `model_outputs` declares it. Sizes that are not known there become known.

    strict: whether the dtype must be that, too; half precision is as good as single, and so is the default of floats.
    """
    what = f"output {name!r} must be {expected}, as `model_outputs` declares, but is {value}"
    for dim, want in zip(value.dims, expected.dims, strict=True):
        if dim.is_static() != want.is_static() and want.is_dim_known():
            raise WrongUse(f"forward_step: {what}")
        if want.is_static() and dim.dimension != want.dimension:
            raise WrongUse(f"forward_step: {what}")
        if dim != want and not want.is_static() and not want.is_dim_known_in_batch() and not want.is_batch_dim():
            want.dyn_size_ext = dim.dyn_size_ext
    alike = {"float32", "bfloat16", "float16", dtypes.get_default_float_dtype()}
    floats = {value.dtype, expected.dtype} <= alike
    if value.dtype != expected.dtype and not floats and strict:
        raise WrongUse(f"forward_step: {what}")
    classes = [None if x.sparse_dim is None else (x.sparse_dim.dimension,) for x in (value, expected)]
    if classes[0] != classes[1]:
        raise WrongUse(f"forward_step: {what}")
