"""TensorFlow's functions that make tensors: constants, ranges, random numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from returnn_lite.compat.tf.values import Context, as_tensor, cast, to_dtype, to_int, to_ints, wrap_like


class Creation:
    """The functions as methods; all results are on the device of the context."""

    def __init__(self, context: Context) -> None:
        self.context = context

    @property
    def _device(self) -> torch.device:
        return self.context.device

    def zeros(self, shape: Any, dtype: Any = torch.float32) -> Tensor:
        """All 0."""
        return torch.zeros(to_ints(shape), dtype=to_dtype(dtype), device=self._device)

    def ones(self, shape: Any, dtype: Any = torch.float32) -> Tensor:
        """All 1."""
        return torch.ones(to_ints(shape), dtype=to_dtype(dtype), device=self._device)

    def fill(self, dims: Any, value: Any) -> Tensor:
        """All `value`."""
        return as_tensor(value).to(self._device).expand(to_ints(dims)).clone()

    def zeros_like(self, tensor: Any = None, dtype: Any = None, input: Any = None) -> Tensor:  # noqa: A002
        """All 0, shaped like another."""
        return torch.zeros_like(as_tensor(input if tensor is None else tensor), dtype=_optional(dtype))

    def ones_like(self, tensor: Any = None, dtype: Any = None, input: Any = None) -> Tensor:  # noqa: A002
        """All 1, shaped like another."""
        return torch.ones_like(as_tensor(input if tensor is None else tensor), dtype=_optional(dtype))

    def constant(self, value: Any, dtype: Any = None, shape: Any = None) -> Tensor:
        """A tensor of numbers; one number fills a `shape`."""
        x = as_tensor(value, dtype, device=self._device).to(self._device)
        if shape is None:
            return x
        return x.expand(to_ints(shape)) if x.numel() == 1 else x.reshape(to_ints(shape))

    def convert_to_tensor(self, value: Any, dtype: Any = None) -> Tensor:
        """A tensor of numbers, tensors, or lists of these."""
        return value if isinstance(value, Tensor) and dtype is None else as_tensor(value, dtype)

    def eye(self, num_rows: Any, num_columns: Any = None, dtype: Any = torch.float32) -> Tensor:
        """The unit matrix."""
        columns = num_rows if num_columns is None else num_columns
        return torch.eye(to_int(num_rows), to_int(columns), dtype=to_dtype(dtype), device=self._device)

    def linspace(self, start: Any, stop: Any, num: Any) -> Tensor:
        """`num` numbers from start to stop, both included."""
        return torch.linspace(float(start), float(stop), to_int(num), device=self._device)

    def lin_range(self, start: Any = 0, limit: Any = None, delta: Any = 1, dtype: Any = None) -> Tensor:
        """`tf.range`: int32 of ints, float32 if one argument is a float."""
        if limit is None:
            start, limit = 0, start
        bounds = [as_tensor(value) for value in (start, limit, delta)]
        if dtype is None:
            dtype = next((b.dtype for b in bounds if b.is_floating_point()), None)
            dtype = dtype or next((b.dtype for b in bounds[:2] if b.dtype == torch.int64), torch.int32)
        numbers = torch.arange(*[b.item() for b in bounds], dtype=to_dtype(dtype), device=self._device)
        return wrap_like(numbers, start, limit, delta)

    # --- random numbers

    def random_uniform(
        self, shape: Any, minval: Any = 0, maxval: Any = None, dtype: Any = torch.float32, seed: Any = None
    ) -> Tensor:
        """In [minval, maxval), maxval 1 if not given; of an int dtype whole numbers, maxval excluded."""
        dtype, sizes = to_dtype(dtype), to_ints(shape)
        if dtype.is_floating_point:
            unit = torch.rand(sizes, dtype=dtype, device=self._device, generator=self.context.generator)
            low, high = (cast(as_tensor(x), dtype).to(self._device) for x in (minval, 1 if maxval is None else maxval))
            return unit * (high - low) + low
        if maxval is None:
            raise ValueError("random_uniform: whole numbers need a `maxval`")
        low, high = (as_tensor(x).to(self._device, torch.int64) for x in (minval, maxval))
        if (high <= low).any():
            raise ValueError("random_uniform: `maxval` must be greater than `minval`")
        big = torch.randint(0, 2**62, sizes, device=self._device, generator=self.context.generator)
        return (big % (high - low) + low).to(dtype)

    def random_normal(
        self, shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = torch.float32, seed: Any = None
    ) -> Tensor:
        """Normal."""
        sizes = to_ints(shape)
        normal = torch.randn(sizes, dtype=to_dtype(dtype), device=self._device, generator=self.context.generator)
        made: Tensor = normal * stddev + mean
        return made

    def truncated_normal(
        self, shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = torch.float32, seed: Any = None
    ) -> Tensor:
        """Normal, within two standard deviations."""
        edge = math.erf(-2 / math.sqrt(2))  # the distribution's value at -2, on the scale of erf
        unit = self.random_uniform(shape, edge, -edge, dtype)
        made: Tensor = (unit.erfinv() * math.sqrt(2)).clamp(-2, 2) * stddev + mean
        return made

    def random_shuffle(self, value: Any, seed: Any = None) -> Tensor:
        """The rows in random order."""
        x = as_tensor(value)
        order = torch.randperm(len(x), device=self._device, generator=self.context.generator)
        return x[order.to(x.device)]

    def dropout(
        self,
        x: Any,
        keep_prob: Any = None,
        noise_shape: Any = None,
        seed: Any = None,
        name: Any = None,
        rate: Any = None,
    ) -> Tensor:
        """`tf.nn.dropout`: each entry is 0 with probability `rate`, else divided by the rest."""
        x = as_tensor(x)
        keep = 1.0 - float(rate) if rate is not None else float(1.0 if keep_prob is None else keep_prob)
        if not 0 < keep <= 1:
            raise ValueError(f"dropout: the probability to keep must be in (0, 1], but is {keep} instead")
        if keep == 1:
            return x
        sizes = x.size() if noise_shape is None else to_ints(noise_shape)
        noise = torch.rand(sizes, device=self._device, generator=self.context.generator)
        return x * (noise.to(x.device) < keep) / keep


def _optional(dtype: Any) -> torch.dtype | None:
    return None if dtype is None else to_dtype(dtype)


def all_functions(context: Context) -> dict[str, Any]:
    """The functions by TensorFlow's names (`tf.nn.dropout` apart)."""
    make = Creation(context)
    own = [
        make.zeros, make.ones, make.fill, make.zeros_like, make.ones_like, make.constant, make.convert_to_tensor,
        make.eye, make.linspace, make.random_uniform, make.random_normal, make.truncated_normal, make.random_shuffle,
    ]  # fmt: skip
    return {function.__name__: function for function in own} | {"range": make.lin_range}
