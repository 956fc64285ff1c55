"""Sources and states of recurrent units as rows of a matrix: axes besides batch and features are further rows."""

from __future__ import annotations

import torch

from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.align import place


def row_data(x: Tensor, spec: Spec) -> torch.Tensor:
    """A source with its features (if it has any) behind the axes of the output `spec`, its last one left out."""
    rows = spec.rank - 1
    if x.spec.dims[:rows] == spec.dims[:rows]:
        return x.data
    dim = x.spec.feature_dim
    return place(x, spec.without([rows], feature=None) if dim is None else spec.with_feature(dim))


def in_rows(state: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """(B, H) or (B, …, H) -> (rows, H)"""
    more = len(shape) + 1 - state.dim()
    return state.reshape(state.shape[0], *(1,) * more, *state.shape[1:]).expand(*shape, -1).reshape(-1, state.shape[-1])


def time_major(x: Tensor, at: int, batch: list[int]) -> tuple[torch.Tensor, list[int]]:
    """(T, B', F), further axes merged into the batch; and the sizes of these axes."""
    front = [at, *([x.spec.batch] if x.spec.batch is not None else [])]
    last = [x.spec.feature] if x.spec.feature is not None else []
    data = x.data.permute((*front, *batch, *last))
    others = [x.data.shape[i] for i in batch]
    if others:
        data = data.reshape(data.shape[0], -1, *([data.shape[-1]] if last else []))
    return data, others
