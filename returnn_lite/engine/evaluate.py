"""Scores of a network on datasets, after each epoch of a training or as a task of its own."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from returnn_lite.config import Config
from returnn_lite.datasets.base import Dataset
from returnn_lite.engine import data
from returnn_lite.engine.batch_errors import with_batch_context
from returnn_lite.engine.hooks import EpochHooks
from returnn_lite.engine.log_form import Pass, write
from returnn_lite.engine.models.model import Model, ModelSource
from returnn_lite.engine.models.network_source import start_epoch
from returnn_lite.engine.report import EpochScores
from returnn_lite.engine.setup import load_network, requested_epoch
from returnn_lite.engine.step import Forward, by_itself, run_step
from returnn_lite.engine.step_meter import step_meter
from returnn_lite.engine.tasks.serialize import better_repr
from returnn_lite.engine.training_data import EvalBatches, eval_batches
from returnn_lite.errors import ConfigError
from returnn_lite.files import write_atomically
from returnn_lite.log import Log
from returnn_lite.schedule.control import LearningRateControl

Results = dict[str, dict[str, float]]  # dataset -> {"cost:output": …}


@dataclass
class Evaluation:
    """What is needed to compute scores: the network on its device, its source, and the config.

    `batches` begins an epoch of a dataset; `forward` runs the network. `after_step` may raise to end it; `done` is told
    the scores of each dataset. `merge` adds the scores of those who have the other batches. `hooks` are called around
    each, with `step`, the number of training steps so far.
    """

    config: Config
    log: Log
    net: Model
    device: torch.device
    source: ModelSource
    batches: EvalBatches = eval_batches
    forward: Forward = by_itself
    after_step: Callable[[], None] = lambda: None
    merge: Callable[[EpochScores], None] = lambda scores: None
    done: Callable[[int, str, Mapping[str, float]], None] = lambda epoch, name, means: None
    hooks: EpochHooks | None = None
    step: int = 0

    def run(self, name: str, dataset: Dataset, epoch: int) -> dict[str, float]:
        """The scores of one dataset. The train flag is off; nothing is changed."""
        net = self.net.eval()
        start_epoch(net, self.config, epoch)
        loader = self.batches(self.config, net, name, dataset, epoch)
        what = Pass("eval", epoch, name, dataset.known_num_seqs)
        meter = step_meter(self.config, self.source.form, what, self.log, net)
        hooks = self.hooks.around(net, name, epoch, self.step) if self.hooks is not None else nullcontext()
        with torch.no_grad(), net.running_over(name), hooks:
            for batch in loader:
                with with_batch_context(batch, self.config, net):
                    meter.add(run_step(net, batch, self.device, self.forward, wanted=()), batch)
                meter.end_step()
                self.after_step()
        meter.flush()
        self.merge(meter.scores)
        return meter.finish(loader.wait_time)

    def run_all(self, datasets: Mapping[str, Dataset], epoch: int, control: LearningRateControl | None) -> Results:
        """The scores of all datasets; each is set and saved in the learning-rate file as soon as it is known."""
        results: Results = {}
        for name, dataset in datasets.items():
            results[name] = self.run(name, dataset, epoch)
            self.done(epoch, name, results[name])
            if control is not None:
                control.set_scores(epoch, self.source.form.entries(name, results[name]))
                control.save()
        write(self.log, self.source.form.evaluated(epoch, results))
        return results


def lacks_scores(control: LearningRateControl, epoch: int, name: str) -> bool:
    """Whether the epoch's record has no score (nor, as old files, loss) of this dataset."""
    record = control.epochs.get(epoch)
    keys = record.error if record is not None else {}
    return not any(key.startswith((f"{name}_score", f"{name}_loss", f"{name}_error")) for key in keys)


def eval_task(config: Config, log: Log) -> None:
    """Task `eval`: scores of a model on all evaluation sets, into the learning-rate file unless `load` is set."""
    if not config.value("load", "") and not requested_epoch(config, "eval"):
        raise ConfigError("load_epoch", "specify epoch or load_epoch")
    datasets = data.open_eval_datasets(config, log)
    if not datasets:
        raise ConfigError("dev", "there must be a dataset to evaluate: `dev`, `eval` or `eval_datasets`")
    data.complete_extern_data(config, datasets.values())
    data.print_data_info(datasets, log)
    if config.has("eval_output_file_per_seq"):
        raise ConfigError("eval_output_file_per_seq", "scores per sequence are not supported yet")
    loaded = load_network(config, log, task="eval")
    control = None if config.value("load", "") else LearningRateControl.from_config(config, log)
    evaluation = Evaluation(config, log, loaded.net, loaded.device, loaded.source)
    results = evaluation.run_all(datasets, loaded.epoch, control)
    filename = config.value("eval_output_file", "")
    if filename:
        text = better_repr({name: _file_entry(means) for name, means in results.items()}) + "\n"
        write_atomically(filename, lambda file: file.write(text.encode()))


def _file_entry(means: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """{"score": {"cost:output": …}, "error": {"error:output": …}}."""
    kinds = {"error": "error:", "score": "cost:"}
    return {k: {key: value for key, value in means.items() if key.startswith(start)} for k, start in kinds.items()}
