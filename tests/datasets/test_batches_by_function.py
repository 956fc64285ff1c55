"""A function as `torch_batching`."""

import re

import numpy as np
import pytest
import torch

from returnn_lite.datasets import BatchingOptions, init_dataset
from returnn_lite.datasets.batches.buckets import ShuffledBatches
from returnn_lite.datasets.batches.by_function import FunctionLoader
from returnn_lite.datasets.batches.epoch_batches import new_batches
from returnn_lite.datasets.batches.torch_batching import limits_by_class
from returnn_lite.datasets.batches.torch_slices import TorchChunking
from returnn_lite.errors import ConfigError
from tests.engine import helpers, torch_models
from tests.engine.helpers import run

LENGTHS = [3, 5, 2, 4]


def batches(function, workers=0, **options):
    seqs = [{"data": np.full((n, 1), n, "float32"), "mark": np.float32(n)} for n in LENGTHS]
    dataset = init_dataset({"class": "StaticDataset", "data": seqs, "output_dim": {"data": (1, 2), "mark": (1, 0)}})
    dataset.init_seq_order(epoch=1)
    made = BatchingOptions(as_torch=True, **limits_by_class(function), **options)
    return list(FunctionLoader(dataset, made, function=function, keys=["data", "mark"], workers=workers))


def pairs(dataset, *, train, **_):
    sequences = sorted(dataset, key=lambda seq: len(seq["data"]))
    return [sequences[:2], sequences[2:]]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_those_of_the_function(workers):
    first, second = batches(pairs, workers)
    assert first.data["data"][..., 0].tolist() == [[2, 2, 0], [3, 3, 3]] and first.lengths["data"].tolist() == [2, 3]
    assert second.data["data"][..., 0].tolist() == [[4, 4, 4, 4, 0], [5] * 5] and second.data["mark"].tolist() == [4, 5]
    assert (first.seq_idx.tolist(), first.tags, first.complete) == ([2, 0], ["seq-2", "seq-0"], 0.75)
    assert "mark" not in first.lengths and first.data["data"].dtype == "float32" and second.complete == 1.0


def test_what_the_function_gets():
    seen = []

    def function(dataset, *, train, **more):
        assert isinstance(dataset, torch.utils.data.IterableDataset) and more
        seen.append(train)
        for item in dataset:
            seen.append(
                (str(item["seq_tag"]), int(item["seq_idx"]), int(item["num_seqs"]), float(item["complete_frac"]))
            )
            yield [{**item, "data": 2 * item["data"][1:]}]

    made = batches(function, trains=True)
    assert seen == [True, *((f"seq-{i}", i, 4, (i + 1) / 4) for i in range(4))]
    assert [batch.data["data"][0, :, 0].tolist() for batch in made] == [[2 * n] * (n - 1) for n in LENGTHS]


def test_chunks_limits_shares_and_shuffling():
    single = lambda dataset, **_: ([item] for item in dataset)  # noqa: E731
    chunks = {"torch_chunking": TorchChunking.parse(({"data": 2}, {"data": 2}), 0), "max_seq_length": 4}
    found = [batch.data["data"][0, :, 0].tolist() for batch in batches(single, **chunks)]
    assert found == [[3, 3], [3], [2, 2], [4, 4], [4, 4]]
    assert [batch.tags for batch in batches(single, share=(1, 2))] == [["seq-1"], ["seq-3"]]
    mixed = batches(single, shuffled=ShuffledBatches(4, seed=1))
    assert sorted(batch.tags[0] for batch in mixed) == [f"seq-{i}" for i in range(4)]
    assert [batch.complete for batch in mixed] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("options", [torch_models.options, helpers.options])
def test_whole_runs(tmp_path, options):
    flags = []

    def function(dataset, *, train, **_):
        flags.append(train)
        sequences = list(dataset)
        return [sequences[i : i + 4] for i in range(0, len(sequences), 4)]

    changes = {"torch_batching": function, "batch_size": None, "num_epochs": 1, "log_batch_size": True}
    lines = run(options(tmp_path, **changes))
    sizes = [
        int(re.search(r"num_seqs[: ](\d+)", line)[1]) for line in lines if re.search("train.*step .*num_seqs", line)
    ]
    assert sizes == [4, 4, 4, 2] and flags[:2] == [True, False]


def test_not_where_batches_are_planned():
    with pytest.raises(ConfigError, match="torch_batching: must not be a function here"):
        next(new_batches(None, BatchingOptions(**limits_by_class(pairs))))


@pytest.mark.parametrize(("function", "words"), [
    (lambda dataset, **_: None, "must return an iterable of lists"),
    (lambda dataset, **_: dataset, "each batch must be a list of sequences .dicts., but one is a dict"),
    (lambda dataset, **_: [[]], "but one is an empty list"),
    (lambda dataset, **_: ([{"data": item["data"]}] for item in dataset), "one has lost 'mark'"),
    (lambda dataset, **_: [[{**x, "data": np.ones((2, i))} for i, x in enumerate(dataset)]], "'data' has shapes"),
])  # fmt: skip
def test_what_a_function_must_not_give(function, words):
    with pytest.raises(ConfigError, match=f"torch_batching: .*{words}"):
        batches(function)
