"""Batches as arrays, read in the background."""

import threading
import time

import numpy as np
import pytest

from returnn_lite.datasets import BatchingOptions, DataError, Loader, init_dataset
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.batches.epoch_batches import epoch_batches
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log

LENS = (3, 1, 2, 5)
DATA = [
    {
        "data": np.arange(n * 2, dtype="float32").reshape(n, 2) + 1,
        "classes": np.arange(n, dtype="int32") + 1,
        "id": np.array(100 + n),
        "raw": np.array(f"text {n}"),
    }
    for n in LENS
]


class Recorder(Log):
    """A log that keeps its lines."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def write(self, level, text):
        self.lines.append((level, text))


def loader(keys=("data", "classes"), dataset=None, batch=None, workers=1, dtypes=None, static=(), **options):
    dataset = dataset or init_dataset({"class": "StaticDataset", "data": DATA, **options}, name="toy")
    dataset.init_seq_order(1)
    batching = BatchingOptions(**{"batch_size": 6, **(batch or {})})
    return Loader(dataset, batching, keys=keys, dtypes=dtypes, workers=workers, static_keys=static)


@pytest.mark.parametrize("workers", [0, 1])
def test_padded_arrays(workers):
    first, second, third = loader(("data", "classes", "id", "raw"), workers=workers)
    assert first.data["data"].shape == (2, 3, 2) and first.data["data"].dtype == np.float32
    assert first.data["data"][1].tolist() == [[1, 2], [0, 0], [0, 0]]
    assert first.data["classes"].tolist() == [[1, 2, 3], [1, 0, 0]]
    assert first.lengths["data"].dtype == np.int32 and sorted(first.lengths) == ["classes", "data"]
    assert first.lengths["data"].tolist() == first.lengths["classes"].tolist() == [3, 1]
    assert first.data["id"].tolist() == [103, 101] and first.data["raw"] == ["text 3", "text 1"]
    assert (first.tags, first.seq_idx.tolist(), first.complete) == (["seq-0", "seq-1"], [0, 1], 0.25)
    assert (second.tags, second.complete) == (["seq-2"], 0.75)
    assert third.data["data"].shape == (1, 5, 2)


@pytest.mark.parametrize("preserved, by_last, parts", [
    (True, True, [0.5, 0.75, 1.0]),
    (False, True, [None, None, None]),  # the number of sequences is not known, and not guessed
    (True, False, [0.25, 0.75, 1.0]),
])  # fmt: skip
def test_how_much_of_an_epoch_is_done(preserved, by_last, parts):
    stream = {"map_seq_stream": lambda seqs, **_: seqs, "map_seq_stream_preserves_num_seqs": preserved}
    inner = {"class": "StaticDataset", "data": [{"data": seq["data"]} for seq in DATA]}
    dataset = init_dataset({"class": "PostprocessingDataset", "dataset": inner, **stream}, name="toy")
    assert [b.complete for b in loader(["data"], dataset, {"as_torch": by_last})] == parts


def test_dtypes_are_those_asked_for():
    (first, *_) = loader(dtypes={"data": "float64", "classes": "int64"})
    assert first.data["data"].dtype == np.float64 and first.data["classes"].dtype == np.int64


def test_keys_without_a_time_axis_in_the_batch():
    data = [{"data": np.ones((2, 1)), "vector": np.array([i, i])} for i in range(3)]
    dataset = init_dataset({"class": "StaticDataset", "data": data})
    (batch,) = loader(("data", "vector"), dataset=dataset, static=["vector"])
    assert batch.data["vector"].tolist() == [[0, 0], [1, 1], [2, 2]] and list(batch.lengths) == ["data"]


def test_chunks_with_context():
    used = {"batch_size": 100, "used_data_keys": frozenset(["data", "classes"])}
    (batch,) = loader(batch=used, chunking="2:2", context_window=3)
    assert batch.tags == ["seq-0", "seq-0", "seq-1", "seq-2", "seq-3", "seq-3", "seq-3"]
    assert batch.lengths["data"].tolist() == [4, 3, 3, 4, 4, 4, 3]  # with a frame on each side
    assert batch.lengths["classes"].tolist() == [2, 1, 1, 2, 2, 2, 1]
    assert batch.data["data"][0].tolist() == [[0, 0], [1, 2], [3, 4], [5, 6]]
    assert batch.data["data"][1].tolist() == [[3, 4], [5, 6], [0, 0], [0, 0]]


def test_keys_that_are_not_cut_are_empty():
    batch = {"batch_size": 100, "used_data_keys": frozenset(["data"])}
    (found,) = loader(batch=batch, chunking="2:2")
    assert found.lengths["classes"].tolist() == [0] * 7 and found.data["classes"].shape == (7, 0)


def test_end_to_end_in_one_row():
    log = Recorder()
    dataset = init_dataset({"class": "StaticDataset", "data": DATA, "chunking": "4:2"}, name="toy", log=log)
    first, second = loader(dataset=dataset, batch={"recurrent_net": False})
    assert first.data["classes"].tolist() == [[1, 2, 3, 1, 1, 2]] and first.lengths["classes"].tolist() == [6]
    assert first.tags == ["seq-0", "seq-1", "seq-2"] and first.seq_idx.tolist() == [0, 1, 2]
    assert second.data["classes"].tolist() == [[1, 2, 3, 4, 5]]
    assert log.lines == [(4, "Non-recurrent network, chunk size 4:2 ignored")]


def test_unused_keys_count_for_the_limits_unless_there_are_chunks():
    data = [{"data": np.ones((2, 1)), "long": np.ones((9, 1))} for _ in range(4)]
    dataset = init_dataset({"class": "StaticDataset", "data": data})
    batch = {"batch_size": 10, "used_data_keys": frozenset(["data"])}
    assert len(list(loader(("data",), dataset, batch))) == 4
    dataset = init_dataset({"class": "StaticDataset", "data": data, "chunking": 5})
    assert len(list(loader(("data",), dataset, batch))) == 1


def test_a_users_chunking_function():
    def pairs(dataset, seq_idx_start, recurrent_net, used_data_keys, **_):
        for i in range(seq_idx_start, dataset.num_seqs):
            yield i, {"data": 0, "classes": 1}, {"data": 2, "classes": 2}

    batch = {"used_data_keys": frozenset(["data", "classes"])}
    (first, _) = loader(batch=batch, chunking=pairs)
    assert first.lengths["data"].tolist() == [2, 2, 2]
    assert first.data["classes"].tolist() == [[2], [0], [2]]  # beyond the end: zeros


def test_lengths_that_are_learnt_by_loading():
    dataset = init_dataset({"class": "Task12AXDataset", "num_seqs": 20}, name="toy")
    generated = []
    make = dataset.generate
    dataset.generate = lambda rng: generated.append(1) or make(rng)
    batches = list(loader(dataset=dataset, batch={"batch_size": 300}))
    assert [i for b in batches for i in b.seq_idx] == list(range(20)) and len(batches) > 2
    assert all(b.data["data"].shape[:2] == b.data["classes"].shape for b in batches)
    assert len(generated) == 20  # each of them once


def test_an_unknown_key():
    with pytest.raises(ConfigError, match='toy: unknown data key "clases"; did you mean "classes"'):
        loader(("clases",))


# --- trouble ---


class Broken(Dataset):
    """Sequences of which one cannot be read."""

    def __init__(self, bad, error):
        super().__init__()
        self.num_outputs, self.bad, self.error = {"data": (1, 2)}, bad, error

    def get_total_num_seqs(self, *, fast=False):
        return 50

    def corpus_lengths(self):
        return {"data": np.full(50, 2)}

    def load_corpus_seqs(self, indices):
        if self.bad in indices:
            raise self.error
        return [{"data": np.zeros((2, 1))} for _ in indices]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("error, text", [
    (OSError("disk on fire"), 'dataset: sequence "seq-17": OSError: disk on fire'),
    (ConfigError("x.hdf", "gone"), 'dataset: sequence "seq-17": x.hdf: gone'),
])  # fmt: skip
def test_errors_reach_the_consumer_with_the_tag(workers, error, text):
    seen = []
    with pytest.raises(DataError, match=text) as caught:
        for batch in loader(("data",), Broken(17, error), {"batch_size": 10}, workers):
            seen += batch.tags
    assert seen == [f"seq-{i}" for i in range(15)]
    assert caught.value.__cause__ is not None
    assert not [t for t in threading.enumerate() if t.name.startswith("loader")]


def test_frames_that_do_not_fit_together():
    dataset = Broken(99, OSError())
    dataset.load_corpus_seqs = lambda indices: [{"data": np.zeros((2, 1 + (i == 3)))} for i in indices]
    with pytest.raises(DataError, match=r'sequence "seq-3": "data" must have frames of shape \(1,\), but has \(2,\)'):
        list(loader(("data",), dataset, {"batch_size": 10}))


def test_errors_of_the_transform():
    dataset = Broken(99, OSError())
    dataset.init_seq_order(1)
    made = Loader(dataset, BatchingOptions(batch_size=10), keys=["data"], transform=lambda batch: batch.tags)
    assert next(iter(made)) == [f"seq-{i}" for i in range(5)]
    made.transform = lambda batch: 1 / 0
    with pytest.raises(ZeroDivisionError):
        list(made)


def test_a_consumer_that_stops_early_stops_the_worker():
    for batch in loader(("data",), Broken(99, OSError()), {"batch_size": 2}):
        if batch.seq_idx[0] == 1:
            break
    assert not [t for t in threading.enumerate() if t.name.startswith("loader")]


def test_reads_ahead_and_measures_the_wait():
    dataset = Broken(99, OSError())
    load, loaded = dataset.load_corpus_seqs, []

    def slowly(indices):
        time.sleep(0.01)
        loaded.extend(indices.tolist())
        return load(indices)

    dataset.load_corpus_seqs = slowly
    made = loader(("data",), dataset, {"batch_size": 20})
    batches = iter(made)
    next(batches)
    assert made.wait_time >= 0.01
    time.sleep(0.2)
    assert len(loaded) == 50
    waited = made.wait_time
    next(batches)
    assert made.wait_time - waited < 0.01


def test_many_sequences_are_grouped_quickly():
    class Large(Broken):
        def get_total_num_seqs(self, *, fast=False):
            return 300_000

        def corpus_lengths(self):
            return lengths

    lengths = {"data": np.random.RandomState(1).randint(1, 100, 300_000)}
    dataset = Large(-1, OSError())
    dataset.init_seq_order(1)
    start = time.process_time()
    count = sum(len(b.slices) for b in epoch_batches(dataset, BatchingOptions(batch_size=2000)))
    assert count == 300_000 and time.process_time() - start < 5
