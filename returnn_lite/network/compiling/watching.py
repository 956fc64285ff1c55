"""Looks on while layers are recorded: what a record cannot repeat is refused, random numbers are put aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch.overrides import TorchFunctionMode

from returnn_lite.layers.core.context import Context
from returnn_lite.network.compiling.ports import Refused

STEP_DEPENDENT = frozenset(("run", "global_step", "epoch", "epoch_start", "tick_offset", "dataset_name"))


@torch.library.custom_op("returnn_lite::drawn", mutates_args=())
def drawn(shape: Sequence[int], number: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A place in a record that random numbers, which are drawn before, are put into."""
    raise RuntimeError("random numbers of a record must be drawn before")


@drawn.register_fake
def _(shape: Sequence[int], number: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device=device)


@dataclass
class Draw:
    """Random numbers of a step: uniform in [0, 1), or 1 with probability `rate` and else 0."""

    shape: tuple[Any, ...]  # Any: ints, and sizes that are not known yet
    dtype: torch.dtype
    device: torch.device
    rate: float | None

    def numbers(self, shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        """The numbers, as the layer itself would have drawn them."""
        if self.rate is None:
            return torch.rand(tuple(shape), generator=generator, dtype=self.dtype, device=self.device)
        made = torch.empty(tuple(shape), dtype=self.dtype, device=self.device)
        return made.bernoulli_(self.rate, generator=generator)


class Watch(TorchFunctionMode):
    """Collects the `draws` from `generator`."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator
        self.draws: list[Draw] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch._C._set_grad_enabled and args[0] != torch.is_grad_enabled():
            raise Refused("computes a part without gradients")
        if kwargs.get("generator") is self.generator:
            if func is torch.rand and set(kwargs) <= {"generator", "dtype", "device"}:
                shape = args[0] if len(args) == 1 and isinstance(args[0], Sequence) else args
                return self._drawn(shape, kwargs.get("dtype"), kwargs.get("device"), None)
            if func is torch.Tensor.bernoulli_:
                rate = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
                return self._drawn(args[0].shape, args[0].dtype, args[0].device, rate)
        if func is F.dropout and kwargs.get("training"):
            x, rate = args
            return x * (self._drawn(x.shape, x.dtype, x.device, 1.0 - rate) / (1.0 - rate))
        return func(*args, **kwargs)

    def _drawn(
        self, shape: Sequence[Any], dtype: torch.dtype | None, device: torch.device | None, rate: float | None
    ) -> torch.Tensor:
        made = Draw(tuple(shape), dtype or torch.get_default_dtype(), torch.device(device or "cpu"), rate)
        self.draws.append(made)
        with torch._C.DisableTorchFunction():
            found: torch.Tensor = drawn(list(made.shape), len(self.draws) - 1, made.dtype, made.device)
        return found


class _Guarded(Context):
    """A context that does not tell where the training is."""

    def __getattribute__(self, name: str) -> Any:
        if name in STEP_DEPENDENT:
            raise Refused("looks at the batch or at the step directly")
        return super().__getattribute__(name)


@contextmanager
def hiding_step(context: Context) -> Iterator[None]:
    """While open, nobody sees the batch and the step of a context."""
    context.__class__ = _Guarded
    try:
        yield
    finally:
        context.__class__ = Context
