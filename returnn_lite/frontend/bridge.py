"""Modules of the frontend as torch modules, and the other way round."""

from __future__ import annotations

from typing import Any

import torch

from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.parameter import Parameter
from returnn_lite.frontend.types import Nested


class RFModuleAsPTModule(torch.nn.Module):
    """A frontend module with the same tree of attributes: parameters, auxiliary ones as buffers, modules."""

    def __init__(
        self, rf_module: Module, *, aux_params_as_buffers: bool = True, _made: dict[int, Any] | None = None
    ) -> None:
        super().__init__()
        self._rf_module, self._aux = [rf_module], aux_params_as_buffers  # in a list: torch must not look into it
        made = {} if _made is None else _made
        made[id(rf_module)] = self
        for name, value in vars(rf_module).items():
            if isinstance(value, Parameter):
                if value.auxiliary and aux_params_as_buffers:
                    self.register_buffer(name, None)
                    self._buffers[name] = value.raw_tensor
                else:
                    self.register_parameter(name, value.raw_tensor)
            elif isinstance(value, Module):
                child = made.get(id(value))
                if child is None:
                    child = RFModuleAsPTModule(value, aux_params_as_buffers=aux_params_as_buffers, _made=made)
                self.add_module(name, child)

    @property
    def rf_module(self) -> Module:
        """The frontend module."""
        return self._rf_module[0]

    def _get_name(self) -> str:
        return type(self.rf_module).__name__

    def forward(self, *args: Nested, **kwargs: Nested) -> Nested:
        """What the frontend module computes."""
        return self.rf_module(*args, **kwargs)

    def _apply(self, fn: Any, recurse: bool = True) -> RFModuleAsPTModule:
        """As torch, and the frontend parameters get what it made of theirs."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, raw in self._buffers.items():
            if raw is not None and isinstance(vars(self.rf_module).get(name), Parameter):
                self._buffers[name] = torch.nn.Parameter(raw, requires_grad=False)
        self.refresh()
        return self

    def refresh(self) -> None:
        """The frontend parameters get the tensors that this module has now."""
        for name, value in vars(self.rf_module).items():
            raw = self._parameters.get(name, self._buffers.get(name)) if isinstance(value, Parameter) else None
            if raw is not None:
                value.set_raw(raw)


def rf_module_to_pt_module(rf_module: Module, *, aux_params_as_buffers: bool = True) -> torch.nn.Module:
    """A torch module of a frontend module; of what is one by `pt_module_to_rf_module` the original."""
    if isinstance(rf_module, PTModuleAsRFModule):
        return rf_module.pt_module
    return RFModuleAsPTModule(rf_module, aux_params_as_buffers=aux_params_as_buffers)


class PTModuleAsRFModule(Module):
    """A torch module as a frontend module; its parameters have axes of their sizes."""

    def __init__(self, pt_module: torch.nn.Module) -> None:
        self._pt_module = pt_module
        for name, raw in pt_module.named_parameters(recurse=False):
            setattr(self, name, _parameter(name, raw, auxiliary=False))
        for name, raw in pt_module.named_buffers(recurse=False):
            setattr(self, name, _parameter(name, raw, auxiliary=True))
        for name, child in pt_module.named_children():
            setattr(self, name, PTModuleAsRFModule(child))

    @property
    def pt_module(self) -> torch.nn.Module:
        """The torch module."""
        return self._pt_module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the torch module computes."""
        return self._pt_module(*args, **kwargs)


def _parameter(name: str, raw: torch.Tensor, auxiliary: bool) -> Parameter:
    dims = [Dim(size, name=f"{name}:dim{i}") for i, size in enumerate(raw.shape)]
    dtype = str(raw.dtype).removeprefix("torch.")
    found = Parameter(dims, dtype, auxiliary=auxiliary, raw_tensor=raw)
    if isinstance(raw, torch.nn.Parameter):
        found.trainable = raw.requires_grad
    return found


def pt_module_to_rf_module(pt_module: torch.nn.Module) -> Module:
    """A frontend module of a torch module; of what is one by `rf_module_to_pt_module` the original."""
    found = wrapped_pt_module_to_rf_module(pt_module)
    return PTModuleAsRFModule(pt_module) if found is None else found


def wrapped_pt_module_to_rf_module(pt_module: torch.nn.Module) -> Module | None:
    """The frontend module that a torch module was made of; None for others."""
    if not isinstance(pt_module, torch.nn.Module):
        raise WrongUse(f"a torch module is needed, but got {pt_module!r} instead")
    return pt_module.rf_module if isinstance(pt_module, RFModuleAsPTModule) else None


def optional_params(pt_module: torch.nn.Module) -> set[str]:
    """The names of frontend parameters with `non_critical_for_restore` in a torch module."""
    found = set()
    for prefix, module in pt_module.named_modules():
        if isinstance(module, RFModuleAsPTModule):
            for name, value in vars(module.rf_module).items():
                if isinstance(value, Parameter) and value.non_critical_for_restore:
                    found.add(f"{prefix}.{name}" if prefix else name)
    return found
