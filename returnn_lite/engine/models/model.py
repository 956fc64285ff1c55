"""What the engine trains, whatever it is made of: `Model` and `ModelSource` are all that it asks of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias, TypeVar

import torch

from returnn_lite.config_value import ConfigDict, NetDict
from returnn_lite.engine.batch_like import Padded
from returnn_lite.engine.log_form import LogForm
from returnn_lite.engine.precision import Precision
from returnn_lite.layers.core.params import ParamOptions, ParamOwner
from returnn_lite.log import Log
from returnn_lite.network.extern import ExternData
from returnn_lite.network.objective import LossValue
from returnn_lite.tensor import Tensor

M = TypeVar("M")
# Where random numbers are, in a form of its own: only the model that gave it reads it.
RandomState: TypeAlias = Any


class ModelOutput(Protocol):
    """What a network gives for a batch: losses by name, the objective to minimise, and outputs by name.

    `gradients`: those of the objective by parameter, where whoever ran the network has computed them along with it.
    """

    losses: dict[str, LossValue]
    objective: torch.Tensor
    gradients: dict[str, torch.Tensor] | None

    def __getitem__(self, name: str) -> Tensor:
        """An output by name."""

    def asked(self, name: str, *, for_callback: bool = False) -> dict[str, Tensor]:
        """The outputs for somebody who asked for this one; a callback takes what there is."""

    def forget_layers(self) -> None:
        """Drops the outputs, which losses and objective do without."""


class Model(Protocol):
    """A network: parameters by name, and `net(data, lengths, tags=…)` for the losses and outputs of a batch.

    `train()`, `eval()` set the train flag. `params`: all that a checkpoint holds, those trained require a gradient;
    they lie on `device`.
    `extern_data`, `used_data_keys`: which data it wants. `recurrent`: whether batches must keep sequences apart.
    `lengths_on_host`: whether it wants the lengths of sequences on the CPU; `data_as_they_are`: whether it takes
    numbers of any type and value, as a dataset gives them. `random_state`: of dropout and the like, readable and
    settable, of a form of its own. `layers`: those there are to ask by name.
    `layer_modules`: those whose options say something of files. `infinite_constants`: what is not trained and begins
    with infinities. `autocast`: the type of mixed precision in which it is run; None: float32. `wanted`: the names of
    outputs that somebody asks for; None: perhaps all.
    """

    epoch: int
    global_step: int
    loaded_on_init: frozenset[str]
    infinite_constants: frozenset[str]
    autocast: torch.dtype | None
    lengths_on_host: bool
    data_as_they_are: bool
    wanted: frozenset[str] | None
    training: bool

    @property
    def params(self) -> Mapping[str, torch.Tensor]: ...
    @property
    def saved_params(self) -> Mapping[str, torch.Tensor]: ...
    @property
    def param_options(self) -> Mapping[str, ParamOptions]: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def extern_data(self) -> ExternData: ...
    @property
    def used_data_keys(self) -> Set[str]: ...
    @property
    def recurrent(self) -> bool: ...
    @property
    def layers(self) -> Mapping[str, torch.nn.Module]: ...
    @property
    def layer_modules(self) -> Iterable[torch.nn.Module]: ...
    @property
    def random_state(self) -> RandomState: ...
    @random_state.setter
    def random_state(self, state: RandomState) -> None: ...

    def __call__(
        self, data: Mapping[str, Padded], lengths: Mapping[str, torch.Tensor], tags: Sequence[str] | None = None
    ) -> ModelOutput:
        """Losses and outputs for a batch: padded tensors [B, T, …] (lists where they are texts), lengths [B]."""

    def train(self: M, mode: bool = True) -> M:
        """Sets the train flag."""

    def eval(self: M) -> M:
        """Takes the train flag off."""

    def seed(self, seed: int) -> None:
        """Seeds everything random."""

    def param_owners(self) -> dict[str, ParamOwner]:
        """Who has which parameter."""

    def summary(self) -> list[str]:
        """What it is made of, as lines of the log."""

    def running_over(self, dataset_name: str) -> AbstractContextManager[None]:
        """While a pass over a dataset goes on."""

    def close(self) -> None:
        """It is not needed any more."""


class ModelSource(Protocol):
    """The network of every epoch, by a description that says whether it changes; names for the log and the scores."""

    @property
    def pretrain(self) -> object: ...  # the log shows it
    @property
    def pretrain_epochs(self) -> int: ...
    @property
    def per_epoch(self) -> bool: ...
    @property
    def form(self) -> LogForm: ...
    @property
    def precision(self) -> Precision: ...

    def is_pretrain(self, epoch: int) -> bool:
        """Whether `epoch` is a pretrain epoch."""

    def describe(self, epoch: int) -> NetDict:
        """The description of the network of `epoch`; ConfigError if there is none."""

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
        eval: bool = True,  # noqa: A002 - the field's word
        extra_layers: tuple[str, ...] = (),
    ) -> Model:
        """The `Model` of a description, after `step` training steps.

        filename: the checkpoint that it is filled from afterwards, if any; then the step is that of the file.
        search, eval, extra_layers: what is asked of it: choices that search, losses, further outputs.
        """

    def copy_modes(self, description: ConfigDict) -> Callable[[str], str | None]:
        """How a parameter (by name) is taken over from the network before."""
