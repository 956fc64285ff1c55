"""Initial values of parameters, by the config's words: `glorot_uniform`, 0.1, `orthogonal(gain=2)`, {"class": …}."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Generator, Tensor

from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.ops import initial

Initializer = Callable[[Sequence[int], Generator, torch.dtype], Tensor]
# Whatever a config gives for initial values: `initializer` makes a function of it, or says what is wrong.
InitialValue: TypeAlias = Any


def initializer(value: InitialValue, *, layer: object = None, path: str = "") -> Initializer:
    """The function (shape, generator, dtype) -> tensor that the config means by `value`.

    `value`: a number, an array, {"class": name, options}, a name (`_initializer` at its end may be left out), or an
    expression with `(` over names, `math`, `numpy` and `layer`. Raises ConfigError (at `path`) on anything else.
    """
    if value is None:
        return constant(0.0)
    if isinstance(value, str):
        value = _from_text(value, layer, path)
    elif isinstance(value, Mapping):
        value = _from_dict(dict(value), path)
    if callable(value):
        return value
    if isinstance(value, (int, float, np.number)) and not math.isnan(value):
        return constant(float(value))
    if isinstance(value, (list, tuple, np.ndarray)):
        return _array(np.asarray(value), path)
    raise ConfigError(path, f"invalid initializer: {value!r}")


def _from_text(text: str, layer: object, path: str) -> Any:
    if "(" not in text:
        return _make(_find(text, path), {}, text, path)
    names = {**vars(math), "numpy": np, "np": np, "math": math, "layer": layer}
    names.update({name + suffix: make for name, make in _TABLE.items() for suffix in ("", "_initializer")})
    try:
        return eval(text, names)
    except Exception as error:  # whatever the config's expression does wrong
        raise ConfigError(path, f"invalid initializer: {text!r}: {error}") from error


def _from_dict(options: dict[str, Any], path: str) -> Initializer:
    name = options.pop("class", None)
    if not isinstance(name, str):
        raise ConfigError(path, f"invalid initializer: `class` must be a name, but is {name!r} instead")
    return _make(_find(name, path), options, name, path)


def _find(name: str, path: str) -> Callable[..., Initializer]:
    make = _TABLE.get(name.removesuffix("_initializer"))
    if make is None:
        raise ConfigError(path, f"invalid initializer: {name!r}{did_you_mean(name, _TABLE)}")
    return make


def _make(make: Callable[..., Initializer], options: dict[str, Any], name: str, path: str) -> Initializer:
    try:
        inspect.signature(make).bind(**options)
    except TypeError as error:
        raise ConfigError(path, f"invalid initializer: {name!r}: {error}") from None
    return make(**options)


def _array(values: np.ndarray, path: str) -> Initializer:
    def init(shape: Sequence[int], generator: Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        if values.shape != tuple(shape):
            raise ConfigError(path, f"initial values must be of shape {tuple(shape)}, but are {values.shape} instead")
        return torch.as_tensor(values, dtype=dtype).clone()

    return init


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """(fan_in, fan_out) of a parameter: how many inputs an output has, and outputs an input."""
    if not shape:
        return 1, 1
    if len(shape) == 1:
        return shape[0], shape[0]
    receptive = math.prod(shape[:-2])
    return receptive * shape[-2], receptive * shape[-1]


# --- the distributions ------------------------------------------------------------------------------------------------


def constant(value: float = 0.0, dtype: object = None) -> Initializer:
    """All entries `value`."""

    def init(shape: Sequence[int], generator: Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.full(tuple(shape), value, dtype=dtype)

    return init


def _seeded(sample: Callable[[Tensor, Generator], Tensor], seed: int | None) -> Initializer:
    """An initializer that fills an empty tensor by `sample`; with a `seed` it draws the same numbers each time."""

    def init(shape: Sequence[int], generator: Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
        return sample(torch.empty(tuple(shape), dtype=dtype), generator)

    return init


def random_uniform(
    minval: float = 0.0, maxval: float | None = None, seed: int | None = None, dtype: object = None
) -> Initializer:
    """Uniform in [minval, maxval), maxval 1 if not given."""
    high = 1.0 if maxval is None else maxval
    return _seeded(lambda empty, generator: empty.uniform_(minval, high, generator=generator), seed)


def random_uniform_abs(limit: float, seed: int | None = None, dtype: object = None) -> Initializer:
    """Uniform in [-limit, limit)."""
    return random_uniform(-limit, limit, seed)


def random_normal(mean: float = 0.0, stddev: float = 1.0, seed: int | None = None, dtype: object = None) -> Initializer:
    """Normal."""
    return _seeded(lambda empty, generator: empty.normal_(mean, stddev, generator=generator), seed)


def truncated_normal(
    mean: float = 0.0, stddev: float = 1.0, seed: int | None = None, dtype: object = None
) -> Initializer:
    """Normal, redrawn beyond two standard deviations (so the result varies less than `stddev`)."""
    return _seeded(lambda empty, generator: initial.truncated_normal_(empty, mean, stddev, generator), seed)


def variance_scaling(
    scale: float = 1.0,
    mode: str = "fan_in",
    distribution: str = "truncated_normal",
    seed: int | None = None,
    dtype: object = None,
) -> Initializer:
    """Variance scale / n, where n is fan_in, fan_out or their mean (`fan_avg`), at least 1."""
    if mode not in initial.FAN_MODES:
        raise ConfigError("", f'invalid initializer: `mode` must be "fan_in", "fan_out" or "fan_avg", but is {mode!r}')
    if distribution not in initial.DISTRIBUTIONS:
        raise ConfigError(
            "", f"invalid initializer: `distribution` must be of {list(initial.DISTRIBUTIONS)}, but is {distribution!r}"
        )

    def sample(empty: Tensor, generator: Generator) -> Tensor:
        return initial.variance_scaling_(
            empty, fans(empty.shape), generator=generator, scale=scale, mode=mode, distribution=distribution
        )

    return _seeded(sample, seed)


def variance_scaling_non_zero(
    non_zero_fraction: float = 0.5,
    scale: float = 1.0,
    mode: str = "fan_in",
    distribution: str = "truncated_normal",
    seed: int | None = None,
    dtype: object = None,
) -> Initializer:
    """Like variance scaling, but only a fraction of the entries, drawn by chance, is not 0; the variance is kept."""
    dense = variance_scaling(scale / non_zero_fraction, mode, distribution)

    def sample(empty: Tensor, generator: Generator) -> Tensor:
        keep = torch.rand(empty.shape, generator=generator) < non_zero_fraction
        return dense(empty.shape, generator, empty.dtype) * keep

    return _seeded(sample, seed)


def _scaling(scale: float, mode: str, distribution: str) -> Callable[..., Initializer]:
    """A fixed choice of variance scaling."""

    def make(seed: int | None = None, dtype: object = None) -> Initializer:
        return variance_scaling(scale, mode, distribution, seed)

    return make


def xavier(uniform: bool = True, seed: int | None = None, dtype: object = None) -> Initializer:
    """Glorot's; normal instead of uniform on demand."""
    return variance_scaling(1.0, "fan_avg", "uniform" if uniform else "truncated_normal", seed)


def uniform_unit_scaling(factor: float = 1.0, seed: int | None = None, dtype: object = None) -> Initializer:
    """Uniform ±factor * sqrt(3 / n), n = product of all axes but the last."""

    def sample(empty: Tensor, generator: Generator) -> Tensor:
        n = max(1, math.prod(empty.shape[:-1]))
        return initial.uniform_(empty, factor / math.sqrt(n), generator)

    return _seeded(sample, seed)


def orthogonal(gain: float = 1.0, seed: int | None = None, dtype: object = None) -> Initializer:
    """Orthonormal rows or columns (of the matrix that has the last axis as columns), times gain."""

    return _seeded(lambda empty, generator: initial.orthogonal(empty, generator, gain), seed)


def identity(gain: float = 1.0, dtype: object = None) -> Initializer:
    """The unit matrix, times gain; 2 axes."""

    def init(shape: Sequence[int], generator: Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        if len(shape) != 2:
            raise ConfigError("", f"initializer identity: the parameter must have two axes, but is {tuple(shape)}")
        return gain * torch.eye(*shape, dtype=dtype)

    return init


def load_txt_file(filename: str, dtype: object = None) -> Initializer:
    """The numbers in a text file, one row a line."""
    return _array(np.loadtxt(filename, dtype="float32"), filename)


_TABLE: dict[str, Callable[..., Initializer]] = {
    "zeros": lambda dtype=None: constant(0.0),
    "ones": lambda dtype=None: constant(1.0),
    "constant": constant,
    "random_uniform": random_uniform,
    "random_uniform_abs": random_uniform_abs,
    "random_normal": random_normal,
    "truncated_normal": truncated_normal,
    "variance_scaling": variance_scaling,
    "variance_scaling_non_zero": variance_scaling_non_zero,
    "xavier": xavier,
    "glorot_uniform": _scaling(1.0, "fan_avg", "uniform"),
    "glorot_normal": _scaling(1.0, "fan_avg", "truncated_normal"),
    "he_uniform": _scaling(2.0, "fan_in", "uniform"),
    "he_normal": _scaling(2.0, "fan_in", "truncated_normal"),
    "lecun_uniform": _scaling(1.0, "fan_in", "uniform"),
    "lecun_normal": _scaling(1.0, "fan_in", "truncated_normal"),
    "uniform_unit_scaling": uniform_unit_scaling,
    "orthogonal": orthogonal,
    "identity": identity,
    "load_txt_file": load_txt_file,
}
# The names of the classes: VarianceScaling, GlorotUniform, RandomNormal, …
_TABLE.update({"".join(word.title() for word in name.split("_")): make for name, make in list(_TABLE.items())})
