"""Axes as configs make them: `Dim`, `DimensionTag`, `SpatialDim`, `FeatureDim`, in the signatures of several years."""

from __future__ import annotations

from typing import Any

from returnn_lite.frontend import Dim as LengthsDim
from returnn_lite.tensor import batch_dim
from returnn_lite.tensor.dim import BATCH, FEATURE, SPATIAL


class Types:
    """The kinds of axes."""

    Batch = BATCH
    Spatial = SPATIAL
    Time = SPATIAL
    Feature = FEATURE
    Unspecified = SPATIAL


class Dim(LengthsDim):
    """`Dim(5, name="heads")`, `Dim(None, name="time")`, `Dim(kind=Dim.Types.Feature, description="x", dimension=5)`."""

    __slots__ = ()
    Types = Types

    def __init__(
        self,
        dimension: Any = None,
        name: str = "",
        *,
        description: str = "",
        kind: str | None = None,
        **_unused: Any,
    ) -> None:
        super().__init__(dimension, name or description, kind=kind or SPATIAL)


class DimensionTag(Dim):
    """`DimensionTag(kind, description, dimension)`, the older signature; without a dimension the axis is dynamic."""

    __slots__ = ()

    def __init__(
        self, kind: str | None = None, description: str = "", dimension: int | None = None, **_unused: Any
    ) -> None:
        super().__init__(dimension, description, kind=kind)


def SpatialDim(description: str, dimension: int | None = None, **_unused: Any) -> Dim:  # noqa: N802 - the users' name
    """A spatial axis; dynamic without a dimension."""
    return Dim(dimension, description, kind=SPATIAL)


def FeatureDim(description: str, dimension: int | None = None, **_unused: Any) -> Dim:  # noqa: N802 - the users' name
    """A feature axis."""
    return Dim(dimension, description, kind=FEATURE)


single_step_dim = Dim(1, "single-step")

NAMES: dict[str, Any] = {
    "Dim": Dim,
    "DimensionTag": DimensionTag,
    "SpatialDim": SpatialDim,
    "FeatureDim": FeatureDim,
    "batch_dim": batch_dim,
    "single_step_dim": single_step_dim,
}
