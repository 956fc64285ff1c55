"""The checkpoints that a training writes and removes."""

from collections.abc import Mapping

import torch

from returnn_lite.config import Config
from returnn_lite.engine.checkpoints import checkpoint
from returnn_lite.engine.checkpoints.cleanup import Scores, cleanup_old_models, cleanup_options
from returnn_lite.engine.checkpoints.find import epoch_base, existing_models
from returnn_lite.engine.checkpoints.resume import complete_formats
from returnn_lite.engine.epoch_network import EpochNetwork
from returnn_lite.engine.log_form import write
from returnn_lite.engine.models.model import ModelSource
from returnn_lite.engine.models.torch_source import TorchSource
from returnn_lite.engine.setup import final_epoch, model_name
from returnn_lite.log import Log
from returnn_lite.optim.state import State
from returnn_lite.version import __version__

Params = Mapping[str, torch.Tensor]


class RunFiles:
    """The files of a training under the name `model`; None (or `dry_run`): it writes none."""

    def __init__(self, config: Config, log: Log, source: ModelSource) -> None:
        self.config, self.log, self.source = config, log, source
        self.model = None if config.is_true("dry_run") else model_name(config)
        self.final_epoch = final_epoch(config)
        self.formats, self.as_torch = checkpoint.checkpoint_formats(config), isinstance(source, TorchSource)
        self.save_interval = config.int("save_interval", 1) or 1
        self.cleanup = cleanup_options(config.bool_or_other("cleanup_old_models", None))
        self.written: int | None = None  # the last epoch

    def remove_stale(self) -> None:
        """Removes what a killed run left half written."""
        checkpoint.remove_stale_files(self.model, self.config.value("learning_rate_file", None))

    def due(self, epoch: int) -> bool:
        """Whether there is to be a checkpoint after this epoch."""
        return self.model is not None and (epoch % self.save_interval == 0 or epoch == self.final_epoch)

    def base(self, epoch: int) -> str:
        """The name of the epoch's checkpoint without suffix."""
        return epoch_base(self.model or "", epoch, pretrain=self.source.is_pretrain(epoch))

    def info(self, network: EpochNetwork, epoch: int, global_step: int, rate: float | None = None) -> State:
        """The entries beside the parameters in every checkpoint file. `rate`: the effective learning rate, by default
        that of the last step; torch models keep the one of the next step."""
        if rate is None:
            rate = float(network.updater.effective_learning_rate)
            if self.config.value("backend", None) == "torch":
                rate = float(network.updater.next_learning_rate(global_step))
        written_by = {"returnn_version": f"returnn_lite {__version__}"} if self.as_torch else {"version": __version__}
        return {"epoch": epoch, "step": global_step, "effective_learning_rate": rate, **written_by}

    def write(
        self,
        network: EpochNetwork,
        params: Params,
        epoch: int,
        global_step: int,
        resume: State,
        averaged: Params | None = None,
    ) -> None:
        """Optimizer state, then model (`params`, and those `averaged`, whole); older optimizer states go."""
        base = self.base(epoch)
        if not self.as_torch or epoch != self.written:  # at the end of a run it is written again, with all scores
            write(self.log, self.source.form.saved(base))
        self.written = epoch
        checkpoint.save_checkpoint(
            base,
            params,
            info=self.info(network, epoch, global_step),
            resume=resume,
            averaged=averaged,
            formats=self.formats,
            as_torch=self.as_torch,
        )
        self.drop_old_states(epoch)

    def write_state(self, info: State, resume: State) -> None:
        """Optimizer state alone, of the epoch that `info` names."""
        checkpoint.save_resume_state(self.base(info["epoch"]), info=info, resume=resume)

    def write_initial(self, network: EpochNetwork, params: Params, global_step: int) -> None:
        """The parameters (whole) before the first step, as epoch 0."""
        base = self.base(0)
        self.log.v4(f"Save model under {base}")
        info = self.info(network, 0, global_step)
        checkpoint.save_model(base, params, info=info, formats=self.formats, as_torch=self.as_torch)

    def complete(self, params: Params, filename: str, info: State) -> None:
        """Writes those files of the checkpoint that a killed run did not come to. `params`: whole."""
        complete_formats(filename, params, info, self.formats, self.log, as_torch=self.as_torch)

    def drop_old_states(self, epoch: int) -> None:
        """What is older than the optimizer state of this epoch goes, unless it stays with its model: for nets of layers
        all but the last two, for torch models that of two epochs before."""
        if self.config.is_true("apply_cleanup_old_models_to_optim_states"):
            return
        if self.as_torch:
            checkpoint.drop_resume_state(self.base(epoch - 2))
        else:
            checkpoint.drop_old_resume_states(self.model or "")

    def clean_up(self, scores: Scores) -> None:
        """Removes checkpoints that are not worth keeping, by the scores of their epochs."""
        if self.cleanup and self.model:
            cleanup_old_models(existing_models(self.model, self.final_epoch), scores, self.cleanup, self.log)

    def say_what_is_beyond(self) -> None:
        """Tells of models that `num_epochs` leaves out."""
        last = max(existing_models(self.model, 0), default=0)
        if last > self.final_epoch:
            text = f"`num_epochs` is {self.final_epoch}, but {self.model!r} is trained up to epoch {last} already"
            self.log.v1(f"note: {text}; nothing is changed")
