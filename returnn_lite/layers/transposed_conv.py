"""`transposed_conv`: up-sampling by a learned filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from returnn_lite.config.option_types import MAX_SIZE, PositiveInt, is_int, shortened
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.activations import activated
from returnn_lite.layers.activations import activation as find_activation
from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.spatial import channels_first, channels_last, moved_axes, spatial_axes, window_spec
from returnn_lite.ops import windows
from returnn_lite.ops.convolution import transposed_convolution
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.masked import fill_padding

_MODES = ("same", "valid")


class Spread(windows.Spread):
    """One axis of a transposed convolution that is a Dim."""

    def out_dim(self, dim: Dim) -> Dim:
        """The output axis, whose lengths are those of `length`."""
        return dim * self.stride + (self.added - 2 * self.remove)


@layer("transposed_conv")
class TransposedConv(Layer):
    """Every frame adds W-weighted copies of itself to `filter_size` output frames.  Shape: (B, T, F) -> (B, T', n_out)

    full[i * stride + j] += x[i] W[j]; `padding` "same": T' = T * stride, "valid": plus max(filter - stride, 0); with
    `output_padding` p: T' = T * stride + filter - stride - 2 pad + p. `remove_padding`: frames cut off at both ends.
    `strides` is `filter_size` by default. Parameters: `W_native_transposed_conv` (filter …, n_out, F) with a second
    filter axis of size 1 in the one-dimensional case; `bias` (n_out,). `out_spatial_dims`: Dims of the resulting
    spatial axes. Frames after a sequence end count unless
    `use_time_mask`.
    """

    recurrent = True
    lets_padding_through = True

    def __init__(
        self,
        *,
        filter_size: Any,
        n_out: PositiveInt | None = None,
        strides: Any = None,
        padding: str = "same",
        remove_padding: Any = 0,
        output_padding: Any = None,
        activation: str | None = None,
        with_bias: bool = True,
        in_spatial_dims: AxisText = None,
        out_spatial_dims: Sequence[Dim] | None = None,
        forward_weights_init: Any = "glorot_uniform",
        bias_init: Any = 0.0,
        filter: LayerRef | None = None,  # noqa: A002 - the config word
        bias: LayerRef | None = None,
        use_time_mask: bool = False,
    ) -> None:
        super().__init__()
        sizes = tuple(filter_size) if isinstance(filter_size, (list, tuple)) else (filter_size,)
        if len(sizes) not in (1, 2):
            raise self.error(f"`filter_size` must have 1 or 2 entries, but has {len(sizes)} instead")
        if not isinstance(padding, str) or padding.lower() not in _MODES:
            raise ConfigError(
                "", f"invalid padding {padding!r}{did_you_mean(str(padding), _MODES)}; give one of {', '.join(_MODES)}"
            )
        steps = filter_size if strides is None else strides
        given = {"strides": steps, "output_padding": output_padding, "remove_padding": remove_padding}
        rows = [_listed(v, len(sizes)) for v in given.values()]
        for option, values in (("filter_size", sizes), *zip(given, rows, strict=True)):
            self._check_numbers(option, values)
        same = padding.lower() == "same"
        self.spreads = tuple(Spread(k, s, same, p, r) for k, s, p, r in zip(sizes, *rows, strict=True))
        self.n_out = n_out
        self.activation_text = activation
        self.activation = find_activation(None)
        self.with_bias = with_bias
        self.in_spatial_dims = in_spatial_dims
        self.out_spatial_dims = out_spatial_dims
        self.weights_init = forward_weights_init
        self.bias_init = bias_init
        self.filter = filter
        self.bias: Any = bias  # the name of a layer until `build`
        self.use_time_mask = use_time_mask

    def _check_numbers(self, option: str, values: tuple[Any, ...]) -> None:
        least = 1 if option in ("filter_size", "strides") else 0
        for value in values:
            if value is None and option == "output_padding":
                continue
            if not is_int(value) or not least <= value <= MAX_SIZE:
                raise self.error(f"`{option}` must be an int of at least {least}, but is {shortened(value)} instead")

    def _axes(self, x: Spec) -> tuple[int, ...]:
        if x.sparse or x.feature is None:
            raise self.error(f"the source needs a feature axis, but is {x} instead")
        return spatial_axes(x, self.in_spatial_dims, len(self.spreads), self.behavior)

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """Batch axes, spatial axes with new lengths, features."""
        if x is None:
            return None
        axes = self._axes(x)
        new = moved_axes(self, x, axes, self.spreads)
        return window_spec(x, axes, new, self.feature_dim(self.n_out, name="channel"))

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """`W_native_transposed_conv`, `bias`."""
        self.activation = find_activation(self.activation_text, self.context.eval_names, path=self.path)
        out = self.spec(*sources)
        n_in, n_out = sources[0].dim, out.dim if out is not None else None
        if n_in is None or n_out is None:
            raise self.error(f"the feature axis of the source has no size: {sources[0]}")
        if self.filter is None:
            sizes = [s.size for s in self.spreads]
            shape = (*sizes, *([1] if len(sizes) == 1 else []), n_out, n_in)
            self.W = self.param("W_native_transposed_conv", shape, self.weights_init)
        own = self.with_bias and self.bias is None
        del self.bias
        self.bias = self.param("bias", (n_out,), self.bias_init) if own else None

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """The spread source."""
        axes = self._axes(x.spec)
        if self.use_time_mask:
            x = x.with_data(fill_padding(x, 0.0, axes))
        data, lead = channels_first(x, axes)
        bias = refs["bias"].data.reshape(-1) if "bias" in refs else self.bias
        data = channels_last(transposed_convolution(data, self._weights(refs.get("filter")), self.spreads), lead)
        if bias is not None:
            data = data + bias
        out = self.spec(x.spec, **{k: t.spec for k, t in refs.items()})
        return activated(x.with_data(data, out), self.activation, -1, self.options)

    def _weights(self, given: Tensor | None) -> torch.Tensor:
        """The filter as torch wants it: (F, n_out, filter …)."""
        weights = self.W if given is None else given.data
        if len(self.spreads) == 1 and weights.dim() == 4:
            weights = weights.squeeze(1)
        rank = weights.dim()
        return weights.permute((rank - 1, rank - 2, *range(rank - 2)))


def _listed(value: Any, rank: int) -> tuple[Any, ...]:
    """One value per axis; a single value holds for all."""
    if not isinstance(value, (list, tuple)):
        return (value,) * rank
    if len(value) != rank:
        raise ConfigError("", f"one value per filter axis is needed ({rank}), but {value!r} has {len(value)}")
    return tuple(value)
