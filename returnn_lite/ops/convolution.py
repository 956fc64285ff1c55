"""Convolution, transposed convolution and pooling over one to three axes; channels first, as in torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from returnn_lite.ops.block_max import block_max
from returnn_lite.ops.kernels import own_form
from returnn_lite.ops.windows import Spread, Window, pad_axes, sliding

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def convolution(
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None,
    windows: Sequence[Window],
    *,
    ragged: Sequence[bool],
    groups: int = 1,
) -> Tensor:
    """y[o] = sum_k x[o s + k d - left] W[k] + bias.  Shape: (N, C, n …), (C', C / groups, k …), (C',) -> (N, C', n' …)

    `ragged`: whether an axis has a length per sequence (see `Window.margins`). Lengths: `Window.length`; no position
    where no window fits.
    """
    margins = _margins(x, windows, ragged)
    padding = [left for left, _ in margins]
    if any(left != right for left, right in margins) or any(w.stride > 1 for w in windows):  # of one form for all sizes
        x, padding = pad_axes(x, margins), [0] * len(margins)
    steps = _steps(x, windows, padding)
    if 0 in steps:
        return x.new_zeros((x.shape[0], weights.shape[0], *steps))
    strides, dilations = [w.stride for w in windows], [w.dilation for w in windows]
    result: Tensor = _CONV[len(windows)](x, weights, bias, strides, padding, dilations, groups)
    return result


def transposed_convolution(x: Tensor, weights: Tensor, spreads: Sequence[Spread]) -> Tensor:
    """full[i s + j] += x[i] W[j], cut or filled with zeros to `Spread.length`.

    Shape: (N, C, n …), (C, C', k …) -> (N, C', n' …)
    """
    if 0 in x.shape[2:]:
        full = x.new_zeros((x.shape[0], weights.shape[1], *[0] * len(spreads)))
    else:
        full = _TRANSPOSED[len(spreads)](x, weights, None, [s.stride for s in spreads])
    for axis, spread in enumerate(spreads, start=2):
        start, size = spread.cut(x.shape[axis])
        missing = start + size - full.shape[axis]
        if missing > 0:
            full = pad_axes(full, [(0, missing)] + [(0, 0)] * (full.dim() - 1 - axis))
        full = full.narrow(axis, start, size)
    return full


def max_pool(x: Tensor, windows: Sequence[Window], *, ragged: Sequence[bool], fill: float = -math.inf) -> Tensor:
    """The largest value in each window; the margins hold `fill`.  Shape: (N, C, n …) -> (N, C, n' …)"""
    margins = _margins(x, windows, ragged)
    if own_form(x) and (blocks := _blocks(x, windows, margins, fill)) is not None:
        axis, size, used = blocks
        return block_max(x.narrow(axis, 0, used), axis, size)
    padded = pad_axes(x, margins, fill)
    steps = _steps(padded, windows, [0] * len(windows))
    if 0 in steps:
        return x.new_zeros((*x.shape[:2], *steps))
    sizes, strides, dilations = zip(*((w.size, w.stride, w.dilation) for w in windows), strict=True)
    if len(windows) == 1 and not isinstance(padded.shape[-1], int):  # a symbol, of which torch asks the value in 1-D
        sizes, strides, dilations = (1, *sizes), (1, *strides), (1, *dilations)
        return F.max_pool2d(padded.unsqueeze(2), sizes, strides, 0, dilations).squeeze(2)
    result: Tensor = _MAX[len(windows)](padded, sizes, strides, 0, dilations)
    return result


def _blocks(
    x: Tensor, windows: Sequence[Window], margins: Sequence[tuple[int, int]], fill: float
) -> tuple[int, int, int] | None:
    """The axis, the size and the number of used positions, where the windows are blocks of neighbours along an axis."""
    wide = [i for i, w in enumerate(windows) if (w.size, w.stride) != (1, 1)]
    if len(wide) != 1 or any(m != (0, 0) for i, m in enumerate(margins) if i != wide[0]):
        return None
    (left, right), window, axis = margins[wide[0]], windows[wide[0]], wide[0] + 2
    if (window.stride, window.dilation, left) != (window.size, 1, 0) or (right and fill != -math.inf):
        return None
    steps = (x.shape[axis] + right) // window.size
    used = min(steps * window.size, x.shape[axis])
    return (axis, window.size, used) if steps and steps * window.size - used < window.size else None


def average_pool(x: Tensor, windows: Sequence[Window], *, ragged: Sequence[bool], count_margins: bool) -> Tensor:
    """The mean in each window, over all of it or over the positions inside the tensor.  Shape: as `max_pool`"""
    margins = _margins(x, windows, ragged)
    total = _sums(pad_axes(x, margins), windows)
    if count_margins:
        return total / math.prod(w.size for w in windows)
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    return total / _sums(pad_axes(ones, margins), windows)


def _sums(x: Tensor, windows: Sequence[Window]) -> Tensor:
    """Sums over the windows."""
    for axis, w in enumerate(windows, start=2):
        x = sliding(x, axis, w.span, w.stride)[..., :: w.dilation].sum(-1)
    return x


def _margins(x: Tensor, windows: Sequence[Window], ragged: Sequence[bool]) -> list[tuple[int, int]]:
    return [w.margins(n, r) for n, w, r in zip(x.shape[2:], windows, ragged, strict=True)]


def _steps(x: Tensor, windows: Sequence[Window], padding: Sequence[int]) -> list[int]:
    """Positions of the output per axis; 0 where no window fits."""
    rows = zip(x.shape[2:], padding, windows, strict=True)
    return [max(-(-(n + 2 * p - w.span + 1) // w.stride), 0) for n, p, w in rows]
