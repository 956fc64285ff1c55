"""Parameters of torch's modules."""

from __future__ import annotations

import torch

from returnn_lite.frontend.conv import Conv1d
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.linear import Linear
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.normalization import LayerNorm
from returnn_lite.frontend.parameter import Parameter


def copied(source: torch.Tensor | None, target: Parameter | None, name: str) -> None:
    """Sets a parameter, in its type. WrongUse if there is only one of them, or the shapes differ."""
    if source is None and target is None:
        return
    if source is None or target is None:
        raise WrongUse(f"{name}: only one of the two modules has this parameter")
    if tuple(source.shape) != tuple(target.raw_tensor.shape):
        raise WrongUse(f"{name} {target} cannot have the shape {tuple(source.shape)}")
    with torch.no_grad():
        target.raw_tensor.copy_(source)


def _checked(module: Module, kind: type) -> None:
    if not isinstance(module, kind):
        raise WrongUse(f"the module must be an rf.{kind.__name__}, but is {module} instead")


def import_params_torch_linear_to_rf(pt_module: torch.nn.Linear, rf_module: Linear) -> None:
    """`torch.nn.Linear`; its weight is transposed."""
    _checked(rf_module, Linear)
    copied(pt_module.weight.t(), rf_module.weight, "weight")
    copied(pt_module.bias, rf_module.bias, "bias")


def import_params_torch_conv1d_to_rf(pt_module: torch.nn.Conv1d, rf_module: Conv1d) -> None:
    """`torch.nn.Conv1d`."""
    _checked(rf_module, Conv1d)
    copied(pt_module.weight, rf_module.filter, "filter")
    copied(pt_module.bias, rf_module.bias, "bias")


def import_params_torch_layer_norm_to_rf(pt_module: torch.nn.LayerNorm, rf_module: LayerNorm) -> None:
    """`torch.nn.LayerNorm`."""
    _checked(rf_module, LayerNorm)
    copied(pt_module.weight, rf_module.scale, "scale")
    copied(pt_module.bias, rf_module.bias, "bias")
