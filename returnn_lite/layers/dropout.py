"""Dropout of layer inputs, with its noise shapes."""

from __future__ import annotations

from typing import Any

import torch

from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.options import CommonOptions
from returnn_lite.ops import dropout as ops
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.axes import axes


def drop_input(x: Tensor, options: CommonOptions, training: bool, generator: torch.Generator, path: str) -> Tensor:
    """Zeroes inputs with probability `dropout` and scales the kept ones by 1 / (1 - dropout); only in training.

    The mask varies only along the axes of `noise_axes`: by default the feature axis, i.e. one mask for all frames and
    sequences. Raises ConfigError for sparse input and rates outside [0, 1).
    """
    rate = float(options.dropout or 0.0)
    if not 0.0 <= rate < 1.0:
        raise ConfigError(path, f"`dropout` must be in [0, 1), but is {options.dropout} instead")
    if x.spec.sparse:
        raise ConfigError(path, f"`dropout` needs dense input, but the input is {x.spec} instead")
    if not training and not options.dropout_on_forward:
        return x
    return dropped(x, rate, noise_axes(x.spec, options, path), generator)


def dropped(x: Tensor, rate: float, varying: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """`x` times a mask drawn along the `varying` axes; what else `x` carries (pre-activation …) ends."""
    shape = [n if i in varying else 1 for i, n in enumerate(x.data.shape)]
    return x.with_data(ops.dropped(x.data, shape, rate, generator), zero_padded=x.zero_padded)


def noise_axes(spec: Spec, options: CommonOptions, path: str) -> tuple[int, ...]:
    """The axes along which the dropout mask varies."""
    shape = options.dropout_noise_shape
    if options.dropout_axis is not None:
        if shape:
            raise ConfigError(path, "`dropout_axis` and `dropout_noise_shape` cannot be used together")
        return axes(spec, options.dropout_axis, option="dropout_axis")
    if isinstance(shape, (tuple, list)) and shape:
        if len(shape) != spec.rank:
            raise ConfigError(
                path, f"`dropout_noise_shape` must have {spec.rank} entries, but has {len(shape)} instead"
            )
        return tuple(i for i, n in enumerate(shape) if n in (None, -1))
    return _from_dict(spec, dict(shape or {}))


def _from_dict(spec: Spec, shape: dict[Any, Any]) -> tuple[int, ...]:
    """{axis: 1 | "x" (one value for all) | None | -1 (independent)}; key "*" is the default: the feature axis."""
    others = shape.pop("*", "feature only")
    everywhere = others in (None, -1)
    varying = set(range(spec.rank)) if everywhere else set()
    if others == "feature only" and spec.feature is not None:
        varying.add(spec.feature)
    for text, value in shape.items():
        for i in axes(spec, text, option="dropout_noise_shape"):
            if value in (None, -1):
                varying.add(i)
            else:
                varying.discard(i)
    return tuple(sorted(varying))
