"""Axes that convolutions and poolings give: `make_conv_out_spatial_dims`, `calc_conv_out_length` …"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch

from returnn_lite.errors import did_you_mean
from returnn_lite.frontend.defaults import consistent_same_padding
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.frontend.types import PerAxis
from returnn_lite.ops.windows import Spread, Window

Padding = str | int
Numbers = int | Dim | Sequence[int | Dim]
Length = TypeVar("Length", int, Dim, Tensor)  # each gives the same kind


def number_of(value: int | Dim) -> int:
    """A number, or that of an axis of fixed size."""
    found = value.dimension if isinstance(value, Dim) else value
    if not isinstance(found, int):
        raise WrongUse(f"a filter size, stride or dilation must be a number, but is {value!r} instead")
    return found


def per_axis(value: PerAxis, count: int, default: int = 1) -> list[PerAxis]:
    """One value for each axis of a value, or of a sequence of values."""
    if value is None:
        return [default] * count
    found = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * count
    if len(found) != count:
        raise WrongUse(f"{value!r} must have one value for each of the {count} axes")
    return found


def checked_padding(padding: Padding) -> Padding:
    """ "same", "valid" or a number."""
    if isinstance(padding, str):
        padding = padding.lower()
        if padding not in ("same", "valid"):
            hint = did_you_mean(padding, ["same", "valid"])
            raise WrongUse(f'`padding` must be "same", "valid" or a number, but is {padding!r} instead{hint}')
    return padding


def calc_conv_out_length(
    in_length: Length,
    *,
    filter_size: int | Dim,
    stride: int,
    padding: Padding,
    dilation_rate: int = 1,
    name: str | None = None,
) -> Length:
    """Positions after a convolution, of a number, an axis or a tensor of lengths.

    "same": ⌈n/s⌉. "valid": ⌈max(0, n - (k - 1) d) / s⌉. A number: valid, of so many more on both sides.
    """
    window = Window(number_of(filter_size), stride, dilation_rate, checked_padding(padding))
    if isinstance(in_length, Dim):
        return _axis_after(in_length, window)
    if isinstance(in_length, Tensor):
        return in_length._like(window.length(in_length.raw_tensor))
    return window.length(int(in_length))


def _axis_after(dim: Dim, window: Window) -> Dim:
    """The axis after a window went along; the same for the same axis and window."""
    if window.same:
        return dim.ceildiv_right(window.stride)
    added = 0 if isinstance(window.padding, str) else 2 * int(window.padding)  # type: ignore[arg-type]
    if dim.dimension is not None and dim.dimension + added < window.span:
        return Dim(0, name=f"{dim.name}:none")
    whole = dim + added if added else dim
    valid = whole.sub_right(window.span - 1) if window.span > 1 else whole
    return valid.ceildiv_right(window.stride)


def make_conv_out_spatial_dims(
    in_spatial_dims: Sequence[Dim],
    *,
    filter_size: Numbers,
    padding: Padding,
    strides: Numbers = 1,
    dilation_rate: Numbers = 1,
    description_prefix: str | None = None,
) -> list[Dim]:
    """The axes after a convolution or pooling; the same for the same axes and options."""
    count = len(in_spatial_dims)
    rows = zip(
        in_spatial_dims,
        per_axis(filter_size, count),
        per_axis(strides, count),
        per_axis(dilation_rate, count),
        strict=True,
    )
    return [
        calc_conv_out_length(dim, filter_size=size, stride=number_of(s), padding=padding, dilation_rate=number_of(d))
        for dim, size, s, d in rows
    ]


def calc_transposed_conv_out_length(
    in_length: Length,
    *,
    filter_size: int | Dim,
    padding: Padding,
    remove_padding: int = 0,
    output_padding: int | None = None,
    stride: int | None = None,
    dilation_rate: int = 1,
) -> Length:
    """Positions after a transposed convolution: n s + max(k - s, 0); by default the stride is the filter size."""
    size = number_of(filter_size)
    spread = spread_of(size, size if stride is None else stride, padding, remove_padding, output_padding)
    if isinstance(in_length, Dim):
        whole = in_length * spread.stride
        more = spread.added - 2 * spread.remove
        return whole + more if more > 0 else whole.sub_right(-more) if more < 0 else whole
    if isinstance(in_length, Tensor):
        return in_length._like(spread.length(in_length.raw_tensor))
    return spread.length(int(in_length))


def spread_of(size: int, stride: int, padding: Padding, remove: int, output_padding: int | None) -> Spread:
    """One axis of a transposed convolution."""
    if checked_padding(padding) not in ("valid", "same"):
        raise WrongUse(f'`padding` of a transposed convolution must be "valid" or "same", but is {padding!r} instead')
    return Spread(size, stride, padding == "same", output_padding, remove)


def make_transposed_conv_out_spatial_dims(
    in_spatial_dims: Sequence[Dim],
    *,
    filter_size: Numbers,
    padding: Padding,
    remove_padding: Numbers = 0,
    output_padding: PerAxis = None,
    strides: Numbers | None = None,
    dilation_rate: Numbers = 1,
    description_prefix: str | None = None,
) -> list[Dim]:
    """The axes after a transposed convolution."""
    count = len(in_spatial_dims)
    sizes = per_axis(filter_size, count)
    steps = sizes if strides is None else per_axis(strides, count)
    removed, added = per_axis(remove_padding, count), _each(output_padding, count)
    return [
        calc_transposed_conv_out_length(
            dim, filter_size=k, stride=number_of(s), padding=padding, remove_padding=r, output_padding=o
        )
        for dim, k, s, r, o in zip(in_spatial_dims, sizes, steps, removed, added, strict=True)
    ]


def _each(value: Any, count: int) -> list[int | None]:
    return [None] * count if value is None else per_axis(value, count)


def declared(made: Sequence[Dim], given: Sequence[Dim] | None) -> list[Dim]:
    """The axes that were asked for, now the same as those that were made; those made, if none were asked for."""
    if given is None:
        return list(made)
    if len(given) != len(made):
        raise WrongUse(f"there must be {len(made)} out_spatial_dims, but are {len(given)}")
    for out, dim in zip(given, made, strict=True):
        out.declare_same_as(dim)
    return list(given)


def margins(size: int, window: Window) -> tuple[int, int]:
    """How many positions to add on the left and right of an axis of this padded size, for "same" padding or another."""
    if not window.same:
        return (0, 0) if isinstance(window.padding, str) else (int(window.padding),) * 2  # type: ignore[arg-type]
    if window.stride > 1 and not consistent_same_padding():
        return window.margins(size, ragged=False)
    return (window.span - 1) // 2, window.span // 2


def flattened(source: Tensor, batch: Sequence[Dim], others: Sequence[Dim]) -> torch.Tensor:
    """The data with all `batch` axes as one in front. Shape: (N, *others)"""
    raw: torch.Tensor = source.copy_compatible_to_dims_raw((*batch, *others))
    if len(batch) == 1:
        return raw
    return raw.flatten(0, len(batch) - 1) if batch else raw.unsqueeze(0)


def unflattened(raw: torch.Tensor, source: Tensor, batch: Sequence[Dim]) -> torch.Tensor:
    """The inverse for the first axis."""
    if len(batch) == 1:
        return raw
    return raw.unflatten(0, [source.raw_tensor.shape[source.dims.index(dim)] for dim in batch]) if batch else raw[0]
