"""Random initial values, in place."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from returnn_lite.errors import ConfigError

TRUNCATED_AT = 2.0  # standard deviations
TRUNCATED_STD = 0.87962566103423978  # standard deviation of a standard normal cut there


def truncated_normal_(x: Tensor, mean: float, std: float, generator: Generator | None) -> Tensor:
    """Normal, redrawn beyond two standard deviations (so the result varies less than `std`).  Shape: any"""
    if std <= 0 or not x.numel():
        return x.fill_(mean)
    low, high = mean - TRUNCATED_AT * std, mean + TRUNCATED_AT * std
    return torch.nn.init.trunc_normal_(x, mean, std, low, high, generator=generator)


def uniform_(x: Tensor, std: float, generator: Generator | None) -> Tensor:
    """Uniform around 0 with this standard deviation."""
    bound = math.sqrt(3.0) * std
    return x.uniform_(-bound, bound, generator=generator)


def normal_(x: Tensor, std: float, generator: Generator | None) -> Tensor:
    """Normal around 0."""
    return x.normal_(0.0, std, generator=generator)


def true_truncated_normal_(x: Tensor, std: float, generator: Generator | None) -> Tensor:
    """Truncated normal around 0 whose own standard deviation is `std`."""
    return truncated_normal_(x, 0.0, std / TRUNCATED_STD, generator)


DISTRIBUTIONS: dict[str, Callable[[Tensor, float, Generator | None], Tensor]] = {
    "uniform": uniform_,
    "normal": true_truncated_normal_,
    "truncated_normal": true_truncated_normal_,
    "untruncated_normal": normal_,
}
FAN_MODES = ("fan_in", "fan_out", "fan_avg")


def variance_scaling_(
    x: Tensor,
    fans: tuple[int, int],
    *,
    scale: float = 1.0,
    mode: str = "fan_in",
    distribution: str = "truncated_normal",
    generator: Generator | None = None,
) -> Tensor:
    """Variance scale / n, where n is fan_in, fan_out or their mean, at least 1 (Glorot and Bengio 2010).  Shape: any"""
    n = {"fan_in": fans[0], "fan_out": fans[1], "fan_avg": (fans[0] + fans[1]) / 2}[mode]
    return DISTRIBUTIONS[distribution](x, math.sqrt(scale / max(1.0, n)), generator)


def orthogonal(like: Tensor, generator: Generator | None, gain: float = 1.0) -> Tensor:
    """Orthonormal rows or columns (of the matrix that has the last axis as columns), times gain (Saxe et al. 2014).

    Shape: (…, …), at least two axes -> the same
    """
    if like.dim() < 2:
        raise ConfigError("", f"initializer orthogonal: the parameter must have two axes, but is {tuple(like.shape)}")
    rows, columns = math.prod(like.shape[:-1]), like.shape[-1]
    normal = torch.randn(max(rows, columns), min(rows, columns), generator=generator, dtype=like.dtype)
    q, r = torch.linalg.qr(normal)
    q = q * torch.sign(torch.diagonal(r))  # makes the distribution uniform
    result: Tensor = gain * (q if rows >= columns else q.T).reshape(like.shape)
    return result
