"""Models written in torch: which functions of a config the engine builds its network from."""

from __future__ import annotations

from collections.abc import Callable

import torch

from returnn_lite.behavior_version import BehaviorVersion, select_backend_torch
from returnn_lite.config import Config
from returnn_lite.config_value import ConfigDict, ConfigFunction, NetDict
from returnn_lite.engine.checkpoints.finite import infinite_constants
from returnn_lite.engine.checkpoints.load import stored_step
from returnn_lite.engine.checkpoints.torch_preload import load_always
from returnn_lite.engine.log_form import TorchForm
from returnn_lite.engine.models.network_source import initial_seed, start_epoch
from returnn_lite.engine.models.torch_model import TorchNet, call
from returnn_lite.engine.precision import Precision, float_dtype
from returnn_lite.errors import ConfigError
from returnn_lite.frontend.bridge import rf_module_to_pt_module
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.parameter import Parameter
from returnn_lite.frontend.run_ctx import RunContext
from returnn_lite.log import Log


class TorchSource:
    """One torch module in all epochs: what `get_model` returns at the start of the task."""

    pretrain = None
    pretrain_epochs = 0
    per_epoch = False
    form = TorchForm()

    def __init__(self, config: Config) -> None:
        self.config = config
        BehaviorVersion._reset()
        select_backend_torch()
        if config.has("behavior_version"):
            BehaviorVersion.set(config.int("behavior_version", 0))
        if config.value("backend", None) != "torch":
            found = config.value("backend", None)
            raise ConfigError("backend", f'`backend` must be "torch" with `get_model`, but is {found!r} instead')
        for other in ("network", "get_network", "pretrain"):
            if config.typed_value(other):
                raise ConfigError(other, f"`{other}` and `get_model` exclude each other; drop one of them")
        self.precision, self.float_dtype = Precision.from_config(config), float_dtype(config)

    def is_pretrain(self, epoch: int) -> bool:
        """Never."""
        return False

    def describe(self, epoch: int) -> NetDict:
        """The same in all epochs."""
        return {}

    def copy_modes(self, description: ConfigDict) -> Callable[[str], str | None]:
        """As far as possible."""
        return lambda name: None

    def build(
        self,
        description: NetDict,
        *,
        epoch: int,
        device: torch.device,
        log: Log,
        step: int = 0,
        filename: str | None = None,
        search: bool = False,
        eval: bool = True,
        extra_layers: tuple[str, ...] = (),
    ) -> TorchNet:
        """Calls `get_model(epoch=…, step=…, device=…)`, with random numbers that depend on the seed of `epoch` alone.

        step: 0, or of a model that is loaded the last step it was trained for, counted from 0; a file that does not
        say counts as one of a single step.
        eval: whether `train_step` is run for losses; extra_layers: the outputs that `forward_step` is run for.
        """
        wanted = [*["train_step"] * eval, *["forward_step"] * bool(extra_layers)]
        get_model, *functions = [required(self.config, name) for name in ("get_model", *wanted)]
        step = stored_step(filename, missing=1) - 1 if filename else step  # the last step of those before
        torch.manual_seed(initial_seed(self.config, epoch, step))
        with RunContext("init", epoch, step).running():
            model = call(get_model, "get_model", {"epoch": epoch, "step": step, "device": str(device)})
        if isinstance(model, Module):
            for place in _out_of_reach(model):
                text = f"what {place} holds is neither trained nor stored; use rf.ModuleList, or attributes"
                log.v1(f"warning: get_model: {text}")
            model = rf_module_to_pt_module(model)
        if not isinstance(model, torch.nn.Module):
            text = f"must return an rf.Module or torch.nn.Module, but returned {model!r} instead"
            raise ConfigError("get_model", text)
        steps = dict(zip(wanted, functions, strict=True))
        net = TorchNet(model, self.config, steps, self.float_dtype).to(device, self.float_dtype)
        net.autocast = self.precision.dtype
        if net.autocast is not None:
            log.v2(f"Using autocast (automatic mixed precision (AMP)) with dtype {net.autocast}")
        net.infinite_constants = infinite_constants(net.params)
        load_always(model, net.params, self.config.literal("preload_from_files"), log)
        start_epoch(net, self.config, epoch)
        return net


def _out_of_reach(module: Module) -> list[str]:
    """The lists, tuples and dicts among the attributes that hold parameters which are no attributes anywhere."""
    known = {id(parameter) for parameter in module.parameters()}
    found = []
    for prefix, owner in module.named_modules():
        for name, value in vars(owner).items():
            entries = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
            inner = [part for entry in entries if isinstance(entry, Module) for part in entry.parameters()]
            if any(id(part) not in known for part in (*inner, *(e for e in entries if isinstance(e, Parameter)))):
                found.append(f"{prefix}.{name}" if prefix else name)
    return found


def required(config: Config, name: str) -> ConfigFunction:
    """A function of the config. ConfigError if there is none, or it is something else."""
    function = config.typed_value(name)
    if function is None:
        raise ConfigError(name, f"`{name}` must be a function for this task with `get_model`, but is not set")
    if not callable(function):
        raise ConfigError(name, f"`{name}` must be a function, but is {function!r} instead")
    return function  # type: ignore[no-any-return]
