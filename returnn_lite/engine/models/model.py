"""What the engine trains, whatever it is made of: `Model` and `ModelSource` are all that it asks of a network."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from returnn_lite.layers.core.params import ParamOptions, ParamOwner


class Model(Protocol):
    """A network: parameters by name, and `net(data, lengths, tags=…)` for the losses and outputs of a batch.

    `train()`, `eval()` set the train flag. `params`: all that a checkpoint holds, those trained require a gradient;
    they lie on `device`.
    `extern_data`, `used_data_keys`: which data it wants. `recurrent`: whether batches must keep sequences apart.
    `lengths_on_host`: whether it wants the lengths of sequences on the CPU. `random_state`: of dropout and the like,
    readable and settable. `layers`: those there are to ask by name.
    `infinite_constants`: what is not trained and begins with infinities.
    """

    params: Mapping[str, torch.Tensor]
    device: torch.device
    param_options: Mapping[str, ParamOptions]
    loaded_on_init: frozenset[str]
    infinite_constants: frozenset[str]
    extern_data: Any
    used_data_keys: set[str]
    recurrent: bool
    lengths_on_host: bool
    device: torch.device
    epoch: int
    global_step: int
    random_state: Any
    layers: Mapping[str, Any]

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

    pretrain: Any
    pretrain_epochs: int
    per_epoch: bool

    def is_pretrain(self, epoch: int) -> bool:
        """Whether `epoch` is a pretrain epoch."""

    def title(self, epoch: int) -> str:
        """What the log calls the epoch."""

    def train_title(self, epoch: int) -> str:
        """The same for lines about training."""

    def describe(self, epoch: int) -> dict[str, Any]:
        """The description of the network of `epoch`; ConfigError if there is none."""

    def build(self, description: dict[str, Any], *, step: int = 0, filename: str | None = None, **options: Any) -> Any:
        """The `Model` of a description, after `step` training steps.

        filename: the checkpoint that it is filled from afterwards, if any; then the step is that of the file.
        options: epoch, device, log; search, eval, extra_layers: what is asked of it beside losses.
        """

    def copy_modes(self, description: Mapping[str, Any]) -> Callable[[str], str | None]:
        """How a parameter (by name) is taken over from the network before."""

    def score_entries(self, dataset: str, means: Mapping[str, float]) -> dict[str, Any]:
        """The entries of the learning-rate file for an epoch's scores."""
