"""Models written in torch as the engine's network: a module, and the functions that run it on a batch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigFunction, ConfigValue
from returnn_lite.engine.batch_like import Padded
from returnn_lite.engine.precision import floats_by_default
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.frontend.bridge import optional_params, wrapped_pt_module_to_rf_module
from returnn_lite.frontend.core_values import loss_value, marked_output
from returnn_lite.frontend.extern import ExternTensors, declared
from returnn_lite.frontend.run_ctx import RunContext
from returnn_lite.layers.core.params import ParamOptions, ParamOwner
from returnn_lite.network.extern import ExternData, extern_options
from returnn_lite.network.objective import LossValue
from returnn_lite.tensor import Tensor

HOST = torch.device("cpu")


@dataclass
class TorchOutput:
    """What a batch gives: losses by name, the objective to minimise, and the outputs by name.

    `gradients`: as of `NetworkOutput`.
    """

    losses: dict[str, LossValue] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    objective: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    gradients: dict[str, torch.Tensor] | None = None

    def __getitem__(self, name: str) -> Tensor:
        """An output by name; the only one also goes by the name "output"."""
        if name == "output" and len(self.outputs) == 1:
            return next(iter(self.outputs.values()))
        if name not in self.outputs:
            known = ", ".join(repr(known) for known in self.outputs) or "none"
            hint = did_you_mean(name, list(self.outputs))
            raise ConfigError("forward_step", f"must mark an output {name!r}{hint}; it marked {known}")
        return self.outputs[name]

    def asked(self, name: str, *, for_callback: bool = False) -> dict[str, Tensor]:
        """The outputs for somebody who asked for this one: all, this one first; a callback needs none of this name."""
        if for_callback and name == "output":
            return dict(self.outputs)
        first = self[name]
        return {key: value for key, value in sorted(self.outputs.items(), key=lambda item: item[1] is not first)}

    def forget_layers(self) -> None:
        """Drops the outputs."""
        self.outputs = {}


class TorchNet(torch.nn.Module):
    """A torch module of the user as the engine's network: parameters by their names in the module.

    steps: the functions to run for every batch, by name: `train_step` for losses, `forward_step` for outputs.
    float_dtype: of the floats that they get, and make by default; None: as they come.
    """

    lengths_on_host = True  # users pack and loop by them
    data_as_they_are = True
    wanted: frozenset[str] | None = None
    recurrent = True
    loaded_on_init: frozenset[str] = frozenset()
    infinite_constants: frozenset[str] = frozenset()
    layers: Mapping[str, torch.nn.Module] = {}
    layer_modules = ()

    def __init__(
        self,
        model: torch.nn.Module,
        config: Config,
        steps: Mapping[str, ConfigFunction],
        float_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.float_dtype = float_dtype
        self.model, self.steps = model, dict(steps)
        self.autocast: torch.dtype | None = None
        self.user_model: Any = wrapped_pt_module_to_rf_module(model) or model
        self._tensors = ExternTensors(extern_options(config), float_dtype)
        self.extern_data = ExternData(config)
        self.epoch, self.global_step = 1, 0
        self.has_trained = False  # whether some step had a gradient
        hidden = set() if "train_step" in steps else {
            key for key, options in self.extern_data.options.items() if not options.get("available_for_inference", True)
        }  # fmt: skip
        self.used_data_keys = set(self.extern_data.specs) - hidden
        self.model_outputs = config.typed_value("model_outputs", None) or {}
        declared(self.model_outputs, "model_outputs")  # what is wrong there is told at once

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def params(self) -> dict[str, torch.Tensor]:
        """Parameters and persistent buffers by name; what is shared counts under its first name."""
        state = self.model.state_dict(keep_vars=True)
        found, seen = {}, set()
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and id(value) not in seen:
                seen.add(id(value))
                found[name] = value
        return found

    @property
    def saved_params(self) -> dict[str, torch.Tensor]:
        """The same; what is shared stands under each of its names."""
        state = self.model.state_dict(keep_vars=True)
        return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next((p.device for p in self.params.values()), HOST)

    @property
    def param_options(self) -> dict[str, ParamOptions]:
        """Whether a model file must have it."""
        optional = optional_params(self.model)
        return {name: ParamOptions(critical=name not in optional) for name in self.params}

    def param_owners(self) -> dict[str, ParamOwner]:
        """The module of each parameter."""
        found = {}
        for prefix, module in self.model.named_modules():
            for local, _ in module.named_parameters(recurse=False):
                name = f"{prefix}.{local}" if prefix else local
                found[name] = ParamOwner.of_torch(prefix, module)
        return found

    def running_over(self, dataset_name: str) -> AbstractContextManager[None]:
        """Nothing is to be done for a pass over a dataset."""
        return nullcontext()

    def close(self) -> None:
        """Nothing is to be done in the end."""

    def summary(self) -> list[str]:
        """The data keys, and the module as torch shows it."""
        specs = self.extern_data.specs
        keys = ", ".join(f"{key}: {specs[key]}" for key in sorted(specs))
        return ["Torch model:", f"  extern data: {keys}", *(f"  {line}" for line in str(self.model).split("\n"))]

    def seed(self, seed: int) -> None:
        """Seeds torch's own random numbers, which modules draw from."""
        torch.manual_seed(seed)

    @property
    def random_state(self) -> list[torch.Tensor]:
        """Where torch's random numbers are; set it to repeat them."""
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ())]

    @random_state.setter
    def random_state(self, state: list[torch.Tensor]) -> None:
        torch.set_rng_state(state[0])
        if state[1:]:
            torch.cuda.set_rng_state_all(state[1:])

    # --- running ------------------------------------------------------------------------------------------------------

    def forward(
        self, data: Mapping[str, Padded], lengths: Mapping[str, torch.Tensor], tags: list[str] | None = None
    ) -> TorchOutput:
        """Runs the steps on a batch: batch-first arrays by key, and int lengths [B] of the keys with a time axis."""
        used = {key: value for key, value in data.items() if key in self.used_data_keys}
        texts = {key: value for key, value in used.items() if isinstance(value, list)}
        feed = {
            key: self.extern_data.feed(key, value, lengths, lengths_on=HOST)
            for key, value in used.items() if key not in texts
        }  # fmt: skip
        out = TorchOutput()
        if tags is None:
            tags = [f"seq-{i}" for i in range(next((len(values) for values in used.values()), 0))]
        for name, function in self.steps.items():
            context = self._run(name, function, feed, texts, tags)
            out.losses.update({key: loss_value(loss) for key, loss in context.losses.items()})
            out.outputs.update({key: marked_output(value) for key, value in context.outputs.items()})
        if "train_step" in self.steps:
            out.objective = self._objective(out.losses)
        return out

    def _run(
        self,
        name: str,
        function: ConfigFunction,
        feed: Mapping[str, Tensor],
        texts: Mapping[str, list[str]],
        tags: list[str],
    ) -> RunContext:
        """Calls one of the functions; what it marked is in the context."""
        expected = declared(self.model_outputs, "model_outputs") if self.model_outputs else None
        context = RunContext(name, self.epoch, self.global_step, self.training, expected)
        offered = {"model": self.user_model, "extern_data": self._tensors.fill(feed, tags, texts)}
        with context.running(), floats_by_default(self.float_dtype):
            more = {"run_ctx": context, "epoch": self.epoch, "step": self.global_step}
            returned = call(function, name, offered, more)
        if name == "forward_step":
            context.check_outputs_complete()
            if returned is not None and not context.outputs.data:
                text = "must mark an output: get_run_ctx().mark_as_output(tensor, name)"
                raise ConfigError(name, f"{text}; what it returns is not used")
        return context

    def _objective(self, losses: Mapping[str, LossValue]) -> torch.Tensor:
        """The sum of what the losses give. ConfigError if nothing is to be trained by it."""
        terms = [term for loss in losses.values() if (term := loss.objective) is not None]
        total = sum(terms[1:], terms[0]) if terms else None
        if total is None and (self.training or not losses):
            text = "must mark a loss to train by: get_run_ctx().mark_as_loss(loss, name)"
            raise ConfigError("train_step", text)
        if torch.is_grad_enabled() and total is not None:
            self._check_depends(total, losses)
        return torch.zeros(()) if total is None else total

    def _check_depends(self, total: torch.Tensor, losses: Mapping[str, LossValue]) -> None:
        """ConfigError if no step so far has had anything to train, this one neither, though it has targets."""
        self.has_trained = self.has_trained or total.requires_grad
        if self.has_trained or any(not loss.inv_norm for loss in losses.values()):
            return
        if not any(param.requires_grad for param in self.model.parameters()):
            raise ConfigError("train_step", "no parameter can be trained: all have requires_grad = False")
        raise ConfigError("train_step", f"the losses ({', '.join(losses)}) do not depend on any parameter")


def call(
    function: ConfigFunction, name: str, offered: Mapping[str, object], on_request: Mapping[str, object] | None = None
) -> ConfigValue:
    """Calls a function of the config with those of the arguments that it takes; those `on_request` only by name."""
    wanted = inspect.signature(function).parameters.values()
    takes_all = any(p.kind is p.VAR_KEYWORD for p in wanted)
    known = {**offered, **(on_request or {})}
    named = [p.name for p in wanted if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    missing = [p.name for p in wanted if p.name in named and p.default is p.empty and p.name not in known]
    if missing:
        text = f"`{name}` may take {', '.join(known)}, but needs `{missing[0]}`{did_you_mean(missing[0], list(known))}"
        raise ConfigError(name, text)
    found = function(**{key: value for key, value in known.items() if key in named or takes_all and key in offered})
    if inspect.iscoroutine(found) or inspect.isgenerator(found):
        found.close()
        kind, cause = ("an async function", "async") if inspect.iscoroutine(found) else ("a generator", "yield")
        raise ConfigError(name, f"must be a plain function, but is {kind}; write it without `{cause}`")
    return found
