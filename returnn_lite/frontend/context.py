"""The run context: where `train_step` and `forward_step` leave their losses and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

from returnn_lite.errors import ConfigError
from returnn_lite.frontend.values import Dim, Tensor, TensorDict
from returnn_lite.network.objective import LossValue
from returnn_lite.tensor import AUTO, Lengths, Spec
from returnn_lite.tensor import Dim as CoreDim
from returnn_lite.tensor import Tensor as CoreTensor
from returnn_lite.tensor.lengths import derive
from returnn_lite.tensor.tensor import DTYPE_NAMES

Dims = Sequence[CoreDim | int]
# Set while a function of the config runs, and seen by that alone.
_RUNNING: ContextVar[RunContext | None] = ContextVar("run context", default=None)


def get_run_ctx() -> RunContext:
    """The context of the step that runs. ConfigError outside of `get_model`, `train_step` and `forward_step`."""
    found = _RUNNING.get()
    if found is None:
        raise ConfigError("", "there is a run context only while `get_model`, `train_step` or `forward_step` runs")
    return found


@dataclass
class RunContext:
    """One call of a function of the config, `stage`: "init" (`get_model`), "train_step" or "forward_step".

    `step`: training steps so far. `expected_outputs`: what `model_outputs` declares; without values, but lengths may be
    put there. `lengths`: of the axes of the data. `losses`, `outputs`: what was marked so far.
    """

    stage: str
    epoch: int
    step: int
    train_flag: bool = False
    lengths: Mapping[CoreDim, Lengths] = field(default_factory=dict)
    expected_outputs: TensorDict = field(default_factory=TensorDict)
    losses: dict[str, LossValue] = field(default_factory=dict)
    outputs: dict[str, CoreTensor] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[RunContext]:
        """While open, `get_run_ctx()` gives this context."""
        token = _RUNNING.set(self)
        try:
            yield self
        finally:
            _RUNNING.reset(token)

    # --- losses -------------------------------------------------------------------------------------------------------

    def mark_as_loss(
        self,
        loss: Any,
        name: str,
        *,
        dims: Dims | None = None,
        scale: float = 1.0,
        as_error: bool = False,
        use_normalized_loss: bool = False,
        use_flatten_frames: bool = True,  # changes no number
        custom_inv_norm_factor: Any = None,
    ) -> None:
        """Adds a loss: `scale` times its sum goes into the objective, reported is the sum by the number of entries.

        loss: a number or tensor of any shape; entries in the padding of its axes (`dims`, or those of a `Tensor`) do
        not count. as_error: only reported. use_normalized_loss: what is reported goes into the objective.
        custom_inv_norm_factor: what to divide by in place of the number of entries, such as the number of labels.
        """
        self._expect_stage("mark_as_loss", "train_step")
        if name in self.losses:
            raise ConfigError("train_step", f"loss {name!r} is marked twice; the names must differ")
        data, own = plain(loss)
        at = f"loss {name!r}"
        total, count = self._summed(data, None if dims is None and own is None else axes(dims or own or (), data, at))
        norm = count if custom_inv_norm_factor is None else plain(custom_inv_norm_factor)[0].detach().sum().float()
        value, error = (None, total.detach()) if as_error else (total, None)
        self.losses[name] = LossValue(value, error, norm, float(scale), use_normalized_loss)

    def _summed(self, data: torch.Tensor, dims: Sequence[CoreDim] | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum and number of all entries that are not padding."""
        data = data if data.dtype in (torch.float32, torch.float64) else data.float()
        mask = self._mask(data, dims or ())
        if mask is None:
            return data.sum(), torch.tensor(float(data.numel()))
        return torch.where(mask, data, 0.0).sum(), mask.expand_as(data).sum()

    def _mask(self, data: torch.Tensor, dims: Sequence[CoreDim]) -> torch.Tensor | None:
        """Where all axes with lengths are within them; None if there are no such axes."""
        mask = None
        batch = next((i for i, dim in enumerate(dims) if dim.is_batch), 0)
        for i, dim in enumerate(dims):
            if not dim.dynamic:
                continue
            valid = self.lengths_of(dim, data.shape[i], data.device).mask()  # (B, size of the axis)
            shape = [1] * data.dim()
            shape[batch], shape[i] = data.shape[batch], data.shape[i]
            valid = (valid if batch < i else valid.T).reshape(shape)
            mask = valid if mask is None else mask & valid
        return mask

    # --- outputs ------------------------------------------------------------------------------------------------------

    def mark_as_default_output(self, tensor: Any, *, shape: Dims | None = None) -> None:
        """`mark_as_output` under the name "output"."""
        self.mark_as_output(tensor, "output", dims=shape)

    def mark_as_output(self, tensor: Any, name: str, *, dims: Dims | None = None, shape: Dims | None = None) -> None:
        """Adds an output. Its axes: `dims` (or `shape`), else those of a `Tensor`, else those in `model_outputs`."""
        self._expect_stage("mark_as_output", "forward_step")
        if name in self.outputs:
            raise ConfigError("forward_step", f"output {name!r} is marked twice; the names must differ")
        data, own = plain(tensor)
        data = data.float() if data.dtype in (torch.bfloat16, torch.float16) else data  # numpy lacks one of them
        like = tensor if isinstance(tensor, Tensor) else Tensor()
        expected = self.expected_outputs.get(name) or Tensor()
        found = dims or shape or own or expected.dims
        if found is None:
            text = f"output {name!r} must have axes: give mark_as_output(…, dims=[…]), or declare it in `model_outputs`"
            raise ConfigError("forward_step", text)
        known = axes(found, data, f"output {name!r}")
        feature = like.feature_dim or expected.feature_dim or AUTO
        sparse = like.sparse_dim or expected.sparse_dim
        spec = Spec(known, DTYPE_NAMES[data.dtype], sparse_dim=sparse, feature=None if sparse is not None else feature)
        lengths = {d: self.lengths_of(d, data.shape[i], data.device) for i, d in enumerate(known) if d.dynamic}
        self.outputs[name] = CoreTensor(data.detach(), spec, lengths)

    # --- both ---------------------------------------------------------------------------------------------------------

    def lengths_of(self, dim: CoreDim, size: int, device: torch.device) -> Lengths:
        """Lengths of an axis: its own, else those of the data. ConfigError if nobody knows them.

        size: with padding; device: for the lengths.
        """
        own = dim.dyn_size if isinstance(dim, Dim) else None
        if own is not None:
            return Lengths(torch.as_tensor(own, device=device), size)
        try:
            return Lengths(derive(dim, self.lengths).values.to(device), size)
        except KeyError:
            text = (
                f"the lengths of axis {dim} are not known; make it by Dim(lengths, name=…), or set its `dyn_size_ext`"
            )
            raise ConfigError(self.stage, text) from None

    def _expect_stage(self, method: str, stage: str) -> None:
        if self.stage != stage:
            function = "get_model" if self.stage == "init" else self.stage
            raise ConfigError(function, f"{method} must be called in `{stage}`, but is in `{function}` instead")


def plain(value: Any) -> tuple[torch.Tensor, tuple[CoreDim, ...] | None]:
    """(torch tensor, its axes if they are known) of a `Tensor`, a torch tensor, or a number."""
    if isinstance(value, Tensor):
        return torch.as_tensor(value.raw_tensor), value.dims
    return torch.as_tensor(value), None


def axes(dims: Dims, data: torch.Tensor, what: str) -> tuple[CoreDim, ...]:
    """The axes, numbers as fixed ones. ConfigError if the data has others."""
    found = tuple(dim if isinstance(dim, CoreDim) else Dim(int(dim)) for dim in dims)
    sizes = tuple(None if dim.is_batch else dim.size for dim in found)
    shape = tuple(data.shape)
    if len(sizes) != len(shape) or any(a not in (None, b) for a, b in zip(sizes, shape, strict=True)):
        raise ConfigError("", f"{what} must have the axes {list(found)}, but its shape is {shape}")
    if any(dim.dynamic for dim in found) and not any(dim.is_batch for dim in found):
        raise ConfigError("", f"{what} must have a batch axis, but has the axes {list(found)} only")
    return found
