"""What convolution and pooling share: which axes are spatial, their padding and their lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from returnn_lite.config.option_types import MAX_SIZE, is_int, shortened
from returnn_lite.config.values import plain
from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.core.base import Layer
from returnn_lite.ops import windows as windows_of
from returnn_lite.ops.windows import PADDINGS
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.tensor.axes import AxisText, axis


class Window(windows_of.Window):
    """A sliding window along an axis that is a Dim."""

    def out_dim(self, dim: Dim) -> Dim:
        """The output axis, whose lengths are those of `length`."""
        if self.keeps_axis:
            return dim
        if self.same:
            return dim.ceildiv(self.stride)
        wide = dim + 2 * self.padding if isinstance(self.padding, int) and self.padding else dim
        return wide.window(self.span, self.stride)


def windows(
    sizes: ConfigValue, strides: ConfigValue, dilation: ConfigValue, padding: ConfigValue
) -> tuple[Window, ...]:
    """One Window per spatial axis; numbers hold for all axes, sizes may be Dims. Raises ConfigError for an unknown
    padding, and for sizes, strides and dilations that are no positive ints."""
    listed = sizes if isinstance(sizes, (list, tuple)) else (sizes,)
    sizes = _positive("window size", tuple(n.size if isinstance(n, Dim) else n for n in listed))
    if not sizes:
        raise ConfigError("", "a window must have at least one axis, but has none")
    rank = len(sizes)
    paddings = [_padding(p) for p in _as_tuple(padding, rank)]
    strides = _positive("strides", _as_tuple(strides, rank))
    dilation = _positive("dilation_rate", _as_tuple(dilation, rank))
    rows = zip(sizes, strides, dilation, paddings, strict=True)
    return tuple(Window(*row) for row in rows)


def _positive(what: str, values: tuple[Any, ...]) -> tuple[int, ...]:
    for value in values:
        if not is_int(value) or not 1 <= plain(value) <= MAX_SIZE:
            text = f"`{what}` must be a positive int, or a list of one per axis, but has {shortened(value)} instead"
            raise ConfigError("", text)
    return tuple(int(value) for value in values)


def _padding(value: Any) -> str | int:
    if is_int(value) and 0 <= plain(value) <= MAX_SIZE:
        return int(value)
    if not isinstance(value, str) or value.lower() not in PADDINGS:
        hint = did_you_mean(str(value), PADDINGS)
        raise ConfigError("padding", f"invalid padding {value!r}{hint}; give one of {', '.join(PADDINGS)} or a number")
    return value.lower()


def _as_tuple(value: Any, rank: int) -> tuple[Any, ...]:
    if isinstance(value, (list, tuple)):
        if len(value) != rank:
            raise ConfigError("", f"one value per window axis is needed ({rank}), but {value!r} has {len(value)}")
        return tuple(value)
    return (value,) * rank


def spatial_axes(spec: Spec, named: AxisText, count: int, behavior: int) -> tuple[int, ...]:
    """The axes a window slides over: those named, else all but batch and feature, or of these the time axis alone.

    Raises ConfigError for a wrong number.
    """
    if named:
        listed = named if isinstance(named, (list, tuple)) else (named,)
        found = tuple(axis(spec, a, option="in_spatial_dims") for a in listed)
    else:
        if count > 1 and behavior >= 8:
            raise ConfigError("in_spatial_dims", "is required for more than one spatial axis (behavior_version >= 8)")
        batchlike = (spec.batch, spec.feature, *(spec.dims.index(d) for d in spec.loop))
        found = tuple(i for i in range(spec.rank) if i not in batchlike)
        if count == 1 < len(found) and spec.time in found:
            found = (spec.time,)
    if len(found) != count:
        raise ConfigError(
            "", f"the window has {count} axes, which does not match the {len(found)} spatial axes of the source {spec}"
        )
    return found


class Steps(Protocol):
    """What makes another axis out of one."""

    def out_dim(self, dim: Dim) -> Dim:
        """The output axis."""


def moved_axes(owner: Layer, spec: Spec, axes: Sequence[int], steps: Sequence[Steps], called: str = "") -> list[Dim]:
    """What becomes of the spatial axes: as the option `out_spatial_dims` of the layer says, or Dims of its own.

    Of these the i-th one, if it is a new axis, is called "<layer>:<called><i>".
    """
    new = [w.out_dim(spec.dims[i]) for i, w in zip(axes, steps, strict=True)]
    given = getattr(owner, "out_spatial_dims", None)
    if given is not None:
        if len(given) != len(new):
            raise owner.error(f"`out_spatial_dims` must have an entry per spatial axis, {len(new)}, but is {given!r}")
        return [owner.axis_dim(dim, made) for dim, made in zip(given, new, strict=True)]
    if not called:
        return new
    changed = [dim is not spec.dims[i] for dim, i in zip(new, axes, strict=True)]
    return [dim.named(f"{owner.name}:{called}{i}") if changed[i] else dim for i, dim in enumerate(new)]


def window_spec(spec: Spec, axes: Sequence[int], new: Sequence[Dim], feature: Dim | None) -> Spec:
    """The output: batch and all other axes, then the spatial ones, now `new`, then the features."""
    others = [spec.dims[i] for i in range(spec.rank) if i not in axes and i != spec.feature]
    last = [feature] if feature is not None else []
    dims = (*others, *new, *last)
    time = None
    if spec.time is not None:
        time = len(others) + axes.index(spec.time) if spec.time in axes else dims.index(spec.dims[spec.time])
    features = len(dims) - 1 if last else None
    if spec.feature in axes and not last:
        features = len(others) + axes.index(spec.feature)
    return Spec(dims, spec.dtype, time=time, feature=features, loop=spec.loop)


def channels_first(x: Tensor, axes: Sequence[int]) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Data as (N, channels, spatial …), N all other axes flattened; and the sizes of those other axes.

    A feature axis that is spatial is no channel.
    """
    spec = x.spec
    others = [i for i in range(spec.rank) if i not in axes and i != spec.feature]
    feature = [spec.feature] if spec.feature is not None and spec.feature not in axes else []
    data = x.data.permute((*others, *feature, *axes))
    if len(others) == len(feature) == 1:
        return data, (data.shape[0],)
    lead = tuple(data.shape[: len(others)])
    channels = data.shape[len(others)] if feature else 1
    return data.reshape((-1, channels, *data.shape[len(others) + len(feature) :])), lead


def channels_last(data: torch.Tensor, lead: tuple[int, ...], has_feature: bool = True) -> torch.Tensor:
    """The inverse of `channels_first` for an output: (N, channels, spatial …) -> (*lead, spatial …, channels)."""
    data = data.movedim(1, -1)
    if len(lead) == 1 and has_feature:
        return data
    return data.reshape((*lead, *data.shape[1:])) if has_feature else data.reshape((*lead, *data.shape[1:-1]))


def ragged(x: Tensor, axes: Sequence[int]) -> list[bool]:
    """Which of the axes have a length per sequence."""
    return [x.spec.dims[i].dynamic for i in axes]
