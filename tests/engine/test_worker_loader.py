"""Batches from several processes are those of one."""

import pickle

import numpy as np
import pytest

from returnn_lite.config import Config
from returnn_lite.datasets import BatchingOptions, DataError, Loader, init_dataset
from returnn_lite.datasets.audio.raw_wav import RawWavDataset
from returnn_lite.datasets.batches.buckets import ShuffledBatches
from returnn_lite.datasets.combined import worker_process
from returnn_lite.datasets.combined.sending import Receiver, Sender, each_dataset
from returnn_lite.datasets.combined.worker_process import Workers
from returnn_lite.engine.data import new_workers, worker_options
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


def audio(folder):
    """A dataset whose recordings are changed at random."""
    archive = folder / "a.zip"
    listed = [{"text": "a", "duration": 0.1, "file": "0.wav", "seq_name": f"s{i}"} for i in range(8)]
    ogg_zip(archive, entries=repr(listed))
    changes = {"features": "raw", "random_permute": {"rnd_scale_lower": 0.1, "rnd_scale_upper": 1.0}}
    value = {"class": "OggZipDataset", "path": str(archive), "audio": changes, "targets": None}
    return init_dataset({**value, "seq_ordering": "random"}), BatchingOptions(batch_size=10**6, max_seqs=1)


def epoch_of(made, epoch, kind, workers, sizes=SIZES, keys=("data", "classes")):
    """Tags and data of an epoch's batches."""
    made.init_seq_order(epoch)
    more = {"workers": 0} if kind is Loader else {"workers": workers, "count": 2}
    loader = kind(made, sizes, keys=list(keys), **more)
    return [(batch.tags, {key: batch.data[key].tolist() for key in keys}) for batch in loader]


@pytest.mark.parametrize("kind", [WorkerLoader, SeqWorkerLoader])
def test_processes_stay_from_epoch_to_epoch(kind):
    """Also for another dataset; what they read is that of no processes."""
    train, dev = init_dataset(dataset(40, 1, seq_ordering="random", partition_epoch=2)), init_dataset(dataset(9, 2))
    workers, pids = Workers(stay=True), []
    for epoch in (1, 2, 3):
        for made in (train, dev):
            found = epoch_of(made, epoch, kind, workers)
            assert found == epoch_of(made, epoch, Loader, None) and len(found) > 2
            pids.append([worker.process.pid for worker in workers.list])
    assert len(pids[0]) == 2 and all(same == pids[0] for same in pids)
    processes = [worker.process for worker in workers.list]
    del workers
    assert not any(process.is_alive() for process in processes)


@pytest.mark.parametrize("kind", [WorkerLoader, SeqWorkerLoader])
def test_a_run_that_goes_on_reads_the_same(tmp_path, kind):
    """Random changes of an epoch do not depend on what the processes did before."""
    made, sizes = audio(tmp_path)
    workers = Workers(stay=True)
    whole = [epoch_of(made, epoch, kind, workers, sizes, ["data"]) for epoch in (1, 2, 3)]
    assert epoch_of(audio(tmp_path)[0], 3, kind, Workers(), sizes, ["data"]) == whole[2]
    assert sorted(whole[1]) != sorted(whole[2])


@pytest.mark.parametrize("kind", [WorkerLoader, SeqWorkerLoader])
def test_processes_learn_of_changes_between_epochs(kind):
    made, workers = init_dataset(dataset(20, 1)), Workers(stay=True)
    before = epoch_of(made, 1, kind, workers)
    made.sort_longest_first()
    assert epoch_of(made, 1, kind, workers) == epoch_of(made, 1, Loader, None) != before
    made.data = [{**seq, "data": -seq["data"]} for seq in made.data]
    assert epoch_of(made, 1, kind, workers) == epoch_of(made, 1, Loader, None)


@pytest.mark.parametrize("kind", [WorkerLoader, SeqWorkerLoader])
def test_an_epoch_that_is_left_early(kind):
    """What was read ahead of it is not taken for the next one's. Two at a time have processes of their own."""
    made, workers = init_dataset(dataset(40, 1, seq_ordering="random")), Workers(stay=True)
    made.init_seq_order(1)
    early = iter(kind(made, SIZES, keys=["data", "classes"], count=2, workers=workers))
    first = next(early)
    assert len(epoch_of(init_dataset(dataset(9, 2)), 1, kind, workers)) > 2
    pids = [worker.process.pid for worker in workers.list]
    early.close()
    assert epoch_of(made, 2, kind, workers) == epoch_of(made, 2, Loader, None)
    assert [worker.process.pid for worker in workers.list] == pids and len(first.tags) > 1


@pytest.mark.parametrize("kind", [WorkerLoader, SeqWorkerLoader])
def test_a_process_that_dies_is_told(kind):
    made, workers = init_dataset(dataset(40, 1)), Workers(stay=True)
    assert epoch_of(made, 1, kind, workers)
    workers.list[1].process.kill()
    with pytest.raises(DataError, match=r"dataset: a worker process died \(exit code -9\)"):
        epoch_of(made, 2, kind, workers)
    assert not workers.list and epoch_of(made, 2, kind, workers) == epoch_of(made, 2, Loader, None)


def test_what_never_changes_is_sent_once():
    made, sender, receiver = init_dataset(dataset(40, 1)), Sender(), Receiver()
    first, second = sender.pack(made), sender.pack(made)
    assert first.parts and second.parts is None and len(second.content) < len(pickle.dumps(made)) / 2
    copies = [receiver.unpack(first), receiver.unpack(second)]
    assert copies[0] is not copies[1] and copies[0].data is copies[1].data
    made.data = made.data[:5]
    assert receiver.unpack(sender.pack(made)).get_total_num_seqs() == 5


@pytest.mark.parametrize(("more", "started"), [({}, 2), ({"torch_dataloader_opts": {"persistent_workers": False}}, 12)])
def test_processes_of_a_training(tmp_path, monkeypatch, more, started):
    """The same ones read all epochs of all datasets, unless the config does not want that; they end with the run."""
    processes = []

    class Counted(worker_process.Worker):
        def __init__(self):
            super().__init__()
            processes.append(self.process)

    monkeypatch.setattr(worker_process, "Worker", Counted)
    run(options(tmp_path, num_workers=2, num_epochs=3, **more))
    assert len(processes) == started and not any(process.is_alive() for process in processes)


def test_processes_end_with_the_pass():
    made = init_dataset(dataset(40, 1, seq_ordering="random"))
    made.init_seq_order(1)
    loader = SeqWorkerLoader(made, SIZES, keys=["data", "classes"], count=2)
    started = iter(loader)
    next(started)
    processes = [worker.process for worker in loader.processes.list]
    assert len(processes) == 2 and loader.dataset.forwards_only
    started.close()
    assert not any(process.is_alive() for process in processes) and not loader.processes.list


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
    made, sizes = audio(tmp_path)
    made.init_seq_order(1)
    assert loader_of_processes(made) is SeqWorkerLoader
    loader = kind(made, sizes, keys=["data"], count=2)
    heights = [float(np.abs(batch.data["data"]).max()) for batch in loader]
    assert len(set(heights)) == 8


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
        ({"persistent_workers": 1}, '["persistent_workers"]: must be True or False, but is 1 instead'),
        ({"prefetch_factor": "2"}, '["prefetch_factor"]: must be a whole number of at least 1'),
    ],
)
def test_wrong_options(value, text):
    config = Config({"torch_dataloader_opts": value})
    with pytest.raises(ConfigError) as caught:
        new_workers(config)
        worker_options(config)
    assert text in str(caught.value)


def test_a_training_by_two_processes_is_that_by_one(tmp_path):
    """Also where it is resumed."""
    texts = []
    for count, ends in ((0, [3]), (2, [3]), (2, [1, 3])):
        folder = tmp_path / f"{count}-{len(ends)}"
        folder.mkdir()
        for last in ends:
            run(options(folder, num_workers=count, num_epochs=last))
        texts.append((folder / "rates").read_text())
    kept = [[line for line in text.splitlines() if "score" in line or "error" in line] for text in texts]
    assert kept[0] == kept[1] == kept[2] and kept[0]
