"""Random tensors: `random`, `rand_int`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from returnn_lite.config.option_types import NaturalFloat, NaturalInt
from returnn_lite.errors import did_you_mean
from returnn_lite.layers.constants import check_dtype, static_dims
from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.runtime_sizes import MadeSizes
from returnn_lite.ops.initial import truncated_normal_
from returnn_lite.tensor import AUTO, Dim, Spec, Tensor
from returnn_lite.tensor.align import place
from returnn_lite.tensor.spec import Role
from returnn_lite.tensor.tensor import DTYPES

Bounds = Mapping[str, torch.Tensor]  # those of a range that layers give, by option, placed to broadcast
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
    role: Dim | None = None  # which axis is the feature axis

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
        feature: Role = None if self.sparse_dim is not None else AUTO if self.role is None else self.role
        return Spec(dims, self.dtype, sparse_dim=self.sparse_dim, feature=feature)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """New values at every call; with `static` the same ones."""
        spec = self.made_spec()
        sizes = MadeSizes(self, refs.values())
        generator = self._generator(sizes.device)
        bounds = {n: place(x, spec, self.behavior) for n, x in refs.items() if n in ("minval", "maxval")}
        data = self.draw(sizes.shape(spec), generator, bounds).to(sizes.device, DTYPES[self.dtype])
        return sizes.tensor(data, spec)

    def _generator(self, device: torch.device) -> torch.Generator:
        if self.seed is None:
            return self.context.generator
        own = self._own
        if own is None or self.static or own.device != device:
            own = self._own = torch.Generator(device).manual_seed(self.seed)
        return own

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, bounds: Bounds) -> torch.Tensor:
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
        self.shape, self.dtype, self.sparse_dim, self.role = shape, dtype, sparse_dim, feature_dim
        self.distribution = distribution
        self.mean, self.stddev = mean or 0.0, 1.0 if stddev is None else stddev
        low, high = (-bound, bound) if bound is not None else (minval or 0, maxval)
        if high is None and not DTYPES[dtype].is_floating_point:
            raise self.error(f"`maxval` must be given for dtype {dtype}")
        self.low, self.high = low, 1.0 if high is None else high
        self.static = bool(static)
        self.seed = 0 if seed is None and self.static else seed
        self.shape_deps = tuple(shape_deps)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, bounds: Bounds) -> torch.Tensor:
        """By the distribution."""
        device = generator.device
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
    """Random ints in [minval, maxval).  Shape: `shape`, numbers and Dims; `sparse_dim`: as classes.

    `minval` and `maxval`: numbers, Dims with a size, or layers, which broadcast against the output.
    """

    def __init__(
        self,
        *,
        shape: Sequence[NaturalInt | Dim],
        maxval: LayerRef | int | Dim,
        minval: LayerRef | int | Dim = 0,
        dtype: str = "int32",
        sparse_dim: Dim | None = None,
        feature_dim: Dim | None = None,
        seed: int | None = None,
        shape_deps: Sequence[str] = (),
    ) -> None:
        super().__init__()
        check_dtype(self, dtype)
        self.shape, self.dtype, self.sparse_dim, self.seed = shape, dtype, sparse_dim, seed
        self.role = feature_dim
        self.shape_deps = tuple(shape_deps)
        self.minval, self.maxval = minval, maxval
        low, high = (n.size if isinstance(n, Dim) else n for n in (minval, maxval))
        if low is None or high is None or (isinstance(low, int) and isinstance(high, int) and high <= low):
            raise self.error(f"`maxval` must be an int above `minval` {minval}, but is {maxval!r} instead")
        self.low, self.high = low, high

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, bounds: Bounds) -> torch.Tensor:
        """Uniform."""
        device = generator.device
        if isinstance(self.low, int) and isinstance(self.high, int):
            return torch.randint(self.low, self.high, shape, generator=generator, device=device)
        low, high = (torch.as_tensor(bounds.get(n, getattr(self, n))) for n in ("minval", "maxval"))
        share = torch.rand(shape, generator=generator, device=device, dtype=torch.float64)
        return (low + share * (high - low)).floor()
