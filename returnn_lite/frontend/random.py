"""Random numbers, by torch's generators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from returnn_lite.errors import did_you_mean
from returnn_lite.frontend import dtypes
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged, axis_of
from returnn_lite.frontend.reduce import top_k
from returnn_lite.frontend.tensor import Tensor, TensorLike
from returnn_lite.frontend.tensor_base import checked_dims
from returnn_lite.frontend.types import Option, RawTensor

_DISTRIBUTIONS = ("uniform", "normal", "truncated_normal")


def set_random_seed(seed: int) -> None:
    """Makes all random numbers from now on repeatable."""
    torch.manual_seed(seed)


def get_random_state() -> dict[str, RawTensor]:
    """The state of the random numbers, for `set_random_state`."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, RawTensor]) -> None:
    """Restores a state of the random numbers."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])


def random(
    dims: Sequence[Dim],
    *,
    distribution: str,
    dtype: str | None = None,
    device: str | None = None,
    sparse_dim: Dim | None = None,
    feature_dim: Dim | None = None,
    mean: TensorLike | None = None,
    stddev: TensorLike | None = None,
    bound: TensorLike | None = None,
    minval: TensorLike | None = None,
    maxval: TensorLike | None = None,
    seed: npt.ArrayLike | None = None,
    static: bool | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Random numbers: "uniform" in [minval, maxval), "normal", or "truncated_normal" (by default within 2 stddev).

    static: of a generator of their own, which `seed` alone decides. out: where they are written to.
    """
    if distribution not in _DISTRIBUTIONS:
        known = ", ".join(_DISTRIBUTIONS)
        hint = did_you_mean(str(distribution), _DISTRIBUTIONS)
        raise WrongUse(f"`distribution` must be one of {known}, but is {distribution!r} instead{hint}")
    if seed is not None and not static:
        raise WrongUse("random numbers with a `seed` must be static=True; rf.set_random_seed is for all others")
    axes = checked_dims(dims, "random")
    if out is not None:
        raw = out.raw_tensor
    else:
        name = dtype or ("int32" if sparse_dim is not None else dtypes.get_default_float_dtype())
        where = dtypes.get_default_device() if device is None else device
        raw = torch.empty([dim.padded_size() for dim in axes], dtype=dtypes.torch_dtype(name), device=where)
    generator = _generator(seed, raw.device) if static else None
    with torch.no_grad():
        _fill(raw, distribution, axes, generator, mean, stddev, minval, maxval)
    if out is not None:
        return out
    found = Tensor._new(raw, axes, sparse_dim=sparse_dim, name=f"random_{distribution}")
    if feature_dim is not None:
        found.feature_dim = feature_dim
    return found


def _generator(seed: npt.ArrayLike | None, device: torch.device) -> torch.Generator:
    number = 42 if seed is None else int(np.asarray(seed).flatten()[0])
    return torch.Generator(device).manual_seed(number)


def _fill(
    raw: torch.Tensor,
    distribution: str,
    dims: tuple[Dim, ...],
    generator: torch.Generator | None,
    mean: Any,
    stddev: Any,
    minval: Any,
    maxval: Any,
) -> None:
    """Draws the numbers into `raw`."""
    if distribution == "uniform":
        _uniform(raw, dims, generator, 0 if minval is None else minval, 1 if maxval is None else maxval)
        return
    center, spread = _number(mean, 0.0), _number(stddev, 1.0)
    if distribution == "normal":
        raw.normal_(center, spread, generator=generator)
        return
    low = center - 2 * spread if minval is None else _number(minval, 0.0)
    high = center + 2 * spread if maxval is None else _number(maxval, 0.0)
    torch.nn.init.trunc_normal_(raw, center, spread, low, high, generator=generator)


def _number(value: Any, default: float) -> float:
    if value is None:
        return default
    return float(value.raw_tensor if isinstance(value, Tensor) else value)


def _uniform(
    raw: torch.Tensor, dims: tuple[Dim, ...], generator: torch.Generator | None, minval: Any, maxval: Any
) -> None:
    low, high = (
        arranged(value.raw_tensor, value.dims, dims) if isinstance(value, Tensor) else value
        for value in (minval, maxval)
    )
    if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor):
        parts = torch.rand(raw.shape, generator=generator, device=raw.device, dtype=torch.float64)
        values = parts * (high - low) + low
        raw.copy_(values if raw.is_floating_point() else values.floor())
    elif raw.is_floating_point():
        raw.uniform_(low, high, generator=generator)
    else:
        if not int(low) < int(high):
            raise WrongUse(f"random ints must be below `maxval`, but minval is {low} and maxval {high}")
        raw.random_(int(low), int(high), generator=generator)


def random_uniform(dims: Sequence[Dim], *, minval: TensorLike = 0, maxval: TensorLike = 1, **options: Option) -> Tensor:
    """Numbers in [minval, maxval), which may be tensors; ints if the type is one."""
    return random(dims, distribution="uniform", minval=minval, maxval=maxval, **options)


def random_normal(
    dims: Sequence[Dim], *, mean: TensorLike = 0.0, stddev: TensorLike = 1.0, **options: Option
) -> Tensor:
    """Numbers of the normal distribution."""
    return random(dims, distribution="normal", mean=mean, stddev=stddev, **options)


def random_truncated_normal(
    dims: Sequence[Dim],
    *,
    mean: TensorLike = 0.0,
    stddev: TensorLike = 1.0,
    minval: TensorLike | None = None,
    maxval: TensorLike | None = None,
    **options: Option,
) -> Tensor:
    """Numbers of the normal distribution within bounds, by default two standard deviations around the mean."""
    return random(
        dims, distribution="truncated_normal", mean=mean, stddev=stddev, minval=minval, maxval=maxval, **options
    )


def random_choice_with_replacement(dims: Sequence[Dim], *, probs: Tensor, axis: Dim) -> Tensor:
    """Positions on `axis` drawn by `probs`: int64 with these axes, which include the other ones of `probs`."""
    axes = checked_dims(dims, "random_choice_with_replacement")
    axis_of(probs.dims, axis, probs)
    others = tuple(dim for dim in probs.dims if dim != axis)
    for dim in others:
        axis_of(axes, dim, "random_choice_with_replacement: a result")
    rest = tuple(dim for dim in axes if dim not in others)
    raw = arranged(probs.raw_tensor, probs.dims, (*others, axis))
    shape = [dim.padded_size() for dim in rest]
    drawn = torch.multinomial(raw.reshape(-1, raw.shape[-1]), int(np.prod(shape, dtype=int)), replacement=True)
    found = arranged(drawn.reshape(*raw.shape[:-1], *shape), (*others, *rest), axes)
    return probs._new(found, axes, sparse_dim=axis)


def random_choice_without_replacement(
    *, log_probs: Tensor, axis: Dim, num_samples_dim: Dim, noise_scale: TensorLike = 1.0
) -> Tensor:
    """Different positions on `axis`, drawn by their log-probabilities, which get Gumbel noise (Kool et al., 2019)."""
    uniform = torch.rand_like(log_probs.raw_tensor).clamp(min=torch.finfo(log_probs.raw_tensor.dtype).tiny)
    noise = log_probs._like(-(-uniform.log()).clamp(min=torch.finfo(uniform.dtype).tiny).log())
    noise._sparse_dim = None
    _, index, _ = top_k(log_probs + noise * noise_scale, axis=axis, k_dim=num_samples_dim)
    result: Tensor = index
    return result
