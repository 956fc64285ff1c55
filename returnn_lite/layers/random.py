"""Random tensors: `random`, `rand_int`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from returnn_lite.config.option_types import NaturalFloat, NaturalInt
from returnn_lite.errors import did_you_mean
from returnn_lite.layers.constants import check_dtype, static_dims
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.runtime_sizes import MadeSizes
from returnn_lite.ops.initial import truncated_normal_
from returnn_lite.tensor import AUTO, Dim, Spec, Tensor
from returnn_lite.tensor.tensor import DTYPES

_DISTRIBUTIONS = ("uniform", "normal", "truncated_normal")


class _Random(Layer):
    """Base of layers that draw a tensor of some shape from the network's random numbers, or from `seed`."""

    remembers: ClassVar[tuple[str, ...]] = ("_own",)
    _own: torch.Generator | None = None  # with a seed of its own
    sources = "none"
    shape: Sequence[NaturalInt | Dim]
    dtype: str
    seed: int | None
    sparse_dim: Dim | None = None
    shape_deps: tuple[str, ...] = ()
    static: bool = False

    @property
    def differs_by_step(self) -> str:
        """Numbers of a seed of its own come from a generator that no network knows."""
        return "" if self.seed is None else "has a `seed` of its own"

    async def link(self, net: Linker, node: Node) -> None:
        """The layers that know lengths are read."""
        for name in self.shape_deps:
            node.refs[f"shape_deps:{name}"] = await net.ask(name)

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The Dims of `shape`."""
        dims = static_dims(self, self.shape)
        return Spec(dims, self.dtype, sparse_dim=self.sparse_dim, feature=AUTO if self.sparse_dim is None else None)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """New values at every call; with `static` the same ones."""
        spec = self.made_spec()
        sizes = MadeSizes(self, refs.values())
        generator = self._generator(sizes.device)
        data = self.draw(sizes.shape(spec), generator, sizes.device).to(sizes.device, DTYPES[self.dtype])
        return sizes.tensor(data, spec)

    def _generator(self, device: torch.device) -> torch.Generator:
        if self.seed is None:
            return self.context.generator
        own = self._own
        if own is None or self.static or own.device != device:
            own = self._own = torch.Generator(device).manual_seed(self.seed)
        return own

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> torch.Tensor:
        """The values."""
        raise NotImplementedError


@layer("random")
class Random(_Random):
    """Random numbers.  Shape: `shape`, numbers and Dims (`shape_deps`: layers that know the lengths of dynamic ones).

    `distribution`: "uniform" in [minval, maxval), 0 to 1 by default; "normal"; "truncated_normal" (cut off at two
    standard deviations), with `mean` and `stddev` (0 and 1 by default). `bound` b: uniform in [-b, b). `seed`: numbers
    of its own; `static`: the same ones at every call.
    """

    def __init__(
        self,
        *,
        shape: Sequence[NaturalInt | Dim],
        distribution: str,
        mean: float | None = None,
        stddev: NaturalFloat | None = None,
        bound: float | None = None,
        minval: float | None = None,
        maxval: float | None = None,
        dtype: str = "float32",
        sparse_dim: Dim | None = None,
        seed: int | None = None,
        static: bool | None = None,
        shape_deps: Sequence[str] = (),
        algorithm: str | None = None,
        explicit_state: Any = None,
        auto_update_state: bool | None = None,
        stop_grad: bool | None = None,
        feature_dim: Dim | None = None,
    ) -> None:
        super().__init__()
        if distribution not in _DISTRIBUTIONS:
            hint = did_you_mean(distribution, _DISTRIBUTIONS)
            raise self.error(
                f"`distribution` must be one of {', '.join(_DISTRIBUTIONS)}, but is {distribution!r} instead{hint}"
            )
        if explicit_state is not None:
            raise self.error("`explicit_state` is not supported; give `seed` for numbers of its own")
        check_dtype(self, dtype)
        self.shape, self.dtype, self.sparse_dim = shape, dtype, sparse_dim
        self.distribution = distribution
        self.mean, self.stddev = mean or 0.0, 1.0 if stddev is None else stddev
        low, high = (-bound, bound) if bound is not None else (minval or 0, maxval)
        if high is None and not DTYPES[dtype].is_floating_point:
            raise self.error(f"`maxval` must be given for dtype {dtype}")
        self.low, self.high = low, 1.0 if high is None else high
        self.static = bool(static)
        self.seed = 0 if seed is None and self.static else seed
        self.shape_deps = tuple(shape_deps)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> torch.Tensor:
        """By the distribution."""
        if self.distribution == "normal":
            return torch.randn(shape, generator=generator, device=device) * self.stddev + self.mean
        if self.distribution == "truncated_normal":
            values = torch.empty(shape, device=device)
            truncated_normal_(values, 0.0, 1.0, generator)
            return values * self.stddev + self.mean
        if not DTYPES[self.dtype].is_floating_point:
            return torch.randint(int(self.low), int(self.high), shape, generator=generator, device=device)
        return torch.rand(shape, generator=generator, device=device) * (self.high - self.low) + self.low


@layer("rand_int")
class RandInt(_Random):
    """Random ints in [minval, maxval).  Shape: `shape`, numbers and Dims; `sparse_dim`: as classes."""

    def __init__(
        self,
        *,
        shape: Sequence[NaturalInt | Dim],
        maxval: int | Dim,
        minval: int = 0,
        dtype: str = "int32",
        sparse_dim: Dim | None = None,
        seed: int | None = None,
        shape_deps: Sequence[str] = (),
    ) -> None:
        super().__init__()
        check_dtype(self, dtype)
        self.shape, self.dtype, self.sparse_dim, self.seed = shape, dtype, sparse_dim, seed
        self.low = minval
        self.shape_deps = tuple(shape_deps)
        high = maxval.size if isinstance(maxval, Dim) else maxval
        if not isinstance(high, int) or high <= minval:
            raise self.error(f"`maxval` must be an int above `minval` {minval}, but is {maxval!r} instead")
        self.high = high

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> torch.Tensor:
        """Uniform."""
        return torch.randint(self.low, self.high, shape, generator=generator, device=device)
