"""`torch_batching` and `online_shuffle_batches`."""

import re

import numpy as np
import pytest

from returnn_lite.datasets import BatchingOptions, init_dataset
from returnn_lite.datasets.batches.buckets import Buckets, ShuffledBatches
from returnn_lite.datasets.batches.epoch_batches import epoch_batches
from returnn_lite.datasets.batches.torch_batching import limits_by_class
from returnn_lite.errors import ConfigError
from tests.engine import torch_models
from tests.engine.helpers import run

LENGTHS = [3, 9, 2, 5, 4, 4, 6, 1, 20, 5]
CLASS = {"class": "BucketOrderingIterDataPipe", "buckets": [(6, 3), (4, 2), (10, 2)], "length_key": "data"}


def dataset():
    seqs = [{"data": np.full((n, 1), n, "float32")} for n in LENGTHS]
    made = init_dataset({"class": "StaticDataset", "data": seqs, "output_dim": {"data": (1, 2)}})
    made.init_seq_order(epoch=1)
    return made


def batches(**options):
    return list(epoch_batches(dataset(), BatchingOptions(as_torch=True, **options)))


def test_buckets():
    """4: {0, 2}, {4, 5}, rest {7}; 6: {3, 6, 9}; 10: rest {1}; the sequence of 20 frames fits into none."""
    made = batches(**limits_by_class(CLASS))
    assert [batch.slices.seq_idx.tolist() for batch in made] == [[0, 2], [4, 5], [3, 6, 9], [7], [1]]
    assert [batch.complete for batch in made] == [0.3, 0.6, 1.0, 0.8, 0.2]


def test_random_buckets_are_those_that_fit():
    made = batches(**limits_by_class({**CLASS, "random_bucket_prob": 1.0, "seed": 3}))
    found = [batch.slices.seq_idx.tolist() for batch in made]
    assert sorted(sum(found, [])) == [0, 1, 2, 3, 4, 5, 6, 7, 9] and found != [[0, 2], [4, 5], [3, 6, 9], [7], [1]]
    again = batches(**limits_by_class({**CLASS, "random_bucket_prob": 1.0, "seed": 3}))
    assert found == [batch.slices.seq_idx.tolist() for batch in again]


def test_plain_limits():
    made = batches(**limits_by_class({"class": "BatchingIterDataPipe", "batch_size": 12, "max_seqs": 2}))
    assert [batch.slices.seq_idx.tolist() for batch in made] == [[0], [1], [2, 3], [4, 5], [6, 7], [8], [9]]


def test_shuffled_batches():
    plain, mixed = batches(batch_size=1), batches(batch_size=1, shuffled=ShuffledBatches(4, seed=1))
    order = [int(batch.slices.seq_idx[0]) for batch in mixed]
    assert sorted(order) == list(range(10)) and order != list(range(10))
    assert all(index <= place + 4 for place, index in enumerate(order))  # no further ahead than the buffer reaches
    assert [batch.complete for batch in mixed] == [batch.complete for batch in plain]


def test_whole_runs(tmp_path):
    buckets = {"class": "BucketOrderingIterDataPipe", "buckets": [(4, 2), (8, 3)], "length_key": "data"}
    changes = {"torch_batching": buckets, "online_shuffle_batches": 3, "batch_size": None, "num_epochs": 2}
    lines = run(torch_models.options(tmp_path, log_batch_size=True, **changes))
    assert any(re.fullmatch(r"Batching buckets full: (4: \d+)?(, )?(8: \d+)?", line) for line in lines)
    sizes = [int(re.search(r"num_seqs (\d+)", line)[1]) for line in lines if line.startswith("ep 1 train, step ")]
    assert sum(sizes) == 14 and max(sizes) <= 3


@pytest.mark.parametrize(("value", "words"), [
    ({**CLASS, "class": "BucketOrderingDataPipe"}, 'did you mean "BucketOrderingIterDataPipe"'),
    ({**CLASS, "bucket": 3}, r'torch_batching\["bucket"\]: unknown option'),
    ({**CLASS, "buckets": [3, 4]}, r"must be pairs \(longest length, sequences\)"),
    ({**CLASS, "length_key": None}, "must be the name of a data key"),
    (3, "must be a function, or a dict"),
])  # fmt: skip
def test_refused(value, words):
    with pytest.raises(ConfigError, match=words):
        limits_by_class(value)


def test_wrong_key():
    with pytest.raises(ConfigError, match='unknown data key .*did you mean "data"'):
        batches(**limits_by_class({**CLASS, "length_key": "dta"}))
    with pytest.raises(ConfigError, match="online_shuffle_batches"):
        ShuffledBatches.parse({"buffer": 3})
    assert ShuffledBatches.parse(None) is None
    assert Buckets.parse(CLASS, "x").bounds == (4, 6, 10)
