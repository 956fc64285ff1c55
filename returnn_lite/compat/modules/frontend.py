"""Modules beside `returnn.frontend` that models import: `returnn.tensor`, `returnn.forward_iface`."""

from __future__ import annotations

from typing import Any

from returnn_lite.compat import config_dims
from returnn_lite.frontend import bridge, errors, marked_dim, random_data, tensor_dict
from returnn_lite.frontend.callback import ForwardCallback
from returnn_lite.frontend.run_ctx import RunContext, get_run_ctx
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.ops.gradients import scaled_gradient
from returnn_lite.optim.lion import Lion


def tensor_names() -> dict[str, Any]:
    """`returnn.tensor`."""
    return {**config_dims.NAMES, "Data": Tensor, "Tensor": Tensor, "TensorDict": tensor_dict.TensorDict}


def dim_names() -> dict[str, Any]:
    """`returnn.tensor.dim`."""
    return {**tensor_names(), "VerifyOutShapeException": errors.OutShapeMismatch}


def marked_dim_names() -> dict[str, Any]:
    """`returnn.tensor.marked_dim`."""
    return vars(marked_dim)


def util_names() -> dict[str, Any]:
    """`returnn.tensor.utils`."""
    return {"tensor_dict_fill_random_numpy_": random_data.tensor_dict_fill_random_numpy_}


def torch_data_names() -> dict[str, Any]:
    """`returnn.torch.data.tensor_utils`."""
    return {
        "tensor_dict_numpy_to_torch_": tensor_dict.tensor_dict_numpy_to_torch_,
        "tensor_dict_torch_to_numpy_": tensor_dict.tensor_dict_torch_to_numpy_,
    }


def context_names() -> dict[str, Any]:
    """`returnn.torch.context`."""
    return {"get_run_ctx": get_run_ctx, "RunCtx": RunContext}


def callback_names() -> dict[str, Any]:
    """`returnn.forward_iface`."""
    return {"ForwardCallbackIface": ForwardCallback}


def bridge_names() -> dict[str, Any]:
    """`returnn.torch.frontend.bridge`."""
    return vars(bridge)


def lion_names() -> dict[str, Any]:
    """`returnn.torch.optim.lion`."""
    return {"Lion": Lion}


def gradient_names() -> dict[str, Any]:
    """`returnn.torch.util.scaled_gradient`."""
    return {"scaled_gradient": scaled_gradient}
