"""Parameters, gradients and optimizer states in parts, one in each process (torch's `fully_shard`, FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.engine.distributed.layer_units import split_network
from returnn_lite.engine.distributed.options import KEY
from returnn_lite.engine.distributed.parallel import Parallel
from returnn_lite.engine.distributed.world import Tensors, World
from returnn_lite.engine.models.model import Model
from returnn_lite.engine.models.torch_model import TorchNet
from returnn_lite.engine.step import Forward, by_itself
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.frontend.bridge import RFModuleAsPTModule
from returnn_lite.network import Network
from returnn_lite.optim.gradients import Gradients
from returnn_lite.optim.state import SavedState, State

OPTIONS = ("reshard_after_forward", "modules")


class Sharded(Parallel):
    """A process computes on whole parameters, which it gathers part by part of the model, and keeps a part of them.

    The model's parts are the entries of every `ModuleList` (its blocks), or the modules of the classes `modules`, and
    then the network itself for what is left. In a network of layers they are layers that run one right after the
    other, or those named in `modules`. All processes must run the network equally often, so each computes the scores of
    all batches of an evaluation. Zhao et al. 2023, "PyTorch FSDP: experiences on scaling fully sharded data parallel".
    """

    by_backward = True
    splits_parameters = True

    def __init__(self, world: World, options: ConfigDict) -> None:
        super().__init__(world)
        for key in options:
            if key not in OPTIONS:
                hint = did_you_mean(str(key), OPTIONS)
                raise ConfigError(
                    f'{KEY}["options"]["{key}"]', f"is not an option with fsdp{hint} (options: {', '.join(OPTIONS)})"
                )
        self.modules = options.get("modules")
        self.reshard = bool(options.get("reshard_after_forward", True))
        self.mesh = init_device_mesh(world.device.type, (world.size,))

    def training(self, forward: Forward) -> Forward:
        """The network itself, whose hooks gather and part the parameters."""
        return by_itself

    def adopt(self, net: Model) -> None:
        """Leaves to this process its part of all parameters, which are those of the first process."""
        self.world.copy_first(net.params)
        if isinstance(net, Network):
            split_network(net, self.mesh, again=self.reshard, parts=self.modules)
        if isinstance(net, TorchNet):
            for module in [*blocks(net.model, self.modules), net]:
                fully_shard(module, mesh=self.mesh, reshard_after_forward=self.reshard)
            net.register_forward_pre_hook(lambda *_: refresh_frontend(net.model))  # after that of fully_shard

    def agree(self, params: Tensors) -> None:
        """What is not a parameter, such as running statistics, is that of the first process."""
        self.world.copy_first({name: value for name, value in params.items() if not isinstance(value, DTensor)})

    def whole(self, values: Tensors) -> dict[str, torch.Tensor]:
        """Gathers all parts, one parameter after the other, on the CPU."""
        return {name: _whole(value) for name, value in values.items()}

    def whole_state(self, state: State) -> State:
        """Gathers all tensors of an optimizer's state."""
        return {key: _whole_state(value) for key, value in state.items()}

    def split_state(self, state: SavedState, params: Tensors) -> SavedState:
        """Keeps this process's part of what belongs to each parameter."""
        return {key: _split(value, params, None) for key, value in state.items()}

    def combine(self, gradients: Gradients, params: Mapping[str, torch.Tensor]) -> Gradients:
        """The backward pass has averaged them."""
        return gradients


def _whole(value: torch.Tensor) -> torch.Tensor:
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def _whole_state(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole_state(entry) for key, entry in value.items()}
    return _whole(value) if isinstance(value, torch.Tensor) else value


def _split(value: Any, params: Tensors, param: torch.Tensor | None) -> Any:
    """`param`: the one that the value belongs to, by the name of an entry that it is in."""
    if isinstance(value, Mapping):
        return {key: _split(entry, params, params.get(key, param)) for key, entry in value.items()}
    if isinstance(value, torch.Tensor) and isinstance(param, DTensor) and value.shape == param.shape:
        return distribute_tensor(value.to(param.device), param.device_mesh, param.placements)
    return value


def refresh_frontend(model: torch.nn.Module) -> None:
    """Parameters of the frontend are those that its torch modules have now."""
    for module in model.modules():
        if isinstance(module, RFModuleAsPTModule):
            module.refresh()


def blocks(net: torch.nn.Module, classes: ConfigValue = None) -> Iterator[torch.nn.Module]:
    """The modules to be gathered one at a time, inner ones first. ConfigError if the model has none of a class."""
    modules = [module for module in net.modules() if module is not net]
    if classes is None:
        lists = [module for module in modules if isinstance(module, torch.nn.ModuleList)]
        chosen = [block for group in lists for block in group if not isinstance(block, torch.nn.ModuleList)]
    else:
        known = {type(module).__name__ for module in modules}
        for name in classes:
            if name not in known:
                text = f"no module has the class {name!r}{did_you_mean(str(name), known)}"
                raise ConfigError(f'{KEY}["options"]["modules"]', text)
        chosen = [module for module in modules if type(module).__name__ in classes]
    return reversed([block for block in chosen if any(True for _ in block.parameters())])
