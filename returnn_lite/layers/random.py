"""Random tensors: `random`, `rand_int`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from returnn_lite.config.option_types import NaturalFloat, NaturalInt
from returnn_lite.errors import did_you_mean
from returnn_lite.layers.constants import check_dtype, static_dims
from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.runtime_sizes import MadeSizes
from returnn_lite.layers.variables import Variable
from returnn_lite.ops.initial import truncated_normal_
from returnn_lite.tensor import AUTO, Dim, Spec, Tensor
from returnn_lite.tensor.align import place
from returnn_lite.tensor.spec import Role
from returnn_lite.tensor.tensor import DTYPES

Bounds = Mapping[str, torch.Tensor]  # options that layers give, placed to broadcast
_BOUNDS = ("minval", "maxval", "mean", "stddev", "bound")
STATE_SIZE = 3  # numbers of a random state: its seed, and how often numbers were drawn
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
    explicit_state: str | None = None
    role: Dim | None = None  # which axis is the feature axis

    @property
    def differs_by_step(self) -> str:
        """Numbers of a seed or a state of its own come from a generator that no network knows."""
        return "" if self.seed is None and self.explicit_state is None else "has a `seed` or a state of its own"

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
        generator = self._generator(sizes.device, refs.get("explicit_state"))
        bounds = {n: place(x, spec, self.behavior) for n, x in refs.items() if n in _BOUNDS}
        data = self.draw(sizes.shape(spec), generator, bounds).to(sizes.device, DTYPES[self.dtype])
        return sizes.tensor(data, spec)

    def _generator(self, device: torch.device, state: Tensor | None) -> torch.Generator:
        if state is not None:
            return torch.Generator(device).manual_seed(_seed_of(state))
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
    standard deviations), with `mean` and `stddev` (0 and 1 by default). `bound` b: uniform in [-b, b). These options
    may be layers, which broadcast. `seed`: numbers of its own; `static`: the same ones at every call. `explicit_state`:
    a layer with the state (see `random_state_init`), which with `auto_update_state` a call changes.
    """

    def __init__(
        self,
        *,
        shape: Sequence[NaturalInt | Dim],
        distribution: str,
        mean: LayerRef | float | None = None,
        stddev: LayerRef | NaturalFloat | None = None,
        bound: LayerRef | float | None = None,
        minval: LayerRef | float | None = None,
        maxval: LayerRef | float | None = None,
        dtype: str = "float32",
        sparse_dim: Dim | None = None,
        seed: int | None = None,
        static: bool | None = None,
        shape_deps: Sequence[str] = (),
        algorithm: str | None = None,
        explicit_state: LayerRef | None = None,
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
        self.explicit_state, self.auto_update_state = explicit_state, bool(auto_update_state)
        check_dtype(self, dtype)
        self.shape, self.dtype, self.sparse_dim, self.role = shape, dtype, sparse_dim, feature_dim
        self.distribution = distribution
        self.mean, self.stddev = mean or 0.0, 1.0 if stddev is None else stddev
        if maxval is None and bound is None and not DTYPES[dtype].is_floating_point:
            raise self.error(f"`maxval` must be given for dtype {dtype}")
        self.bound, self.minval, self.maxval = bound, minval or 0, 1.0 if maxval is None else maxval
        self.static = bool(static)
        self.seed = 0 if seed is None and self.static else seed
        self.shape_deps = tuple(shape_deps)

    async def link(self, net: Linker, node: Node) -> None:
        """Finds the variable that holds the state."""
        await super().link(net, node)
        state = node.refs.get("explicit_state")
        if self.auto_update_state and (state is None or not isinstance(state.layer, Variable)):
            raise self.error("`auto_update_state` needs a `variable` layer as `explicit_state`")

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """New values at every call; with `static`, or a state that stays, the same ones."""
        out = super().forward(*sources, **refs)
        if self.auto_update_state:
            with torch.no_grad():
                refs["explicit_state"].data.view(-1)[-1] += 1
        return out

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, bounds: Bounds) -> torch.Tensor:
        """By the distribution."""
        device = generator.device
        if self.distribution == "uniform":
            return self._uniform(shape, generator, bounds)
        if self.distribution == "normal":
            values = torch.randn(shape, generator=generator, device=device)
        else:
            values = torch.empty(shape, device=device)
            truncated_normal_(values, 0.0, 1.0, generator)
        mean, stddev = (torch.as_tensor(bounds.get(n, getattr(self, n))) for n in ("mean", "stddev"))
        return values * stddev + mean

    def _uniform(self, shape: tuple[int, ...], generator: torch.Generator, bounds: Bounds) -> torch.Tensor:
        low, high = (torch.as_tensor(bounds.get(n, getattr(self, n))) for n in ("minval", "maxval"))
        if self.bound is not None:
            high = torch.as_tensor(bounds.get("bound", self.bound))
            low = -high
        if not DTYPES[self.dtype].is_floating_point:
            return _whole(shape, generator, low, high)
        return torch.rand(shape, generator=generator, device=generator.device) * (high - low) + low


def _whole(shape: tuple[int, ...], generator: torch.Generator, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Ints from low on, below high."""
    if not low.dim() and not high.dim():
        return torch.randint(int(low), int(high), shape, generator=generator, device=generator.device)
    share = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
    return (low + share * (high - low)).floor()


@layer("random_state_init")
class RandomStateInit(Layer):
    """The first state of random numbers, for a `variable` by `init_by_layer`.  Shape: (3,) int64

    `seed`: by default one of the network's random numbers. `out_dim`: the new axis. `algorithm` has no effect.
    """

    sources = "none"

    def __init__(self, *, algorithm: str | None = None, seed: int | None = None) -> None:
        super().__init__()
        self.seed = seed

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """Some numbers."""
        dim = self.axis_dim(self.options.out_dim, self.dim("random-state", STATE_SIZE))
        return Spec([dim], "int64", time=None, feature=0)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The seed, and that nothing was drawn."""
        sizes = MadeSizes(self)
        seed = self.seed
        if seed is None:
            generator = self.context.generator
            seed = int(torch.randint(0, 2**31, (), generator=generator, device=generator.device))
        return sizes.tensor(torch.tensor([seed, 0, 0], device=sizes.device), self.made_spec())


def _seed_of(state: Tensor) -> int:
    """A seed that differs for different states."""
    seed = 0
    for number in state.data.reshape(-1).tolist():
        seed = (seed * 1_000_003 + int(number)) % 2**63
    return seed


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
        low, high = (bounds.get(n, sized) for n, sized in (("minval", self.low), ("maxval", self.high)))
        return _whole(shape, generator, torch.as_tensor(low), torch.as_tensor(high))
