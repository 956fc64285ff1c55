"""The part of a unit's products that a loop knows before its ticks: that of sources which do not depend on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from returnn_lite.rec.cells.base import Ahead, Weights
from returnn_lite.tensor import Dim, Spec, Tensor, batch_dim


def look_ahead(
    weights: Weights, known: Sequence[Tensor | None], specs: Sequence[Spec | None], sizes: Sequence[int], dim: Dim
) -> Ahead | None:
    """For sources of which some are `known` over the loop's axis `dim`; None where that does not fit.

    specs: of a frame of each source; sizes: its features. `weights` has "w" (D + H, G), rows as the sources.
    """
    first = [i for i, x in enumerate(known) if x is not None]
    fits = first and len(sizes) == len(known) and all(map(_is_row, specs)) and weights["w"].is_floating_point()
    if not fits or sum(sizes) >= len(weights["w"]) or not all(_fits(x, dim) for x in known if x is not None):
        return None
    blocks = weights["w"].split([*sizes, len(weights["w"]) - sum(sizes)])
    rows = [x.data.movedim(x.spec.dims.index(dim), 0) for x in known if x is not None]
    x = rows[0] if len(rows) == 1 else torch.cat(rows, 2)
    sums = torch.nn.functional.linear(x, torch.cat([blocks[i] for i in first]).t(), weights["bias"])
    rest = [i for i in range(len(known)) if i not in first]
    return Ahead(sums.unbind(0), tuple(rest), torch.cat([*(blocks[i] for i in rest), blocks[-1]]))


def _is_row(spec: Spec | None) -> bool:
    """Whether a frame is (B, F), dense."""
    plain = spec is not None and spec.rank == 2 and spec.dims[0] == batch_dim and spec.feature == 1
    return plain and spec is not None and not spec.sparse and spec.dtype == "float32"


def _fits(x: Tensor, dim: Dim) -> bool:
    """Whether the frames over the axis are (B, F)."""
    rest = [d for d in x.spec.dims if d != dim]
    return x.spec.rank == 3 and dim in x.spec.dims and rest[0].is_batch and x.data.is_floating_point()
