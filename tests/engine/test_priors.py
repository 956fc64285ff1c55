"""Task `compute_priors`."""

import h5py
import numpy as np
import pytest
import torch

from returnn_lite.engine.tasks.priors import sum_frames
from returnn_lite.errors import ConfigError
from returnn_lite.tensor import Dim, Spec, Tensor, batch_dim
from returnn_lite.tensor.lengths import Lengths
from tests.engine.helpers import dataset, options, run


def untrained(folder, task, **changes):
    """A task with initial values that depend on the seed alone."""
    return run(options(folder, task=task, allow_random_model_init=True, model=None, **changes))


def test_mean_of_the_outputs(tmp_path):
    """The same number of each class as of all frames that the task forward writes; one line a class."""
    train = dataset(14, 1, seq_ordering="random")
    untrained(tmp_path, "compute_priors", train=train, output_file=str(tmp_path / "prior.txt"))
    out = {"output_file": str(tmp_path / "out.hdf"), "forward_batch_size": 30}
    untrained(tmp_path, "forward", eval=train, **out)
    with h5py.File(tmp_path / "out.hdf") as file:
        frames = file["inputs"][()].astype("float64")
    assert len(frames) == sum(len(seq["data"]) for seq in train["data"])
    np.testing.assert_allclose(np.loadtxt(tmp_path / "prior.txt", delimiter=" "), np.log(frames.mean(0)), 1e-6)
    assert (tmp_path / "prior.txt").read_text().count("\n") == 4


def test_refusals(tmp_path):
    out = tmp_path / "prior.txt"
    out.touch()
    with pytest.raises(ConfigError, match="must not exist yet"):
        untrained(tmp_path, "compute_priors", output_file=str(out))
    with pytest.raises(ConfigError, match="output_file: must be set"):
        untrained(tmp_path, "compute_priors")
    with pytest.raises(ConfigError, match="no model found"):
        run(options(tmp_path, task="compute_priors", output_file=str(tmp_path / "new")))
    scores = {"output": {"class": "linear", "activation": "log_softmax", "n_out": 4, "from": "data"}}
    with pytest.raises(
        ConfigError, match="forward_output_layer: priors are means of probabilities, but layer 'output'"
    ):
        untrained(tmp_path, "compute_priors", output_file=str(tmp_path / "new"), network=scores)
    assert [path.name for path in tmp_path.iterdir()] == ["prior.txt"]


def test_padding_does_not_count():
    time = Dim(None, name="time")
    lengths = {time: Lengths(torch.tensor([2, 1], dtype=torch.int32), 2)}
    values = torch.tensor([[[0.25, 0.75], [0.5, 0.5]], [[1.0, 0.0], [torch.nan, 7.0]]])
    sums, count = sum_frames(Tensor(values, Spec((batch_dim, time, Dim(2, name="f")), "float32", feature=2), lengths))
    assert count == 3 and sums.tolist() == [1.75, 1.25]
    classes = Spec((batch_dim, time), "int32", sparse_dim=Dim(3, name="classes"))
    sums, count = sum_frames(Tensor(torch.tensor([[2, 0], [2, 9]], dtype=torch.int32), classes, lengths))
    assert count == 3 and sums.tolist() == [1.0, 0.0, 2.0]
