"""Numbers that cannot be right are found when batches are made, with the tag and the key."""

import numpy as np
import pytest

from returnn_lite.datasets import BatchingOptions, Loader, init_dataset
from returnn_lite.errors import ConfigError

GOOD = {"data": np.ones((2, 3), "float32"), "classes": np.array([0, 4])}


def batches(seq, workers=0):
    dataset = init_dataset({"class": "StaticDataset", "data": [GOOD, seq]}, name="toy")
    dataset.init_seq_order(1)
    options = BatchingOptions(batch_size=100)
    return list(Loader(dataset, options, keys=["data", "classes"], classes={"classes": 5}, workers=workers))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("change, message", [
    ({"classes": np.array([1, 5])}, '"classes" must be class indices from 0 to 4, but holds 5'),
    ({"classes": np.array([-1, 1])}, "but holds -1"),
    ({"data": np.array([[1, np.nan, 1], [1, 1, 1]])}, '"data" holds NaN'),
])  # fmt: skip
def test_bad_values(change, message, workers):
    with pytest.raises(ConfigError, match=f'toy: sequence "seq-1": .*{message}'):
        batches({**GOOD, **change}, workers)


def test_infinite_numbers_and_empty_sequences_are_data():
    odd = {"data": np.array([[np.inf, -np.inf, 0]]), "classes": np.array([1])}
    empty = {"data": np.zeros((0, 3)), "classes": np.zeros(0, "int64")}
    assert batches(odd)[0].data["data"][1, 0, 0] == np.inf
    assert batches(empty)[0].lengths["classes"].tolist() == [2, 0]
