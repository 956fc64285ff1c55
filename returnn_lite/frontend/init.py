"""Initial values of parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from returnn_lite.frontend.errors import WrongUse, missing_name
from returnn_lite.frontend.random import random
from returnn_lite.frontend.tensor import Tensor

if TYPE_CHECKING:
    from returnn_lite.frontend.dim import Dim

# the standard deviation of a standard normal distribution that is truncated at 2
_TRUNCATED_STD = 0.87962566103423978


class ParamInit:
    """Called with axes and type, gives the values; with `out` writes them there."""

    def __call__(
        self,
        dims: Sequence[Dim],
        dtype: str,
        *,
        sparse_dim: Dim | None = None,
        device: str | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """The values."""
        raise NotImplementedError


class Normal(ParamInit):
    """Normal, by default truncated at two standard deviations."""

    def __init__(self, stddev: float, *, truncated: bool = True, dtype: str | None = None) -> None:
        self.stddev, self.truncated, self.dtype = stddev, truncated, dtype

    def __call__(self, dims: Sequence[Dim], dtype: str, **options: Any) -> Tensor:
        """The values."""
        kind = "truncated_normal" if self.truncated else "normal"
        return random(dims, distribution=kind, mean=0.0, stddev=self.stddev, dtype=dtype, **options)


class VarianceScaling(ParamInit):
    """Random values of variance `scale` / n.

    mode: n is the number of inputs ("fan_in"), of outputs ("fan_out"), or their mean ("fan_avg").

    distribution: "uniform", "truncated_normal" (= "normal"), "untruncated_normal".
    """

    scale = 1.0
    mode = "fan_in"
    distribution = "truncated_normal"

    def __init__(
        self,
        scale: float | None = None,
        mode: str | None = None,
        distribution: str | None = None,
        *,
        dtype: str | None = None,
    ) -> None:
        self.scale = self.scale if scale is None else scale
        self.mode = self.mode if mode is None else mode
        self.distribution = self.distribution if distribution is None else distribution
        self.dtype = dtype
        if self.scale <= 0:
            raise WrongUse(f"`scale` must be above 0, but is {self.scale} instead")
        if self.mode not in ("fan_in", "fan_out", "fan_avg"):
            raise WrongUse(f"`mode` must be fan_in, fan_out or fan_avg, but is {self.mode!r} instead")
        if self.distribution not in ("normal", "uniform", "truncated_normal", "untruncated_normal"):
            known = "normal, uniform, truncated_normal or untruncated_normal"
            raise WrongUse(f"`distribution` must be {known}, but is {self.distribution!r} instead")

    def __call__(self, dims: Sequence[Dim], dtype: str, **options: Any) -> Tensor:
        """The values."""
        fan_in, fan_out = fans(dims)
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, n)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return random(dims, distribution="uniform", minval=-limit, maxval=limit, dtype=dtype, **options)
        stddev = math.sqrt(variance)
        if self.distribution == "untruncated_normal":
            return random(dims, distribution="normal", mean=0.0, stddev=stddev, dtype=dtype, **options)
        stddev /= _TRUNCATED_STD
        return random(dims, distribution="truncated_normal", mean=0.0, stddev=stddev, dtype=dtype, **options)


class Glorot(VarianceScaling):
    """Uniform, by the mean of inputs and outputs (Glorot and Bengio, 2010)."""

    mode = "fan_avg"
    distribution = "uniform"


class He(VarianceScaling):
    """Truncated normal, by the inputs (He et al., 2015)."""

    scale = 2.0


HeNormal = He


class HeUniform(He):
    """Uniform, by the inputs (He et al., 2015)."""

    distribution = "uniform"


def fans(dims: Sequence[Dim]) -> tuple[float, float]:
    """The numbers of inputs and outputs: of two axes the first and the second; then come axes of positions."""
    sizes = [dim.padded_size() for dim in dims]
    if len(sizes) < 2:
        n = float(sizes[0]) if sizes else 1.0
        return n, n
    if len(sizes) == 2:
        return float(sizes[0]), float(sizes[1])
    positions = math.prod(sizes[2:])
    return float(sizes[1] * positions), float(sizes[0] * positions)


__getattr__ = missing_name("rf.init", globals())
