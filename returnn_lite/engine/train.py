"""Training: epochs of steps, and after each epoch its scores, learning-rate file, checkpoint and clean-up."""

import copy
from typing import Any

import numpy as np
import torch

from returnn_lite.config import Config, warn_misspelt_keys
from returnn_lite.datasets.batches.loader import Loader
from returnn_lite.datasets.factory import SEED_STEP_PER_RANK
from returnn_lite.engine import data, report
from returnn_lite.engine.checkpoints import checkpoint
from returnn_lite.engine.checkpoints.cleanup import cleanup_old_models, cleanup_options
from returnn_lite.engine.checkpoints.find import StartPoint, epoch_base, existing_models
from returnn_lite.engine.checkpoints.finite import require_finite
from returnn_lite.engine.checkpoints.load import load_params
from returnn_lite.engine.checkpoints.resume import Saved, complete_formats, position_schedules
from returnn_lite.engine.distributed import World
from returnn_lite.engine.evaluate import Evaluation, Results, lacks_scores, step_meter
from returnn_lite.engine.interrupt import StopRequest
from returnn_lite.engine.models.descriptions import description_diff, dims_in, same_description
from returnn_lite.engine.models.epoch_marks import EpochMarks, require_loss
from returnn_lite.engine.models.network_source import (
    EpochOverrides,
    print_network,
    start_epoch,
    take_over_params,
)
from returnn_lite.engine.models.source import model_source
from returnn_lite.engine.setup import (
    choose_device,
    final_epoch,
    find_start,
    load_start,
    log_defaults,
    model_name,
    must_be_finite,
)
from returnn_lite.engine.step import (
    BrokenScores,
    StepMeter,
    StepResult,
    nonfinite_layer,
    repeatable_objective,
    run_step,
    with_batch_context,
)
from returnn_lite.engine.summary import ScalarLog
from returnn_lite.engine.watch import EpochWatch
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.optim.updater import Updater
from returnn_lite.schedule import lr_file
from returnn_lite.schedule.control import LearningRateControl
from returnn_lite.schedule.last_best import LastBest
from returnn_lite.version import __version__

DATASET_OPTIONS = {"train", "dev", "eval", "eval_datasets", "chunking", "min_chunk_size", "batching", "context_window"}


class Trainer:
    """A training run. Its state is `net`, `updater`, `control`, `global_step`; `resume_state` puts it in one dict."""

    net: Any
    updater: Updater

    def __init__(self, config: Config, log: Log, world: World | None = None) -> None:
        self.config, self.log, self.world = config, log, world or World()
        self.model = None if config.is_true("dry_run") else model_name(config)
        self.final_epoch = final_epoch(config)
        self.formats = checkpoint.checkpoint_formats(config)
        self.save_interval = config.int("save_interval", 1) or 1
        self.cleanup = cleanup_options(config.bool_or_other("cleanup_old_models", None))
        self.source = model_source(config)
        self.overrides = EpochOverrides(config, log)
        self.last_best = LastBest.from_config(config)
        self.scalars = ScalarLog.from_config(config, log)
        self.broken = False  # whether a parameter is not finite, where that does not end the run
        self.saved: Saved | None = None
        self.watch: EpochWatch | None = None  # for learning rates that depend on more than scores
        checkpoint.remove_stale_files(self.model, config.value("learning_rate_file", None))
        self.device = choose_device(config, log)
        self.open_datasets()
        data.complete_extern_data(config, [self.train_data])
        data.print_data_info({"train": self.train_data, **self.eval_data}, log)
        self.control = LearningRateControl.from_config(config, log)
        self.global_step = 0
        self.description: dict[str, Any] | None = None
        self.start(find_start(config, "train", log))

    def open_datasets(self) -> None:
        """(Re-)creates all datasets from the config."""
        self.train_data = data.require_dataset(self.config, "train", self.log)
        self.eval_data = data.open_eval_datasets(self.config, self.log)

    # --- start and end ------------------------------------------------------------------------------------------------

    def start(self, start_point: StartPoint) -> None:
        """Builds the network, fills it from the checkpoint, and brings back the optimizer's state."""
        self.start_epoch = start_point.start_epoch
        epoch = start_point.epoch if start_point.resume and start_point.epoch else self.start_epoch
        self.prepare_network(epoch, start_point.filename)
        print_network(self.net, self.log)
        self.global_step = load_start(self.config, self.net, start_point, self.log, task="train")
        self.resumed = start_point.resume
        state = None
        if start_point.resume and start_point.filename:
            state = checkpoint.load_resume_state(start_point.filename, self.global_step)
        if state is not None:
            with checkpoint.fitting_state(start_point.filename or ""):
                self.restore(state, start_point.epoch or 0)
        elif start_point.resume and start_point.filename:
            self.log.v2("note: there is no optimizer state beside the model; the optimizer starts anew")
        if state is None or self.config.is_true("reset_optimizer_on_restart"):
            position_schedules(self.updater, self.control, self.start_epoch - 1, self.global_step, self.log)
        if state is not None and start_point.filename and self.model and self.world.rank == 0:
            info = {**self.info(start_point.epoch or 0), "effective_learning_rate": state["effective_learning_rate"]}
            complete_formats(start_point.filename, self.net.params, info, self.formats, self.log)

    def restore(self, state: dict[str, Any], epoch: int) -> None:
        """Takes over what `resume_state` saved: optimizer, and scores that did not reach the learning-rate file."""
        if not self.config.is_true("reset_optimizer_on_restart"):
            self.updater.load_state_dict(state["optimizer"])
        records = lr_file.from_text(state["learning_rates"], "optimizer state")
        self.saved = Saved(lr_file.to_text({epoch: records[epoch]}), state) if epoch in records else None
        for e, record in records.items():
            if e == epoch or not self.control.filename:
                known = self.control.epochs.setdefault(e, record)
                known.error = {**record.error, **known.error}
                known.meta = {**record.meta, **known.meta}
        self.control.save()

    def resume_state(self) -> dict[str, Any]:
        """Everything besides the parameters that the next epoch depends on."""
        return {"optimizer": self.updater.state_dict(), "learning_rates": self.control.text()}

    def run(self, stop: StopRequest) -> None:
        """Trains all epochs; `stop` ends it between two steps."""
        first, last = self.start_epoch, self.final_epoch
        self.scalars.start(first, self.global_step)
        self.evaluate_missing(first - 1, stop)
        if last and first > last:
            self.log.v1(f"No epochs to train, start_epoch: {first}, final_epoch: {last}")
            self.say_what_is_beyond()
            if self.model and self.resumed and last == first - 1:
                self.finish(last)
            self.log.v3(f"Finished training in epoch {last}.")
            return
        self.log.v3(f"start training at epoch {first}")
        log_defaults(self.config, self.log)
        size, seqs = self.config.number_or_dict("batch_size", 1), self.config.int("max_seqs", -1)
        self.log.v4(f"using batch size: {size}, max seqs: {seqs}")
        self.log.v4(f"learning rate control: {self.control!r}")
        self.log.v4(f"pretrain: {self.source.pretrain}")
        warn_misspelt_keys(self.config, self.log)
        epoch = first
        while not last or epoch <= last:
            self.train_epoch(epoch, stop)
            epoch += 1
        if self.model:
            self.write_checkpoint(last)
        self.log.v3(f"Finished training in epoch {last}.")

    def finish(self, epoch: int) -> None:
        """What a run that was killed after its last step did not come to: the last scores in the state, clean-up."""
        known = self.control.epochs.get(epoch)
        if self.saved is not None and known is not None and lr_file.to_text({epoch: known}) != self.saved.record:
            rate = self.saved.state["effective_learning_rate"]
            info = {**self.info(epoch), "effective_learning_rate": rate}
            checkpoint.save_resume_state(self.base(epoch), info=info, resume=self.resume_state())
        self.drop_old_states()
        if self.cleanup and not self.broken:
            self.clean_up(self.cleanup)

    # --- an epoch -----------------------------------------------------------------------------------------------------

    def train_epoch(self, epoch: int, stop: StopRequest) -> None:
        """Order, network, learning rate; all steps; checkpoint and learning-rate file; evaluation; clean-up."""
        self.prepare_network(epoch)
        self.go_back_to_best(epoch)
        self.agree()
        self.train_data.init_seq_order(epoch=epoch)
        rate = self.learning_rate(epoch)
        self.log.v4(f"start {self.source.title(epoch)} with learning rate {rate} ...")
        if epoch == 1 and self.model and self.config.is_true("save_epoch1_initial_model"):
            self.write_initial_model()
        with self.net.running_over("train"):
            means, seconds = (self.train_steps if self.marks.trains else self.look_through)(epoch, rate, stop)
        if self.marks.trains:
            self.updater.end_epoch()
        self.check_parameters(epoch)
        self.scalars.trained(epoch, means, rate)
        self.control.set_scores(epoch, self.source.score_entries("train", means))
        if self.model and (epoch % self.save_interval == 0 or epoch == self.final_epoch):
            self.write_checkpoint(epoch)
        self.control.save()
        self.log.v1(report.epoch_line(self.source.title(epoch), means, seconds))
        self.evaluate(self.eval_data, epoch, stop)
        if epoch == self.start_epoch:
            self.control.check_measures(epoch)
        if self.cleanup and self.model and not self.broken:  # what there is before may be all that is good
            self.clean_up(self.cleanup)

    def check_parameters(self, epoch: int) -> None:
        """Raises BrokenScores if the epoch's last update has broken a parameter, which no score tells of yet."""
        try:
            require_finite(self.net, f"epoch {epoch} does not count; started again, the training repeats it")
        except BrokenScores as exc:
            if must_be_finite(self.config):
                raise
            self.broken = True
            self.log.v1(f"WARNING: epoch {epoch}: {exc.message.partition(', so ')[0]}")

    def agree(self) -> None:
        """What the processes of a training must have in common at the start of an epoch comes from the first one."""
        self.world.copy_first(self.net.params)
        self.control.epochs = self.world.from_first(self.control.epochs)

    def train_steps(self, epoch: int, rate: float, stop: StopRequest) -> tuple[dict[str, float], float]:
        """One pass over the training data; returns its scores and its time in seconds."""
        config, net, device = self.config, self.net.train(), self.device
        loader, meter = self.start_pass(epoch, rate)
        if self.watch is not None:
            self.watch.start(net, self.updater)
        for step, batch in enumerate(self.world.together(loader, stop)):
            net.global_step = self.global_step
            with with_batch_context(batch, config, net):
                again = repeatable_objective(net, batch, device) if self.updater.closure else None
                result = run_step(net, batch, device)
                self.check_scores(meter, result, batch)
                if step == 0:
                    self.warn_if_idle(epoch, result)
                if self.watch is not None:
                    self.watch.step(result)
                result.out.forget_layers()
                self.updater.step(
                    result.out.objective,
                    global_step=self.global_step,
                    learning_rate=rate,
                    epoch_step=step,
                    evaluate=again,
                    complete=batch.complete,
                    gradients=result.out.gradients,
                )
                self.scalars.step(self.global_step, result, self.updater.effective_learning_rate)
            self.global_step += 1
            meter.end_step()
        means, seconds = self.end_pass(epoch, loader, meter)
        if self.updater.rates.change_within_epochs:
            end_rate = np.float32(self.updater.effective_learning_rate)
            self.control.set_meta(epoch, {"effective_learning_rate_end": end_rate})
        if self.watch is not None:
            self.control.set_meta(epoch, self.watch.finish())
        return means, seconds

    def look_through(self, epoch: int, rate: float, stop: StopRequest) -> tuple[dict[str, float], float]:
        """`train_steps` of an epoch without training: as in evaluation, and nothing changes."""
        loader, meter = self.start_pass(epoch, rate)
        net = self.net.eval()
        apart = self.marks.finish_all_data and self.world.size > 1
        with torch.no_grad():
            for batch in loader if apart else self.world.together(loader, stop):
                with with_batch_context(batch, self.config, net):
                    self.check_scores(meter, run_step(net, batch, self.device), batch)
                meter.end_step()
        return self.end_pass(epoch, loader, meter)

    def start_pass(self, epoch: int, rate: float) -> tuple[Loader, StepMeter]:
        """The batches of the training data, and what collects their scores."""
        config, net = self.config, self.net
        start_epoch(net, config, epoch, offset=self.world.rank * SEED_STEP_PER_RANK)
        start_rate = np.float32(self.updater.rates.common_of_step(self.global_step, rate))
        self.control.set_meta(epoch, {"global_train_step": self.global_step, "effective_learning_rate": start_rate})
        loader = data.load_batches(self.train_data, data.train_batching(config, net, epoch), net, config)
        return loader, step_meter(config, self.source.train_title(epoch), self.log)

    def end_pass(self, epoch: int, loader: Loader, meter: StepMeter) -> tuple[dict[str, float], float]:
        """Scores and time in seconds, when all steps are made."""
        meter.flush()
        self.world.merge(meter.scores)
        means = meter.finish(loader.wait_time)
        self.train_data.finish_epoch()
        steps, seconds = meter.progress.steps, meter.progress.elapsed
        if not steps:
            self.log.v1(f"warning: train epoch {epoch} has no batches, see max_seq_length, min_seq_length, seq_drop")
        self.control.set_meta(epoch, {"epoch_num_train_steps": steps, "epoch_train_time_secs": round(seconds)})
        return means, seconds

    def warn_if_idle(self, epoch: int, result: StepResult) -> None:
        """One line if the objective of a step has nothing to train."""
        if result.out.gradients is None and not result.out.objective.requires_grad:
            text = "the losses do not depend on any trainable parameter: nothing is trained"
            self.log.v1(f"Warning: {self.source.train_title(epoch)}: {text}")

    def check_scores(self, meter: Any, result: Any, batch: Any) -> None:
        """Counts the step's scores; where they are broken, the error says which layer began with it."""
        try:
            meter.add(result, batch)
        except BrokenScores as exc:
            culprit = nonfinite_layer(self.net, batch, self.device)
            raise BrokenScores("", "; ".join(filter(None, [exc.message, culprit]))) from None

    def learning_rate(self, epoch: int) -> float:
        """The epoch's learning rate: an override by the net's `#config`, else by the control; or what the updater says,
        if its scheduler or optimizer is in charge."""
        override = (self.description or {}).get("#config", {}).get("learning_rate")
        if override is not None:
            self.control.override(epoch, override, pretrain_epochs=self.source.pretrain_epochs)
        rate = self.control.for_epoch(epoch, pretrain_epochs=self.source.pretrain_epochs)
        self.updater.start_epoch(epoch, self.control.measure(epoch - 1, self.updater.measure))
        if self.updater.rates.owned:
            rate = self.updater.rates.of_epoch(rate)
            self.control.record(epoch, rate)
        return rate

    def steps_per_epoch(self) -> int:
        """The number of batches of the first epoch."""
        return self.world.least(data.count_batches(self.train_data, data.train_batching(self.config, self.net, 1)))

    # --- the network of an epoch --------------------------------------------------------------------------------------

    def prepare_network(self, epoch: int, filename: str | None = None) -> None:
        """Makes network and options those of `epoch`; a new network takes over the old parameters.

        `filename`: the checkpoint that the first network is filled from later.
        """
        self.marks, description = EpochMarks.split(self.source.describe(epoch), per_epoch=self.source.per_epoch)
        changed = self.overrides.apply(epoch, description.get("#config", {}))
        if changed & DATASET_OPTIONS:
            self.open_datasets()
        if self.description is not None:
            anew = self.config.is_true("reinit_network_each_epoch") and epoch != self.net.epoch
            known = dims_in(self.config.typed_value("extern_data"))  # by which data are fed
            if same_description(self.description, description, known) and not anew:
                if self.marks.trains:
                    require_loss(self.net)
                return
            self.log.v3("reinit because network description differs. Diff:" if not anew else "reinit of each epoch")
            for line in description_diff(self.description, description, known):
                self.log.v3(line)
        before = self.net if self.description is not None else None
        old_updater = self.updater if before is not None else None
        self.net = self.source.build(
            description, epoch=epoch, step=self.global_step, device=self.device, log=self.log, filename=filename
        )
        if self.marks.trains:
            require_loss(self.net)
        if before is not None:
            print_network(self.net, self.log)
            take_over_params(before, self.net, self.source.copy_modes(description), self.log)
            before.close()
        self.description = copy.deepcopy(description)
        self.updater = Updater(
            self.net.params,
            self.config,
            param_options=self.net.param_options,
            initial_learning_rate=self.control.options.learning_rate,
            log=self.log,
            network=self.net,
            steps_per_epoch=self.steps_per_epoch,
        )
        self.updater.combine = self.world.mean
        if self.updater.closure is not None and self.world.size > 1:
            raise ConfigError("optimizer", f"{self.updater.closure.name} takes a closure, which only one process can")
        if old_updater is not None:
            self.updater.take_over(old_updater)

    def go_back_to_best(self, epoch: int) -> None:
        """`use_last_best_model`: the parameters of a better earlier epoch, and a fresh optimizer state."""
        best = self.last_best.epoch(self.control, epoch) if self.last_best and self.model else None
        if best is not None:
            base = self.base(best)
            self.log.v2(f"Loading the model of epoch {best}, which was better than the last one: {base}")
            load_params(self.net.params, base, self.log, must_be_finite=must_be_finite(self.config))
            self.updater.reset()

    # --- files --------------------------------------------------------------------------------------------------------

    def base(self, epoch: int) -> str:
        """The name of the epoch's checkpoint without suffix."""
        return epoch_base(self.model or "", epoch, pretrain=self.source.is_pretrain(epoch))

    def info(self, epoch: int) -> dict[str, Any]:
        """The entries beside the parameters in every checkpoint file; torch models keep the rate of the next step."""
        rate = float(self.updater.effective_learning_rate)
        if self.config.value("backend", None) == "torch":
            rate = float(self.updater.next_learning_rate(self.global_step))
        return {"epoch": epoch, "step": self.global_step, "effective_learning_rate": rate, "version": __version__}

    def write_checkpoint(self, epoch: int) -> None:
        """Optimizer state, then model; older optimizer states go."""
        base = self.base(epoch)
        self.log.v4(f"Save model under {base}")
        averaged = self.updater.averaged_model(self.net.params)
        checkpoint.save_checkpoint(
            base,
            self.net.params,
            info=self.info(epoch),
            resume=self.resume_state(),
            averaged=averaged,
            formats=self.formats,
        )
        self.drop_old_states()

    def drop_old_states(self) -> None:
        """Older optimizer states go, unless they stay with their models."""
        if not self.config.is_true("apply_cleanup_old_models_to_optim_states"):
            checkpoint.drop_old_resume_states(self.model or "")

    def write_initial_model(self) -> None:
        """The parameters before the first step, as epoch 0."""
        base = self.base(0)
        self.log.v4(f"Save model under {base}")
        checkpoint.save_model(base, self.net.params, info=self.info(0), formats=self.formats)

    def clean_up(self, options: dict) -> None:
        """Removes checkpoints that are not worth keeping."""
        models = existing_models(self.model, self.final_epoch)
        scores = {epoch: record.error for epoch, record in self.control.epochs.items()}
        cleanup_old_models(models, scores, options, self.log)

    def say_what_is_beyond(self) -> None:
        """Tells of models that `num_epochs` leaves out."""
        last = max(existing_models(self.model, 0), default=0)
        if last > self.final_epoch:
            text = f"`num_epochs` is {self.final_epoch}, but {self.model!r} is trained up to epoch {last} already"
            self.log.v1(f"note: {text}; nothing is changed")

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def evaluate(self, datasets: dict[str, Any], epoch: int, stop: StopRequest) -> Results:
        """The scores of the network as it is now, or of its averaged parameters if they are to be used."""
        with self.updater.averaged_for("dev"):
            return self.evaluation(stop).run_all(datasets, epoch, self.control)

    def evaluation(self, stop: StopRequest) -> Evaluation:
        """What computes scores of the network."""
        return Evaluation(self.config, self.log, self.net, self.device, self.source, stop.check, self.scalars.evaluated)

    def evaluate_missing(self, epoch: int, stop: StopRequest) -> None:
        """Makes up for scores of the last epoch that a killed run did not come to."""
        if epoch < 1 or not (self.control.filename or self.resumed):
            return
        missing = {name: dataset for name, dataset in self.eval_data.items() if lacks_scores(self.control, epoch, name)}
        if missing:
            self.log.v1(f"Last epoch model not yet evaluated on {', '.join(missing)}. Doing that now.")
            self.evaluate(missing, epoch, stop)
