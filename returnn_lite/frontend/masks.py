"""Masks of several axes: where no axis with sizes is in its padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged, show
from returnn_lite.frontend.types import AnyTensor


def padding_mask(x: AnyTensor, dims: Sequence[Dim], *, strict: bool = False) -> torch.Tensor | None:
    """True where none of `dims` is in its padding, for the axes of `x`, size 1 where it does not matter.

    None if no axis has padding. Axes with sizes over axes that `x` lacks do not count; with `strict` they are WrongUse.
    """
    found = None
    for dim in dims:
        if not dim.need_masking():
            continue
        if dim not in x.dims or any(inner not in x.dims for inner in dim.dyn_size_ext.dims):
            if strict:
                lacking = [inner for inner in dim.dyn_size_ext.dims if inner not in x.dims]
                text = f"{x} lacks the axes {show(lacking)} of the sizes of {dim}"
                raise WrongUse(f"{text}; use_mask=False computes with the padding")
            continue
        mask = dim_mask(x, dim)
        found = mask if found is None else found & mask
    return found


def dim_mask(x: AnyTensor, dim: Dim) -> torch.Tensor:
    """The mask of one axis for the axes of `x`, size 1 where it does not matter."""
    device = x.raw_tensor.device
    key = ("mask for", x.dims, device)

    def compute() -> Any:
        mask = dim.get_mask(device=device)
        return arranged(mask.raw_tensor, mask.dims, x.dims)

    result: torch.Tensor = dim.extent().memo(key, compute)
    return result
