"""Batches from several processes are those of one."""

import numpy as np
import pytest

from returnn_lite.config import Config
from returnn_lite.datasets import BatchingOptions, DataError, Loader, init_dataset
from returnn_lite.datasets.audio.raw_wav import RawWavDataset
from returnn_lite.datasets.batches.buckets import ShuffledBatches
from returnn_lite.datasets.combined.workers import each_dataset
from returnn_lite.engine.data import worker_options
from returnn_lite.engine.worker_loader import AHEAD, SeqWorkerLoader, WorkerLoader, loader_of_processes, why_not
from returnn_lite.errors import ConfigError
from tests.datasets.examples import ogg_zip, static
from tests.engine.helpers import dataset, options, run

SIZES = BatchingOptions(batch_size=30, max_seqs=4)


def batches(made, kind=Loader, sizes=SIZES, **more):
    made.init_seq_order(2)
    return list(kind(made, sizes, keys=["data", "classes"], **more))


@pytest.mark.parametrize("kind", [WorkerLoader, SeqWorkerLoader])
def test_the_same_batches_in_the_same_order(kind):
    made = init_dataset(dataset(40, 1, seq_ordering="random"))
    expected, found = batches(made, workers=0), batches(made, kind, count=2)
    assert [batch.tags for batch in found] == [batch.tags for batch in expected] and len(found) > 10
    for batch, wanted in zip(found, expected, strict=True):
        assert all(np.array_equal(batch.data[key], wanted.data[key]) for key in wanted.data)
        assert all(np.array_equal(batch.lengths[key], wanted.lengths[key]) for key in wanted.lengths)
        assert batch.complete == wanted.complete and batch.data["classes"].dtype == np.int32


def test_shuffled_batches_of_sequences_that_processes_read():
    sizes = BatchingOptions(batch_size=30, max_seqs=4, shuffled=ShuffledBatches(4))
    made = init_dataset(dataset(40, 1, seq_ordering="random"))
    expected, found = batches(made, sizes=sizes, workers=0), batches(made, SeqWorkerLoader, sizes=sizes, count=2)
    assert [batch.tags for batch in found] == [batch.tags for batch in expected]


def test_processes_end_with_the_pass():
    made = init_dataset(dataset(40, 1, seq_ordering="random"))
    made.init_seq_order(1)
    loader = SeqWorkerLoader(made, SIZES, keys=["data", "classes"], count=2)
    started = iter(loader)
    next(started)
    processes = [worker.process for worker in loader.read.workers]
    assert len(processes) == 2 and loader.read.forwards_only
    started.close()
    assert not any(process.is_alive() for process in processes) and not loader.read.workers


@pytest.mark.parametrize("kind", [WorkerLoader, SeqWorkerLoader])
def test_errors_name_the_sequence(kind):
    value = dataset(12, 1, seq_ordering="default")
    value["data"][9]["data"][0, 0] = np.nan
    with pytest.raises(DataError, match='sequence "seq-9"') as caught:
        batches(init_dataset(value), kind, count=2)
    assert "worker process" not in str(caught.value) and "Traceback" not in str(caught.value)


@pytest.mark.parametrize("kind", [WorkerLoader, SeqWorkerLoader])
def test_random_changes_differ_between_processes(tmp_path, kind):
    """Copies of one generator would make the same changes."""
    archive = tmp_path / "a.zip"
    listed = [{"text": "a", "duration": 0.1, "file": "0.wav", "seq_name": f"s{i}"} for i in range(4)]
    ogg_zip(archive, entries=repr(listed))
    audio = {"features": "raw", "random_permute": {"rnd_scale_lower": 0.1, "rnd_scale_upper": 1.0}}
    made = init_dataset({"class": "OggZipDataset", "path": str(archive), "audio": audio, "targets": None})
    made.init_seq_order(1)
    assert loader_of_processes(made) is SeqWorkerLoader
    loader = kind(made, BatchingOptions(batch_size=10000, max_seqs=1), keys=["data"], count=2)
    heights = [float(np.abs(batch.data["data"]).max()) for batch in loader]
    assert len(set(heights)) == 4


def test_what_is_inside_a_dataset():
    inner = {"a": static(), "b": static()}
    made = init_dataset(
        {"class": "MetaDataset", "datasets": inner, "data_map": {"data": ("a", "data"), "classes": ("b", "classes")}}
    )
    assert len(list(each_dataset(made))) == 3


def test_datasets_that_only_one_can_read():
    assert why_not(init_dataset(static())) == "" and loader_of_processes(init_dataset(static())) is WorkerLoader
    forwards = {"class": "MultiProcDataset", "dataset": static(), "num_workers": 1, "buffer_size": 1}
    assert "see MultiProcDataset" in why_not(init_dataset(forwards))
    local = init_dataset(static())
    local.own = lambda: None
    assert "it cannot be sent to other processes" in why_not(local)
    assert RawWavDataset.forwards_only is False


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, (1, AHEAD)),
        ({"num_workers": 0}, (0, AHEAD)),
        ({"torch_dataloader_opts": {"num_workers": 3, "prefetch_factor": 5}}, (3, 5)),
        ({"num_workers": 2, "torch_dataloader_opts": {"num_workers": 3}}, (2, AHEAD)),
    ],
)
def test_options(config, expected):
    assert worker_options(Config(config)) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("two", "must be a dict, but is 'two' instead"),
        ({"num_workers": -1}, '["num_workers"]: must be a whole number of at least 0, but is -1 instead'),
        ({"prefetch_factor": "2"}, '["prefetch_factor"]: must be a whole number of at least 1'),
    ],
)
def test_wrong_options(value, text):
    config = Config({"torch_dataloader_opts": value})
    with pytest.raises(ConfigError) as caught:
        worker_options(config)
    assert text in str(caught.value)


def test_a_training_by_two_processes_is_that_by_one(tmp_path):
    texts = []
    for count in (0, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        run(options(folder, num_workers=count, num_epochs=2))
        texts.append((folder / "rates").read_text())
    kept = [[line for line in text.splitlines() if "score" in line or "error" in line] for text in texts]
    assert kept[0] == kept[1] and kept[0]
