"""Dropout, and the defaults of where its numbers are shared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import returnn_lite.ops.dropout as ops_dropout
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import axis_of
from returnn_lite.frontend.run_ctx import get_run_ctx
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.running_config import running_config


def dropout(
    source: Tensor,
    drop_prob: float | Tensor,
    *,
    axis: Dim | Sequence[Dim] | bool | None = None,
    on_forward: bool = False,
) -> Tensor:
    """In training each entry is 0 with the probability `drop_prob`, else divided by 1 - drop_prob.

    axis: the axes that get random numbers of their own; all others share them. By default all axes.
    on_forward: also when this is no training.
    """
    if axis is True:
        raise WrongUse("dropout: `axis` must be an axis, a list of axes, None or False, but is True instead")
    dims = source.dims if axis is None or axis is False else (axis,) if isinstance(axis, Dim) else tuple(axis)
    own = {axis_of(source.dims, dim, source) for dim in dims}
    if isinstance(drop_prob, int | float):
        if not 0 <= drop_prob < 1:
            raise WrongUse(f"dropout: `drop_prob` must be in [0, 1), but is {drop_prob} instead")
        if drop_prob == 0:
            return source
    if not on_forward and not get_run_ctx().is_train_flag_enabled(func=dropout):
        return source
    return source._like(_dropped(source.raw_tensor, drop_prob, own))


def _dropped(raw: torch.Tensor, drop_prob: Any, own: set[int]) -> torch.Tensor:
    shape = [size if i in own else 1 for i, size in enumerate(raw.shape)]
    if not isinstance(drop_prob, Tensor):
        if len(own) == raw.dim():
            return torch.nn.functional.dropout(raw, float(drop_prob))
        return raw * ops_dropout.dropout_mask(raw, shape, float(drop_prob), None)
    drop_prob = drop_prob.raw_tensor.to(raw.device)
    keep = torch.rand(shape, device=raw.device) >= drop_prob
    scale: torch.Tensor = keep / (1 - drop_prob)
    return raw * scale.to(raw.dtype)


def dropout_broadcast_default() -> bool:
    """Whether modules share random numbers over all axes but the features: option `rf_dropout_broadcast`, else True."""
    config = running_config()
    return True if config is None else bool(config.bool("rf_dropout_broadcast", True))
