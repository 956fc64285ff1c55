"""Gradients: asked for, stopped, scaled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

import returnn_lite.ops.gradients as ops_gradients
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import axis_of
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.ops.recompute import recomputed


def set_requires_gradient(source: Tensor) -> None:
    """From now on gradients to this tensor are computed."""
    source.raw_tensor.requires_grad_(True)


def gradient(y: Tensor, x: Tensor) -> Tensor:
    """The gradient of y (of the sum of its entries) to x, which can be differentiated again."""
    if not y.raw_tensor.requires_grad:
        raise WrongUse(f"gradient of {y}: it does not depend on {x}, or that was not set to require a gradient")
    ones = torch.ones_like(y.raw_tensor)
    (found,) = torch.autograd.grad(y.raw_tensor, x.raw_tensor, ones, create_graph=True)
    return x._like(found)


def stop_gradient(source: Tensor) -> Tensor:
    """The same values, through which no gradient goes."""
    return source._like(source.raw_tensor.detach())


@contextmanager
def stop_gradient_scope() -> Iterator[None]:
    """While open, nothing that is computed is differentiated."""
    with torch.no_grad():
        yield


def scaled_gradient(source: Tensor, scale: float | Tensor) -> Tensor:
    """The same values; the gradient is multiplied by `scale`, which may be negative."""
    if isinstance(scale, int | float) and scale == 0:
        return stop_gradient(source)
    return scaled_gradient_ext(source, scale=scale)


def scaled_gradient_ext(
    source: Tensor,
    *,
    scale: float | Tensor,
    shift: float | Tensor | None = None,
    scale_shift_by_sum_over_axis: Dim | None = None,
) -> Tensor:
    """The same values; the gradient g becomes g · scale + shift, the shift times the sum of |g| over an axis if given.

    scale, shift: numbers, or tensors with axes of the source; they get no gradient.
    """
    axis = (
        None
        if scale_shift_by_sum_over_axis is None
        else axis_of(source.dims, scale_shift_by_sum_over_axis, str(source))
    )
    factor, added = _for(source, scale), _for(source, 0.0 if shift is None else shift)
    return source._like(ops_gradients.scaled_gradient(source.raw_tensor, factor, added, axis))


def _for(source: Tensor, value: float | Tensor) -> float | torch.Tensor:
    """A number, or the data of a tensor laid out for the source."""
    if not isinstance(value, Tensor):
        return value
    raw: torch.Tensor = value.copy_compatible_to_dims_raw(source.dims)
    return raw.to(source.raw_tensor.device)


def gradient_checkpoint_scope() -> AbstractContextManager[None]:
    """While open, computations are repeated for the gradient instead of stored, with the same random numbers.

    What operations behind it need of its results is kept. See `ops/recompute.py`.
    """
    return recomputed()
