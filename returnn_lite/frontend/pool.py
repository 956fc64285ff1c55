"""Pooling over axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

import returnn_lite.ops.convolution as ops_convolution
from returnn_lite.frontend.conv import masked_input, without
from returnn_lite.frontend.conv_sizes import (
    Numbers,
    Padding,
    checked_padding,
    declared,
    flattened,
    make_conv_out_spatial_dims,
    margins,
    number_of,
    per_axis,
    unflattened,
)
from returnn_lite.frontend.defaults import consistent_same_padding
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.sizes import use_mask_default
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.ops.windows import Window, pad_axes

_FILL = {"max": float("-inf"), "avg": 0.0}


def pool(
    source: Tensor,
    *,
    nd: int | None = None,
    mode: str,
    pool_size: Numbers,
    padding: Padding = "valid",
    dilation_rate: Numbers = 1,
    strides: Numbers | None = None,
    in_spatial_dims: Sequence[Dim] | Dim,
    out_spatial_dims: Sequence[Dim] | Dim | None = None,
    use_mask: bool | None = None,
) -> tuple[Tensor, list[Dim]]:
    """The largest value ("max") or the mean ("avg") in windows: (tensor, the new spatial axes).

    Axes: the others, then the spatial ones. By default the strides are the window sizes. What "same" padding or a
    number adds does not count. use_mask: whether frames after the end count not (max), or as 0 (avg).
    """
    if mode not in _FILL:
        raise WrongUse(f'`mode` of pool must be "max" or "avg", but is {mode!r} instead')
    spatial = [in_spatial_dims] if isinstance(in_spatial_dims, Dim) else list(in_spatial_dims)
    given = [out_spatial_dims] if isinstance(out_spatial_dims, Dim) else out_spatial_dims
    count = len(spatial)
    if nd is not None and nd != count:
        raise WrongUse(f"pool{nd}d needs {nd} spatial axes, but got {count}")
    sizes = [number_of(k) for k in per_axis(pool_size, count)]
    steps = sizes if strides is None else [number_of(s) for s in per_axis(strides, count)]
    dilations = [number_of(d) for d in per_axis(dilation_rate, count)]
    if mode == "avg" and any(d != 1 for d in dilations):
        raise WrongUse("pool: only the mode max has a `dilation_rate`")
    batch = without(source, spatial, "pool")
    default = use_mask_default(default=True, default_false_for_behavior_version_up_to=22, func_name="pool")
    mask = default if use_mask is None else use_mask
    source = masked_input(source, spatial, mask, "pool", _FILL[mode])
    made = make_conv_out_spatial_dims(
        spatial, filter_size=sizes, padding=padding, strides=steps, dilation_rate=dilations
    )
    outs = declared(made, given)
    raw = flattened(source, batch, spatial).unsqueeze(1)
    windows = [Window(k, s, d, checked_padding(padding)) for k, s, d in zip(sizes, steps, dilations, strict=True)]
    found = unflattened(_pooled(raw, windows, mode).squeeze(1), source, batch)
    feature = source.feature_dim
    at = batch.index(feature) if feature is not None and feature in batch else None
    result = source._new(found, (*batch, *outs), feature_axis=at, name="pool")
    return result.copy_masked(0, dims=outs) if mask and mode == "max" else result, outs


def _pooled(raw: torch.Tensor, windows: Sequence[Window], mode: str) -> torch.Tensor:
    """Shape: (N, 1, n …) -> (N, 1, n' …)"""
    added = [margins(n, w) for n, w in zip(raw.shape[2:], windows, strict=True)]
    ragged = [False] * len(windows)
    if mode == "max":
        placed = [Window(w.size, w.stride, w.dilation, m) for w, m in zip(windows, added, strict=True)]
        return ops_convolution.max_pool(raw, placed, ragged=ragged)
    # Zeros that "same" padding adds for a window of even size count, by the consistent rule.
    counts = [w.same and w.stride != 1 and w.size % 2 == 0 and consistent_same_padding() for w in windows]
    raw = pad_axes(raw, [m if c else (0, 0) for m, c in zip(added, counts, strict=True)])
    placed = [
        Window(w.size, w.stride, w.dilation, (0, 0) if c else m) for w, m, c in zip(windows, added, counts, strict=True)
    ]
    return ops_convolution.average_pool(raw, placed, ragged=ragged, count_margins=False)


def pool1d(
    source: Tensor,
    *,
    mode: str,
    pool_size: int | Dim,
    padding: Padding = "valid",
    dilation_rate: int | Dim = 1,
    strides: int | Dim | None = None,
    in_spatial_dim: Dim,
    out_spatial_dim: Dim | None = None,
    use_mask: bool | None = None,
) -> tuple[Tensor, Dim]:
    """`pool` over one axis: (tensor, the new axis)."""
    found, (out,) = pool(
        source,
        nd=1,
        mode=mode,
        pool_size=pool_size,
        padding=padding,
        dilation_rate=dilation_rate,
        strides=strides,
        in_spatial_dims=[in_spatial_dim],
        out_spatial_dims=None if out_spatial_dim is None else [out_spatial_dim],
        use_mask=use_mask,
    )
    return found, out


def max_pool1d(
    source: Tensor,
    *,
    pool_size: int | Dim,
    padding: Padding = "valid",
    dilation_rate: int | Dim = 1,
    strides: int | Dim | None = None,
    in_spatial_dim: Dim,
    out_spatial_dim: Dim | None = None,
) -> tuple[Tensor, Dim]:
    """`pool1d` by the largest value."""
    return pool1d(
        source,
        mode="max",
        pool_size=pool_size,
        padding=padding,
        dilation_rate=dilation_rate,
        strides=strides,
        in_spatial_dim=in_spatial_dim,
        out_spatial_dim=out_spatial_dim,
    )


def _pool_over(nd: int) -> Callable[..., tuple[Tensor, list[Dim]]]:
    def call(
        source: Tensor,
        *,
        mode: str,
        pool_size: Numbers,
        padding: Padding = "valid",
        dilation_rate: Numbers = 1,
        strides: Numbers | None = None,
        in_spatial_dims: Sequence[Dim],
        out_spatial_dims: Sequence[Dim] | None = None,
        use_mask: bool | None = None,
    ) -> tuple[Tensor, list[Dim]]:
        return pool(
            source,
            nd=nd,
            mode=mode,
            pool_size=pool_size,
            padding=padding,
            dilation_rate=dilation_rate,
            strides=strides,
            in_spatial_dims=in_spatial_dims,
            out_spatial_dims=out_spatial_dims,
            use_mask=use_mask,
        )

    call.__name__ = call.__qualname__ = f"pool{nd}d"
    call.__doc__ = f"`pool` over {nd} axes."
    return call


def _max_pool_over(nd: int | None) -> Callable[..., tuple[Tensor, list[Dim]]]:
    def call(
        source: Tensor,
        *,
        pool_size: Numbers,
        padding: Padding = "valid",
        dilation_rate: Numbers = 1,
        strides: Numbers | None = None,
        in_spatial_dims: Sequence[Dim],
        out_spatial_dims: Sequence[Dim] | None = None,
    ) -> tuple[Tensor, list[Dim]]:
        return pool(
            source,
            nd=nd,
            mode="max",
            pool_size=pool_size,
            padding=padding,
            dilation_rate=dilation_rate,
            strides=strides,
            in_spatial_dims=in_spatial_dims,
            out_spatial_dims=out_spatial_dims,
        )

    call.__name__ = call.__qualname__ = "max_pool" if nd is None else f"max_pool{nd}d"
    call.__doc__ = "`pool` by the largest value."
    return call


pool2d, pool3d = _pool_over(2), _pool_over(3)
max_pool, max_pool2d, max_pool3d = _max_pool_over(None), _max_pool_over(2), _max_pool_over(3)
