"""Gradients averaged while they are computed, by torch's DistributedDataParallel."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
from torch.nn.parallel import DistributedDataParallel

from returnn_lite.config_value import ConfigDict
from returnn_lite.engine.batch_like import Padded
from returnn_lite.engine.distributed.options import KEY
from returnn_lite.engine.distributed.parallel import MeanGradients
from returnn_lite.engine.distributed.world import World
from returnn_lite.engine.models.model import Model, ModelOutput
from returnn_lite.engine.step import Forward, by_itself
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.optim.gradients import Gradients

UNUSED = "find_unused_parameters"
OWN = ("module", "device_ids", "output_device", "dim", "process_group")  # what the engine sets itself


class OverlappedMean(MeanGradients):
    """The mean of gradients in buckets, each sent as soon as it is computed.

    The first step of a network is averaged afterwards: it shows whether all parameters get gradients, which torch must
    know, and which gradients have rows only: torch averages none of these, so they are averaged afterwards in all
    steps. So is every step where something else than the network itself runs it. `options` are those of
    DistributedDataParallel.
    """

    by_backward = True

    def __init__(self, world: World, options: ConfigDict) -> None:
        super().__init__(world)
        known = [name for name in inspect.signature(DistributedDataParallel).parameters if name not in OWN]
        for key in options:
            if key not in known:
                hint = did_you_mean(str(key), known)
                raise ConfigError(f'{KEY}["options"]["{key}"]', f"is not an option of DistributedDataParallel{hint}")
        self.options = dict(options)
        self.net: Model | None = None
        self.trained: frozenset[str] = frozenset()
        self.wrapped: DistributedDataParallel | None = None
        self.all_used: bool | None = None
        self.rows: list[str] = []  # parameters with row-sparse gradients

    def training(self, forward: Forward) -> Forward:
        """Runs the network so that its backward pass averages the gradients."""
        return self._forward if forward is by_itself else forward

    def _forward(
        self, net: Model, data: dict[str, Padded], lengths: dict[str, torch.Tensor], tags: list[str]
    ) -> ModelOutput:
        if not torch.is_grad_enabled():
            return by_itself(net, data, lengths, tags)
        trained = frozenset(name for name, param in net.params.items() if param.requires_grad)
        if self.net is not net or self.trained != trained:
            self.net, self.trained, self.wrapped, self.all_used = net, trained, None, None
        if self.all_used is None:
            return by_itself(net, data, lengths, tags)
        if self.wrapped is None:
            self.wrapped = self._wrap(net, self.all_used)
        try:
            objective, result = self.wrapped(data, lengths, tags)
        except RuntimeError as exc:
            raise _with_advice(exc) from exc
        out: ModelOutput = result.out
        out.objective = objective
        return out

    def _wrap(self, net: Model, all_used: bool) -> DistributedDataParallel:
        step = _Step(net)
        apart = [net.params[name] for name in self.rows]
        named = step.named_parameters(remove_duplicate=False)  # a layer may be a part of several modules
        names = [name for name, param in named if any(param is other for other in apart)]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(step, names)
        return DistributedDataParallel(step, **{UNUSED: not all_used, **self.options})

    def combine(self, gradients: Gradients, params: Mapping[str, torch.Tensor]) -> Gradients:
        """They are averaged already, but for the first step and for rows."""
        if self.wrapped is None:
            found, self.all_used = self.world.mean(gradients, params)
            self.rows = [name for name, gradient in found.items() if gradient.is_sparse]
            return found
        if not self.rows:
            return gradients
        found, _ = self.world.mean(gradients, {name: params[name] for name in self.rows})
        return {**gradients, **found}


class _Result:
    """Keeps an output from torch, which would look for tensors in it."""

    def __init__(self, out: ModelOutput) -> None:
        self.out = out


class _Step(torch.nn.Module):
    """The network as a module that gives the objective, and beside it the rest."""

    def __init__(self, net: Model) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, data: dict[str, Padded], lengths: dict[str, torch.Tensor], tags: list[str]
    ) -> tuple[torch.Tensor, _Result]:
        """Objective and output."""
        out = self.net(data, lengths, tags=tags)
        return out.objective, _Result(out)


def _with_advice(exc: RuntimeError) -> Exception:
    if "Expected to have finished reduction" not in str(exc):
        return exc
    text = 'a parameter got no gradient in a step, unlike in the first one; set "find_unused_parameters": True'
    return ConfigError(f'{KEY}["options"]', text)
