"""The processes of a MultiProcDataset: they end with the one that reads, however it ends."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from returnn_lite.datasets import DataError, init_dataset
from returnn_lite.datasets.combined.workers import draw_as

ROOT = Path(__file__).resolve().parents[2]
READER = """
import os, sys, threading, time
from returnn_lite.datasets import init_dataset

if __name__ == "__main__":
    inner = {"class": "Task12AXDataset", "num_seqs": 1000, "seq_ordering": "default"}
    dataset = init_dataset({"class": "MultiProcDataset", "dataset": inner, "num_workers": 2, "buffer_size": 1})
    dataset.init_seq_order(1)
    reader = threading.Thread(target=dataset.load_seqs, args=(0, 2))
    reader.start() if sys.argv[1] == "thread" else reader.run()
    reader.join() if sys.argv[1] == "thread" else None
    print(*(worker.process.pid for worker in dataset.workers.list), flush=True)
    time.sleep(60)
"""


def lives(pid: int) -> bool:
    """Whether the process is there, and no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
@pytest.mark.parametrize("name, where", [("SIGKILL", "thread"), ("SIGKILL", "main"), ("SIGHUP", "thread")])
def test_workers_end_with_the_reader(tmp_path, name, where):
    """They wait for room in the pipe then."""
    (tmp_path / "read.py").write_text(READER)
    words = [sys.executable, str(tmp_path / "read.py"), where]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    workers = [int(word) for word in process.stdout.readline().split()]
    assert len(workers) == 2 and all(lives(pid) for pid in workers)
    for pid in workers:  # Ctrl-C goes to all processes of a terminal: they leave it to the reader
        os.kill(pid, signal.SIGINT)
    time.sleep(0.1)
    assert all(lives(pid) for pid in workers)
    process.send_signal(getattr(signal, name))
    process.communicate()
    deadline = time.monotonic() + 3  # three times what is promised, for busy machines
    while any(lives(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(lives(pid) for pid in workers)


def test_random_numbers_of_a_worker():
    """Those of all generators are its own in each epoch, whatever was drawn before."""
    dataset, drawn = init_dataset({"class": "Task12AXDataset", "num_seqs": 10}), []
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    for epoch, number in ((1, 0), (1, 0), (1, 1), (2, 0)):
        dataset.init_seq_order(epoch)
        draw_as(dataset, number)
        drawn.append((random.random(), np.random.rand(), torch.rand(()).item()))
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
    assert drawn[0] == drawn[1] and all(len(set(values)) == 3 for values in zip(*drawn, strict=True))


def test_the_processes_of_a_dataset_stay():
    """From epoch to epoch; until all that is kept goes."""
    inner = {"class": "Task12AXDataset", "num_seqs": 20, "seq_ordering": "random"}
    options = {"class": "MultiProcDataset", "dataset": inner, "num_workers": 2, "buffer_size": 2}
    dataset, alone, pids = init_dataset(options), init_dataset(inner), []
    for epoch in (1, 2):
        alone.init_seq_order(epoch)
        dataset.init_seq_order(epoch)
        alone.load_seqs(0, 20)
        dataset.load_seqs(0, 20)
        assert [dataset.get_tag(i) for i in range(20)] == [alone.get_tag(i) for i in range(20)]
        assert np.array_equal(dataset.get_data(7, "data"), alone.get_data(7, "data"))
        pids.append([worker.process.pid for worker in dataset.workers.list])
        dataset.finish_epoch()
    assert pids[0] == pids[1] and len(pids[0]) == 2
    dataset.finish_epoch(free_resources=True)
    assert not dataset.workers.list


def test_a_worker_that_dies_is_told():
    inner = {"class": "Task12AXDataset", "num_seqs": 1000, "seq_ordering": "default"}
    dataset = init_dataset({"class": "MultiProcDataset", "dataset": inner, "num_workers": 1, "buffer_size": 1})
    dataset.init_seq_order(1)
    dataset.load_seqs(0, 1)
    dataset.workers.list[0].process.kill()
    with pytest.raises(DataError, match=r"a worker process died \(exit code -9\)"):
        dataset.load_seqs(1, 1000)
    dataset.finish_epoch()
