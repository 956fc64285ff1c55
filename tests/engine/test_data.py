"""Batches on their way to the device."""

import numpy as np
import pytest
import torch

from returnn_lite.datasets import Batch, BatchingOptions, Loader, init_dataset
from returnn_lite.engine.data import pinned
from returnn_lite.engine.step import to_device
from tests.datasets.hdf_files import write
from tests.engine.helpers import CONFIG_FILE, dataset, options, rnn, run

CPU = torch.device("cpu")


def test_page_locked_batches(monkeypatch):
    """Without a GPU nothing can be locked, so that is only noted here."""
    locked = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: locked.append(tensor.shape) or tensor)
    arrays = {"data": np.arange(6.0).reshape(1, 3, 2), "raw": ["text"]}
    batch = Batch(arrays, {"data": np.array([3])}, ["tag"], np.array([0]), 1.0)
    found = pinned(batch)
    assert locked == [(1, 3, 2)] and found.data["raw"] == ["text"] and found.tags == ["tag"]
    moved = to_device(found.data["data"], CPU)
    assert moved.tolist() == arrays["data"].tolist()
    assert to_device(found.data["raw"], CPU) == ["text"]
    assert isinstance(to_device(found.lengths["data"], CPU), torch.Tensor) and len(locked) == 1


def test_waiting_counts_only_while_the_device_has_nothing_to_do():
    waits = []
    for busy in (True, False):
        data = init_dataset(dataset(20, seed=1))
        data.init_seq_order(1)
        loader = Loader(data, BatchingOptions(batch_size=10), keys=["data"], workers=0, busy=lambda: busy)  # noqa: B023
        assert len(list(loader)) > 3
        waits.append(loader.wait_time)
    assert waits[0] == 0 and waits[1] > 0


@pytest.mark.parametrize("change, message", [
    ({"inputs": np.full((9, 4), np.nan, "float32")}, 'train: sequence "t0" of {path}: "data" holds NaN'),
    ({"targets/data/classes": np.full(9, 4)}, '"classes" must be class indices from 0 to 3, but holds 4'),
    ({"seqTags": np.array([b"a"])}, "{path}: seqTags: must have one tag for each of 3 sequences"),
])  # fmt: skip
def test_bad_data_end_a_training_with_one_line_and_no_files(tmp_path, change, message):
    path = write(tmp_path / "bad.hdf", dim=4, classes=4, **change)
    train = {"class": "HDFDataset", "files": [path]}
    (tmp_path / "train.config").write_text(CONFIG_FILE + f"train, dev = {train!r}, None\n")
    done = rnn("train.config", folder=tmp_path)
    assert done.returncode == 1
    error = done.stderr.splitlines()
    assert len(error) == 1 and message.format(path=path) in error[0]
    assert not list(tmp_path.rglob("*.pt")) and not (tmp_path / "out" / "rates").exists()


def test_sequences_without_frames_can_be_trained_on(tmp_path):
    path = write(tmp_path / "x.hdf", (0, 3, 0, 4), dim=4, classes=4)
    train = {"class": "HDFDataset", "files": [path]}
    lines = run(options(tmp_path, train=train, dev=None, num_epochs=1, max_seqs=2))
    assert any(line.startswith("epoch 1 score: ") and "nan" not in line for line in lines)
