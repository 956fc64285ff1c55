"""The network of each epoch, and what updates it."""

import copy

import torch

from returnn_lite.config import Config
from returnn_lite.config_value import NetDict
from returnn_lite.engine.distributed.agreement import network_fingerprint
from returnn_lite.engine.distributed.parallel import Parallel
from returnn_lite.engine.models.descriptions import description_diff, dims_in, same_description
from returnn_lite.engine.models.epoch_marks import EpochMarks, require_loss
from returnn_lite.engine.models.model import Model, ModelSource
from returnn_lite.engine.models.network_source import print_network
from returnn_lite.engine.models.overrides import EpochOverrides
from returnn_lite.engine.models.take_over import take_over_params
from returnn_lite.engine.training_data import TrainingData
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.optim.loss_scale import LossScale
from returnn_lite.optim.updater import Updater

DATASET_OPTIONS = {"train", "dev", "eval", "eval_datasets", "chunking", "min_chunk_size", "batching", "context_window"}


class EpochNetwork:
    """The network and its updater: made anew where an epoch's description is another one, else they stay.

    `description`: the network's, None before the first one; `marks`: what else it says of the epoch.
    """

    net: Model
    updater: Updater
    marks: EpochMarks

    def __init__(
        self,
        config: Config,
        log: Log,
        *,
        source: ModelSource,
        data: TrainingData,
        parallel: Parallel,
        device: torch.device,
        learning_rate: float,
    ) -> None:
        self.config, self.log, self.source, self.data = config, log, source, data
        self.parallel, self.device, self.learning_rate = parallel, device, learning_rate
        self.overrides = EpochOverrides(config, log)
        self.description: NetDict | None = None

    def prepare(self, epoch: int, global_step: int, filename: str | None = None) -> None:
        """Makes network and options those of `epoch`; a new network takes over the old parameters.

        `filename`: the checkpoint that the first network is filled from later.
        """
        self.marks, description = EpochMarks.split(self.source.describe(epoch), per_epoch=self.source.per_epoch)
        changed = self.overrides.apply(epoch, description.get("#config", {}))
        if changed & DATASET_OPTIONS:
            self.data.open()
        if self._stays(epoch, description):
            if self.marks.trains:
                require_loss(self.net)
            return
        if self.description is not None and self.parallel.splits_parameters:
            raise ConfigError(
                "pretrain", f"epoch {epoch} has a different network, which sharded parameters do not allow"
            )
        before = (self.net, self.updater) if self.description is not None else None
        self.net = self.source.build(
            description, epoch=epoch, step=global_step, device=self.device, log=self.log, filename=filename
        )
        if self.marks.trains:
            require_loss(self.net)
        if before is not None:
            print_network(self.net, self.log)
            take_over_params(before[0], self.net, self.source.copy_modes(description), self.log)
            before[0].close()
        self.description = copy.deepcopy(description)
        self.updater = self._new_updater()
        if before is not None:
            self.updater.take_over(before[1])

    def join(self) -> None:
        """To be called once, when the network has its start values: from here on it is trained in all processes."""
        world = self.parallel.world
        world.require_equal("network", "builds a different network", network_fingerprint(self.net.params))
        if self.parallel.splits_parameters:
            self.parallel.adopt(self.net)
            self.updater = self._new_updater()

    def _stays(self, epoch: int, description: NetDict) -> bool:
        """Whether the network is the right one; the log says why not."""
        if self.description is None:
            return False
        anew = self.config.is_true("reinit_network_each_epoch") and epoch != self.net.epoch
        known = dims_in(self.config.typed_value("extern_data"))  # by which data are fed
        if same_description(self.description, description, known) and not anew:
            return True
        self.log.v3("reinit because network description differs. Diff:" if not anew else "reinit of each epoch")
        for line in description_diff(self.description, description, known):
            self.log.v3(line)
        return False

    def _new_updater(self) -> Updater:
        made = Updater(
            self.net.params,
            self.config,
            param_options=self.net.param_options,
            initial_learning_rate=self.learning_rate,
            log=self.log,
            network=self.net,
            steps_per_epoch=self.steps_per_epoch,
        )
        made.combine, made.by_backward = self.parallel.combine, self.parallel.by_backward
        scaler = self.source.precision.scaler
        if scaler is not None:
            made.scale_by(LossScale(scaler, self.device))
        if made.closure is not None and self.parallel.world.size > 1:
            raise ConfigError("optimizer", f"{made.closure.name} takes a closure, which only one process can")
        return made

    def steps_per_epoch(self) -> int:
        """The number of batches of the first epoch, in each process."""
        return self.parallel.world.least(self.data.count_batches(self.net))
