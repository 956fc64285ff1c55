"""What the functions of nested structures share."""

from __future__ import annotations

import tree

from returnn_lite.frontend.axes import replace_dim_v2
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.frontend.types import Nested

DimMap = dict[Dim, Dim]  # old axes -> the new ones in their place


def check_structure(a: Nested, b: Nested) -> None:
    """WrongUse if two structures differ."""
    try:
        tree.assert_same_structure(a, b)
    except (ValueError, TypeError) as error:
        raise WrongUse(f"both structures must be the same: {str(error).splitlines()[0]}") from None


def cut(x: Tensor, dim: Dim, new: Dim) -> Tensor:
    """An axis as another one, of its size."""
    if new in x.dims:
        return x
    return replace_dim_v2(x, in_dim=dim, out_dim=new)
