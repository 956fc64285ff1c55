"""Batches from a table of all frames, and rows filled with many short sequences at once, are those made one by one."""

import numpy as np
import pytest

from returnn_lite.config import Config
from returnn_lite.datasets import BatchingOptions, Loader, init_dataset
from returnn_lite.datasets.batches.at_once import AtOnce
from returnn_lite.datasets.batches.batching import _Row


def batches(at_once: bool, *, longest: int = 6, **options) -> list:
    rng = np.random.RandomState(1)
    seqs = [
        {"data": rng.normal(size=(n, 3)).astype("float32"), "classes": rng.randint(0, 4, n).astype("int32")}
        for n in rng.randint(1, longest + 1, 40)
    ]
    made = {"class": "StaticDataset", "data": seqs, "output_dim": {"data": (3, 2), "classes": (4, 1)}}
    dataset = init_dataset({**made, "seq_ordering": "random"}, config=Config({}))
    dataset.init_seq_order(epoch=2)
    classes = {"classes": 4}
    loader = Loader(dataset, BatchingOptions(**options), keys=["data", "classes"], workers=0, classes=classes)
    return list(AtOnce(loader, {}) if at_once else loader)


def same(ours: list, theirs: list) -> None:
    assert len(ours) == len(theirs) > 1
    for one, other in zip(ours, theirs, strict=True):
        assert (one.tags, one.complete) == (other.tags, other.complete)
        for key in ("data", "classes"):
            np.testing.assert_array_equal(one.data[key], other.data[key])
            assert one.data[key].dtype == other.data[key].dtype
            np.testing.assert_array_equal(one.lengths[key], other.lengths[key])


@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize("longest", [1, 6])
def test_table_and_single_sequences(recurrent, longest):
    options = {"batch_size": 16, "recurrent_net": recurrent, "longest": longest}
    same(batches(True, **options), batches(False, **options))


@pytest.mark.parametrize("options", [
    {"batch_size": 16}, {"batch_size": 7}, {"batch_size": 100, "max_seqs": 5}, {"batch_size": {"data": 16}},
    {"batch_size": {"classes": 9, "data": 12}},
])  # fmt: skip
@pytest.mark.parametrize("longest", [1, 6, 20])
def test_many_at_once_and_one_by_one(options, longest, monkeypatch):
    ours = batches(False, recurrent_net=False, longest=longest, **options)
    monkeypatch.setattr(_Row, "add_whole", lambda self, slices, first: 0)
    same(ours, batches(False, recurrent_net=False, longest=longest, **options))


def test_values_out_of_range_are_refused_all_the_same():
    dataset = init_dataset({"class": "StaticDataset", "data": [{"data": np.array([1, 9, 2], "int32")}] * 2})
    dataset.init_seq_order(epoch=1)
    loader = Loader(dataset, BatchingOptions(batch_size=10), keys=["data"], workers=0, classes={"data": 4})
    with pytest.raises(Exception, match="must be class indices from 0 to 3, but holds 9"):
        list(AtOnce(loader, {}))
