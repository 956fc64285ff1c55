"""Modules that models written in torch import: `returnn.frontend`, `returnn.tensor`, `returnn.forward_iface`."""

from __future__ import annotations

from typing import Any

import torch

from returnn_lite import frontend
from returnn_lite.compat import config_dims
from returnn_lite.compat.config_data import Data


class _TensorType(type):
    """What `Tensor` is: both the tensors of a run and, in older signatures, the templates of layer nets."""

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, frontend.Tensor | Data)

    def __call__(cls, *args: Any, **options: Any) -> Any:
        older = {"shape", "dim", "sparse", "dim_tags", "size_placeholder", "time_dim_axis", "batch_dim_axis"}
        return (Data if older & set(options) else frontend.Tensor)(*args, **options)


class Tensor(metaclass=_TensorType):
    """`Tensor(name, dims, dtype, raw_tensor=…)`, or `Tensor(name, shape=…)` as `out_type`."""


def tensor_names() -> dict[str, Any]:
    """`returnn.tensor`."""
    return {**config_dims.NAMES, "Data": Data, "Tensor": Tensor, "TensorDict": frontend.TensorDict}


def context_names() -> dict[str, Any]:
    """`returnn.frontend.run_ctx`, `returnn.torch.context`."""
    return {"get_run_ctx": frontend.get_run_ctx, "RunCtx": frontend.RunContext}


def names() -> dict[str, Any]:
    """`returnn.frontend`: the run context; computing is torch's."""
    return {**context_names(), **tensor_names(), "convert_to_tensor": convert_to_tensor}


def convert_to_tensor(
    value: Any, *, dims: Any = None, dtype: str | None = None, sparse_dim: Any = None, name: str = "", **_unused: Any
) -> Any:
    """A `Tensor` with these axes; one stays as it is."""
    if isinstance(value, frontend.Tensor):
        return value
    data = torch.as_tensor(value, dtype=getattr(torch, dtype) if dtype else None)
    return frontend.Tensor(name, dims, dtype, sparse_dim=sparse_dim, raw_tensor=data)


def callback_names() -> dict[str, Any]:
    """`returnn.forward_iface`."""
    return {"ForwardCallbackIface": frontend.ForwardCallback}
