"""Axes as configs make them: `Dim`, `DimensionTag`, `SpatialDim`, `FeatureDim`, in the signatures of several years."""

from __future__ import annotations

from typing import Any

from returnn_lite.frontend.dim import Dim, batch_dim, single_step_dim
from returnn_lite.tensor.dim import FEATURE, SPATIAL


class DimensionTag(Dim):
    """`DimensionTag(kind, description, dimension)`, the older signature; without a dimension the axis is dynamic."""

    __slots__ = ()

    def __init__(
        self, kind: str | None = None, description: str = "", dimension: int | None = None, **options: Any
    ) -> None:
        super().__init__(dimension, description=description, kind=kind or SPATIAL, **options)


def SpatialDim(description: str, dimension: int | None = None, **options: Any) -> Dim:  # noqa: N802 - the users' name
    """A spatial axis; dynamic without a dimension."""
    return Dim(dimension, description=description, kind=SPATIAL, **options)


def FeatureDim(description: str, dimension: int | None = None, **options: Any) -> Dim:  # noqa: N802 - the users' name
    """A feature axis."""
    return Dim(dimension, description=description, kind=FEATURE, **options)


NAMES: dict[str, Any] = {
    "Dim": Dim,
    "DimensionTag": DimensionTag,
    "SpatialDim": SpatialDim,
    "FeatureDim": FeatureDim,
    "batch_dim": batch_dim,
    "single_step_dim": single_step_dim,
}
