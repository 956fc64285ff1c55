"""One pass over the training data: for each batch forward, losses, backward, update, report."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from returnn_lite.config import Config
from returnn_lite.engine.batch_errors import nonfinite_layer, with_batch_context
from returnn_lite.engine.batch_like import BatchLike
from returnn_lite.engine.distributed.parallel import Parallel
from returnn_lite.engine.epoch_network import EpochNetwork
from returnn_lite.engine.hooks import EpochHooks
from returnn_lite.engine.interrupt import StopRequest
from returnn_lite.engine.log_form import Pass
from returnn_lite.engine.loggers.scalar_log import ScalarLog
from returnn_lite.engine.models.model import ModelSource
from returnn_lite.engine.models.network_source import start_epoch
from returnn_lite.engine.observer import Observer
from returnn_lite.engine.profiling import StepProfiler, memory_line
from returnn_lite.engine.step import BrokenScores, Forward, StepResult, repeatable_objective, run_step
from returnn_lite.engine.step_meter import StepMeter, step_meter
from returnn_lite.engine.time_limit import OPTION as TIME_LIMIT
from returnn_lite.engine.time_limit import TimeLimit
from returnn_lite.engine.training_data import Batches, TrainingData
from returnn_lite.log import Log
from returnn_lite.optim.gradients import Gradients
from returnn_lite.schedule.control import LearningRateControl


@dataclass
class PassResult:
    """Scores by their names in the log, the time in seconds, and how many updates were made."""

    means: dict[str, float]
    seconds: float
    updates: int


@dataclass
class TrainingPass:
    """What a pass needs: the network of the epoch, the data, and those who are told what happens."""

    config: Config
    log: Log
    parallel: Parallel
    device: torch.device
    network: EpochNetwork
    data: TrainingData
    source: ModelSource
    control: LearningRateControl
    scalars: ScalarLog
    observers: Sequence[Observer]
    forward: Forward
    hooks: EpochHooks
    time_limit: TimeLimit
    profiler: StepProfiler | None = None

    def run(self, epoch: int, rate: float, first_step: int, stop: StopRequest) -> PassResult:
        """The pass of an epoch with this learning rate; its first update is the run's step `first_step` (from 0)."""
        with self.network.net.running_over("train"):
            if self.network.marks.trains:
                return self.train(epoch, rate, first_step, stop)
            return self.look_through(epoch, rate, first_step, stop)

    def train(self, epoch: int, rate: float, first_step: int, stop: StopRequest) -> PassResult:
        """An update for each batch."""
        net, updater = self.network.net.train(), self.network.updater
        batches, meter = self.start(epoch, rate, first_step)
        with self.hooks.around(net, "train", epoch, first_step):
            global_step = self.steps(batches, meter, epoch, rate, first_step, stop)
        means, seconds = self.end(epoch, batches, meter)
        self.control.set_meta(epoch, self.source.form.end(global_step))
        if updater.rates.change_within_epochs:
            end_rate = np.float32(updater.effective_learning_rate)
            self.control.set_meta(epoch, {"effective_learning_rate_end": end_rate})
        for observer in self.observers:
            self.control.set_meta(epoch, observer.epoch_end())
        return PassResult(means, seconds, global_step - first_step)

    def steps(
        self, batches: Batches, meter: StepMeter, epoch: int, rate: float, first_step: int, stop: StopRequest
    ) -> int:
        """Makes the updates; returns the run's number of steps behind the last."""
        net, updater, global_step = self.network.net, self.network.updater, first_step
        for observer in self.observers:
            observer.epoch_start(net, updater)
        for step, batch in enumerate(self.parallel.together(batches, stop)):
            net.global_step = global_step
            with with_batch_context(batch, self.config, net):
                again = repeatable_objective(net, batch, self.device, self.forward) if updater.closure else None
                result = run_step(net, batch, self.device, self.forward, wanted=())
                self.check_scores(meter, result, batch)
                if step == 0:
                    self.warn_if_idle(epoch, result)
                for observer in self.observers:
                    observer.step(result)
                result.out.forget_layers()
                updater.step(
                    result.out.objective,
                    global_step=global_step,
                    learning_rate=rate,
                    epoch_step=step,
                    evaluate=again,
                    complete=batch.complete,
                    gradients=result.out.gradients,
                    show=self.show_gradients,
                )
                if updater.rule.grad_norm is not None:
                    meter.add_grad_norm(updater.rule.norm_name, updater.rule.grad_norm)
                self.scalars.step(global_step, result, updater.effective_learning_rate)
                del result  # what it was computed from is memory, and in the way of a step that is recorded next
            self.parallel.after_step(step, net.params)
            global_step += 1
            meter.end_step()
            if self.profiler is not None:
                self.profiler.step()
            if self.time_limit.is_up:
                stop.stop(TIME_LIMIT)
        self.parallel.end_epoch(net.params)
        net.global_step = global_step
        return global_step

    def look_through(self, epoch: int, rate: float, first_step: int, stop: StopRequest) -> PassResult:
        """An epoch without training: as in evaluation, and nothing changes."""
        batches, meter = self.start(epoch, rate, first_step)
        net = self.network.net.eval()
        apart = self.network.marks.finish_all_data and self.parallel.world.size > 1
        apart = apart and not self.parallel.splits_parameters
        with torch.no_grad():
            for batch in batches if apart else self.parallel.together(batches, stop):
                with with_batch_context(batch, self.config, net):
                    self.check_scores(meter, run_step(net, batch, self.device, self.forward, wanted=()), batch)
                meter.end_step()
        return PassResult(*self.end(epoch, batches, meter), updates=0)

    def start(self, epoch: int, rate: float, first_step: int) -> tuple[Batches, StepMeter]:
        """The batches of the training data, and what collects their scores."""
        world = self.parallel.world
        rank = world.rank if world.size > 1 else None
        start_epoch(self.network.net, self.config, epoch, step=first_step, rank=rank)
        start_rate = np.float32(self.network.updater.rates.common_of_step(first_step, rate))
        self.control.set_meta(epoch, {"global_train_step": first_step, "effective_learning_rate": start_rate})
        self.control.set_meta(epoch, self.source.form.facts(str(self.device), world.size))
        batches = self.data.training_batches(self.network.net, epoch)
        return batches, step_meter(self.config, self.source.form, self.pass_of(epoch), self.log, self.network.net)

    def pass_of(self, epoch: int) -> Pass:
        """What the log calls it."""
        return Pass("train", epoch, num_seqs=self.data.train.known_num_seqs)

    def end(self, epoch: int, batches: Batches, meter: StepMeter) -> tuple[dict[str, float], float]:
        """Scores and time in seconds, when all steps are made."""
        meter.flush()
        self.parallel.world.merge(meter.scores)
        means = meter.finish(batches.wait_time)
        self.data.train.finish_epoch()
        if meter.log_memory and memory_line(self.device):
            self.log.v1(memory_line(self.device))
        steps, seconds = meter.progress.steps, meter.progress.elapsed
        if not steps:
            self.log.v1(f"warning: train epoch {epoch} has no batches, see max_seq_length, min_seq_length, seq_drop")
        self.control.set_meta(epoch, {"epoch_num_train_steps": steps, "epoch_train_time_secs": round(seconds)})
        return means, seconds

    def show_gradients(self, gradients: Gradients) -> None:
        """Shows a step's gradients to all observers."""
        for observer in self.observers:
            observer.gradients(gradients)

    def warn_if_idle(self, epoch: int, result: StepResult) -> None:
        """One line if the objective of a step has nothing to train."""
        if result.out.gradients is None and not result.out.objective.requires_grad:
            text = "the losses do not depend on any trainable parameter: nothing is trained"
            self.log.v1(f"Warning: {self.source.form.pass_name(self.pass_of(epoch))}: {text}")

    def check_scores(self, meter: StepMeter, result: StepResult, batch: BatchLike) -> None:
        """Counts the step's scores; where they are broken, the error says which layer began with it."""
        try:
            meter.add(result, batch)
        except BrokenScores as exc:
            alone = not self.parallel.splits_parameters  # else the network runs in all processes only
            culprit = nonfinite_layer(self.network.net, batch, self.device) if alone else ""
            raise BrokenScores("", "; ".join(filter(None, [exc.message, culprit]))) from None
