"""Training: epochs of steps, and after each epoch its scores, learning-rate file, checkpoint and clean-up."""

from collections.abc import Iterator, Mapping, Sequence

import torch

from returnn_lite.config import Config, warn_misspelt_keys
from returnn_lite.datasets import Dataset
from returnn_lite.engine import data
from returnn_lite.engine.checkpoints import checkpoint
from returnn_lite.engine.checkpoints.find import StartPoint
from returnn_lite.engine.checkpoints.finite import require_finite
from returnn_lite.engine.checkpoints.load import load_params
from returnn_lite.engine.checkpoints.resume import Saved, position_schedules, restore_records
from returnn_lite.engine.distributed.agreement import data_fingerprint
from returnn_lite.engine.distributed.choose import parallel_training
from returnn_lite.engine.distributed.options import DistributedOptions
from returnn_lite.engine.distributed.world import World
from returnn_lite.engine.epoch_network import EpochNetwork
from returnn_lite.engine.evaluate import Evaluation, Results, lacks_scores
from returnn_lite.engine.graphs.repeated import repeated_steps
from returnn_lite.engine.hooks import EpochHooks
from returnn_lite.engine.interrupt import Interrupted, StopRequest
from returnn_lite.engine.log_form import write
from returnn_lite.engine.loggers.scalar_log import ScalarLog
from returnn_lite.engine.models.model import Model
from returnn_lite.engine.models.network_source import print_network
from returnn_lite.engine.models.source import model_source
from returnn_lite.engine.models.torch_source import TorchSource
from returnn_lite.engine.observer import Observer
from returnn_lite.engine.profiling import ProfileDone, StepProfiler, step_profiler
from returnn_lite.engine.run_files import RunFiles
from returnn_lite.engine.setup import choose_device, file_epoch, find_start, load_start, log_defaults, must_be_finite
from returnn_lite.engine.steering import steer
from returnn_lite.engine.step import BrokenScores, Forward, by_itself
from returnn_lite.engine.time_limit import OPTION as TIME_LIMIT
from returnn_lite.engine.time_limit import TimeLimit
from returnn_lite.engine.training_data import TrainingData
from returnn_lite.engine.training_pass import TrainingPass
from returnn_lite.log import Log
from returnn_lite.optim.state import State
from returnn_lite.optim.updater import Updater
from returnn_lite.schedule.control import LearningRateControl
from returnn_lite.schedule.early_stopping import EarlyStopping
from returnn_lite.schedule.last_best import LastBest


class Trainer:
    """A training run: made of its parts, begun by `start`, done by `run`.

    Its state is `net`, `updater`, `control`, `global_step`; `resume_state` puts it in one dict. `data`: what it reads;
    `forward`: what runs the network; `observers` look on. A run has one trainer, in each of the processes of `world`.
    """

    device: torch.device
    train_forward: Forward
    network: EpochNetwork
    control: LearningRateControl
    start_epoch: int

    def __init__(
        self,
        config: Config,
        log: Log,
        *,
        world: World | None = None,
        data: TrainingData | None = None,
        forward: Forward = by_itself,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.config, self.log, self.world = config, log, world or World()
        self.data = data or TrainingData(config, log)
        self.parallel = parallel_training(self.world, DistributedOptions.from_config(config))
        self.forward, self.observers = forward, list(observers)
        self.source = model_source(config)
        self.files = RunFiles(config, log, self.source)
        self.last_best = LastBest.from_config(config)
        self.scalars = ScalarLog.from_config(config, log)
        self.hooks = EpochHooks(config)
        self.early_stopping = EarlyStopping.from_config(config)
        self.time_limit = TimeLimit.from_config(config)
        self.broken = False  # whether a parameter is not finite, where that does not end the run
        self.saved: Saved | None = None
        self.resumed = False
        self.global_step = 0
        self.profiler: StepProfiler | None = None

    @property
    def net(self) -> Model:
        """The network of the present epoch."""
        return self.network.net

    @property
    def updater(self) -> Updater:
        """What updates it."""
        return self.network.updater

    # --- start and end ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Opens the data, builds the network, and brings back the state of the checkpoint to go on from."""
        config, log = self.config, self.log
        self.files.remove_stale()
        self.device = choose_device(config, log)
        self.train_forward = repeated_steps(config, log, self.device) if self._may_record else self.forward
        self.profiler = step_profiler(config, self.device, log)
        self.data.open()
        self.require_same_data()
        data.complete_extern_data(config, [self.data.train])
        data.print_data_info({"train": self.data.train, **self.data.evaluated}, log)
        self.control = LearningRateControl.from_config(config, log)
        self.network = EpochNetwork(
            config,
            log,
            source=self.source,
            data=self.data,
            parallel=self.parallel,
            device=self.device,
            learning_rate=self.control.options.learning_rate,
        )
        self.load(find_start(config, "train", log))

    def require_same_data(self) -> None:
        """ConfigError unless all processes see the same data; then they may share evaluations."""
        if self.world.size > 1:
            for name, dataset in {"train": self.data.train, **self.data.evaluated}.items():
                self.world.require_equal(name, "sees different data", data_fingerprint(dataset))
        if not self.parallel.splits_parameters:
            self.data.share = self.world.rank, self.world.size

    @property
    def _may_record(self) -> bool:
        """Whether steps may be recorded and repeated: nobody looks on, who would see outputs of layers, and no other
        processes take part."""
        alone = self.world.size == 1 and not self.observers and self.forward is by_itself
        return alone and self.config.typed_value("get_model") is None

    def load(self, start_point: StartPoint) -> None:
        """Builds the network, fills it from the checkpoint, and brings back the optimizer's state."""
        self.start_epoch, filename = start_point.start_epoch, start_point.filename
        epoch = start_point.epoch if start_point.resume and start_point.epoch else self.start_epoch
        if filename and isinstance(self.source, TorchSource):
            epoch = file_epoch(start_point)
        self.network.prepare(epoch, self.global_step, filename)
        print_network(self.net, self.log)
        self.global_step = load_start(self.config, self.net, start_point, self.log, task="train")
        self.network.join()
        self.resumed = start_point.resume
        state = None
        if start_point.resume and filename:
            state = checkpoint.load_resume_state(filename, self.global_step)
            if state is None:
                self.log.v2("note: the model has no optimizer state; the optimizer starts from scratch")
        if state is not None:
            with checkpoint.fitting_state(filename or ""):
                self.restore(state, start_point.epoch or 0)
        if state is None or self.config.is_true("reset_optimizer_on_restart"):
            position_schedules(self.updater, self.control, self.start_epoch - 1, self.global_step, self.log)
        if state is not None and filename:
            params = self.parallel.whole(self.net.saved_params)
            if self.files.model and self.world.rank == 0:
                rate = state["effective_learning_rate"]
                info = self.files.info(self.network, start_point.epoch or 0, self.global_step, rate)
                self.files.complete(params, filename, info)

    def restore(self, state: State, epoch: int) -> None:
        """Takes over what `resume_state` saved: optimizer, and scores that did not reach the learning-rate file."""
        if not self.config.is_true("reset_optimizer_on_restart"):
            self.updater.load_state_dict(self.parallel.split_state(state["optimizer"], self.net.params))
        self.saved = restore_records(self.control, state, epoch)

    def resume_state(self) -> State:
        """Everything besides the parameters that the next epoch depends on."""
        optimizer = self.parallel.whole_state(self.updater.state_dict())
        return {"optimizer": optimizer, "learning_rates": self.control.text()}

    def run(self, stop: StopRequest) -> None:
        """Trains all epochs; `stop` ends it between two steps, and the end of `max_train_time` does, in good order."""
        try:
            for epoch in self.epochs(stop):
                self.train_epoch(epoch, stop)
        except ProfileDone:
            return
        except Interrupted:
            if not self.time_limit.has_ended(stop.received):
                raise
            self.log.v1(f"{TIME_LIMIT} is over: the current epoch is discarded; the next run repeats it")
        finally:
            self.data.close()
            self.scalars.close()

    def epochs(self, stop: StopRequest) -> Iterator[int]:
        """The epochs to train, one after the other, with what comes before the first and after the last one."""
        first, last = self.start_epoch, self.files.final_epoch
        self.scalars.start(first, self.global_step)
        self.evaluate_missing(first - 1, stop)
        if last and first > last:
            self.log.v1(f"No epochs to train, start_epoch: {first}, final_epoch: {last}")
            self.files.say_what_is_beyond()
            if self.files.model and self.resumed and last == first - 1:
                self.finish(last)
            write(self.log, self.source.form.run_ends(last, self.global_step))
            return
        self.log_start()
        epoch = first
        while not last or epoch <= last:
            reason = self.world.from_first(self.reason_to_end(epoch))
            if reason:
                self.log.v1(reason)
                break
            begin = self.time_limit.elapsed
            yield epoch
            self.time_limit.took(self.time_limit.elapsed - begin)
            epoch += 1
        if self.world.from_first(self.files.model is not None) and epoch > first:
            self.write_checkpoint(epoch - 1)
        write(self.log, self.source.form.run_ends(epoch - 1, self.global_step))

    def reason_to_end(self, epoch: int) -> str:
        """Why this epoch is not trained any more, by `early_stopping` and `max_train_time`; "" if it is."""
        found = self.early_stopping.reason(self.control, epoch - 1) if self.early_stopping is not None else ""
        return found or self.time_limit.reason(epoch)

    def log_start(self) -> None:
        """What the log says before the first epoch."""
        write(self.log, self.source.form.run_begins(self.start_epoch, self.global_step))
        log_defaults(self.config, self.log)
        batching = data.train_batching(self.config, self.net, self.start_epoch)
        self.log.v4(f"using batch size: {batching.batch_size}, max seqs: {batching.max_seqs}")
        self.log.v4(f"learning rate control: {self.control!r}")
        self.log.v4(f"pretrain: {self.source.pretrain}")
        warn_misspelt_keys(self.config, self.log)

    def finish(self, epoch: int) -> None:
        """What a run that was killed after its last step did not come to: the last scores in the state, clean-up."""
        if self.saved is not None and self.saved.is_behind(self.control, epoch):
            rate = self.saved.state["effective_learning_rate"]
            self.files.write_state(self.files.info(self.network, epoch, self.global_step, rate), self.resume_state())
        self.files.drop_old_states(epoch)
        self.clean_up()

    # --- an epoch -----------------------------------------------------------------------------------------------------

    def train_epoch(self, epoch: int, stop: StopRequest) -> None:
        """Order, network, learning rate; all steps; checkpoint and learning-rate file; evaluation; clean-up."""
        self.network.prepare(epoch, self.global_step)
        self.go_back_to_best(epoch)
        self.agree()
        self.data.start_epoch(epoch)
        rate = self.learning_rate(epoch)
        self.updater.rates.ask(self.global_step, rate)
        effective = self.updater.rates.common_of_step(self.global_step, rate)
        write(self.log, self.source.form.epoch_begins(epoch, self.global_step, rate, effective))
        if epoch == 1 and self.config.is_true("save_epoch1_initial_model"):
            params = self.parallel.whole(self.net.saved_params)
            if self.files.model:
                self.files.write_initial(self.network, params, self.global_step)
        made = self.training_pass().run(epoch, rate, self.global_step, stop)
        self.global_step += self.world.from_first(made.updates)
        if self.network.marks.trains:
            self.updater.end_epoch()
        self.check_parameters(epoch)
        self.scalars.trained(epoch, made.means, rate)
        self.control.set_scores(epoch, self.source.form.entries("train", made.means))
        if self.world.from_first(self.files.due(epoch)):
            self.write_checkpoint(epoch)
        self.control.save()
        write(self.log, self.source.form.trained(epoch, made.means, made.seconds))
        self.evaluate(self.data.evaluated, epoch, stop)
        if epoch == self.start_epoch:
            self.control.check_measures(epoch)
        self.clean_up()

    def training_pass(self) -> TrainingPass:
        """What makes the steps of an epoch."""
        return TrainingPass(
            config=self.config,
            log=self.log,
            parallel=self.parallel,
            device=self.device,
            network=self.network,
            data=self.data,
            source=self.source,
            control=self.control,
            scalars=self.scalars,
            observers=self.observers,
            forward=self.parallel.training(self.forward if self.updater.needs_objective else self.train_forward),
            hooks=self.hooks,
            time_limit=self.time_limit,
            profiler=self.profiler,
        )

    def agree(self) -> None:
        """What the processes of a training must have in common at the start of an epoch comes from the first one."""
        self.parallel.agree(self.net.params)
        self.control.epochs = self.world.from_first(self.control.epochs)

    def go_back_to_best(self, epoch: int) -> None:
        """`use_last_best_model`: the parameters of a better earlier epoch, and a fresh optimizer state."""
        best = self.last_best.epoch(self.control, epoch) if self.last_best and self.files.model else None
        if best is not None:
            base = self.files.base(best)
            self.log.v2(f"Loading the model of epoch {best}, which was better than the last one: {base}")
            load_params(self.net.params, base, self.log, must_be_finite=must_be_finite(self.config))
            self.updater.reset()

    def learning_rate(self, epoch: int) -> float:
        """The epoch's learning rate: an override by the net's `#config`, else by the control; or what the updater says,
        if its scheduler or optimizer is in charge."""
        override = (self.network.description or {}).get("#config", {}).get("learning_rate")
        if override is not None:
            self.control.override(epoch, override, pretrain_epochs=self.source.pretrain_epochs)
        rate = self.control.for_epoch(epoch, pretrain_epochs=self.source.pretrain_epochs)
        self.updater.rates.ask(None, rate)
        self.updater.start_epoch(epoch, self.control.measure(epoch - 1, self.updater.measure))
        steer(self.updater.optimizers, self.control.settings(epoch))
        if self.updater.rates.owned:
            rate = self.updater.rates.of_epoch(rate)
            self.control.record(epoch, rate)
        return rate

    def check_parameters(self, epoch: int) -> None:
        """Raises BrokenScores if the epoch's last update has broken a parameter, which no score tells of yet."""
        try:
            require_finite(self.net, f"epoch {epoch} is discarded; the next run repeats it")
        except BrokenScores as exc:
            if must_be_finite(self.config):
                raise
            self.broken = True
            self.log.v1(f"WARNING: epoch {epoch}: {exc.message.partition(', so ')[0]}")

    def write_checkpoint(self, epoch: int) -> None:
        """The network and the state to resume from."""
        params, resume = self.parallel.whole(self.net.saved_params), self.resume_state()
        averaged = self.updater.averaged_model(self.net.params)
        averaged = None if averaged is None else self.parallel.whole(averaged)
        if self.files.model:
            self.files.write(self.network, params, epoch, self.global_step, resume, averaged)

    def clean_up(self) -> None:
        """Removes checkpoints that are not worth keeping."""
        if not self.broken:  # then what there is before may be all that is good
            self.files.clean_up({epoch: record.error for epoch, record in self.control.epochs.items()})

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def evaluate(self, datasets: Mapping[str, Dataset], epoch: int, stop: StopRequest) -> Results:
        """The scores of the network as it is now, or of its averaged parameters if they are to be used."""
        with self.updater.averaged_for("dev"):
            return self.evaluation(stop).run_all(datasets, epoch, self.control)

    def evaluation(self, stop: StopRequest) -> Evaluation:
        """What computes scores of the network."""
        return Evaluation(
            self.config,
            self.log,
            self.net,
            self.device,
            self.source,
            batches=self.data.eval_batches,
            forward=self.forward,
            after_step=stop.check,
            merge=self.world.merge if self.data.share[1] > 1 else lambda scores: None,
            done=self.scalars.evaluated,
            hooks=self.hooks,
            step=self.global_step,
        )

    def evaluate_missing(self, epoch: int, stop: StopRequest) -> None:
        """Makes up for scores of the last epoch that a killed run did not come to."""
        if epoch < 1 or not (self.control.filename or self.resumed):
            return
        known = self.data.evaluated
        missing = {name: dataset for name, dataset in known.items() if lacks_scores(self.control, epoch, name)}
        if missing:
            self.log.v1(f"Last epoch model not yet evaluated on {', '.join(missing)}. Doing that now.")
            self.evaluate(missing, epoch, stop)


def open_trainer(config: Config, log: Log, world: World | None = None) -> Trainer:
    """The trainer of a config, ready to run."""
    trainer = Trainer(config, log, world=world)
    trainer.start()
    return trainer
