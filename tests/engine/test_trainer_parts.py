"""What a trainer is made of: nothing is opened before its start; observers, data and `forward` are anybody's."""

import pytest
import torch

import returnn_lite.catalog  # noqa: F401 - fills the registries
from returnn_lite.config import Config
from returnn_lite.engine.interrupt import StopRequest
from returnn_lite.engine.observer import Observer
from returnn_lite.engine.step import by_itself
from returnn_lite.engine.train import Trainer
from returnn_lite.engine.training_data import TrainingData
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.schedule import lr_file
from tests.engine.helpers import dataset, options


def trained(config: dict, **parts) -> Trainer:
    trainer = Trainer(Config(config), Log.silent(), **parts)
    trainer.start()
    trainer.run(StopRequest())
    return trainer


def test_making_a_trainer_opens_nothing(tmp_path):
    stale = tmp_path / "model.001.safetensors.tmp"
    stale.write_bytes(b"half")
    missing = {"class": "HDFDataset", "files": [str(tmp_path / "missing.hdf")]}
    trainer = Trainer(Config(options(tmp_path, train=missing)), Log.silent())
    assert [path.name for path in tmp_path.iterdir()] == [stale.name]
    with pytest.raises(ConfigError, match="missing.hdf"):
        trainer.start()


class Norms(Observer):
    """Counts what it is shown."""

    def __init__(self):
        self.seen = []

    def epoch_start(self, net, updater):
        self.start, self.params = len(self.seen), updater.active

    def step(self, result):
        self.seen.append(float(result.out.objective.detach()))

    def gradients(self, gradients):
        assert gradients.keys() == self.params.keys()
        assert all(gradients[name].shape == param.shape for name, param in self.params.items())

    def epoch_end(self):
        return {"my_losses": [round(loss, 3) for loss in self.seen[self.start :]]}


def test_observers_see_every_step_and_add_to_the_record(tmp_path):
    observer = Norms()
    trainer = trained(options(tmp_path), observers=[observer, Observer()])
    assert len(observer.seen) == trainer.global_step == 9
    records = lr_file.from_text((tmp_path / "rates").read_text(), "rates")
    assert [records[epoch].meta["my_losses"] for epoch in (1, 2, 3)] == [
        [round(loss, 3) for loss in observer.seen[start : start + 3]] for start in (0, 3, 6)
    ]


def test_observers_change_nothing(tmp_path):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    plain, seen = trained(options(folders[0])), trained(options(folders[1]), observers=[Norms()])
    for name, param in plain.net.params.items():
        assert torch.equal(param, seen.net.params[name])


def test_forward_runs_every_batch(tmp_path):
    passes = []

    def counted(net, data, lengths, tags):
        passes.append((net.training, len(tags)))
        return by_itself(net, data, lengths, tags)

    trained(options(tmp_path, num_epochs=1), forward=counted)
    assert sum(count for training, count in passes if training) == 14
    assert sum(count for training, count in passes if not training) == 6


class Doubled(TrainingData):
    """Another training set than the config's."""

    def open(self):
        super().open()
        other = Config({"train": dataset(28, 3), "use_tensorflow": True})
        own = TrainingData(other, self.log)
        own.open()
        self.train = own.train


def test_data_of_ones_own(tmp_path):
    made = Config(options(tmp_path, num_epochs=1))
    trainer = trained(made.typed, data=Doubled(made, Log.silent()))
    assert trainer.global_step == 6 and trainer.control.epochs[1].meta["epoch_num_train_steps"] == 6
