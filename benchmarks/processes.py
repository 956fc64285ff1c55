"""Several processes against one: training a transformer, loading batches; and the memory of gradient checkpoints.

    python benchmarks/processes.py [--epochs 3] [--seqs 100000]

The transformer of train_transformer.py on the same data, each process with one thread: sequences a second of 2
processes (gradients averaged by DistributedDataParallel) over those of 1 (goal: at least 1.7 on two idle cores), the
first epoch left out. Then features of 100,000 sequences of Ogg files: 2 worker processes against none (goal: at least
1.6), and against real time (goal: at least 300 times a core, in less than 2 GB). Then how long an epoch of 200 short
sequences takes that 2 worker processes read, the first of 5 left out. In the end memory_conformer.py.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

CONFIG = """#!rnn.py
import sys
sys.path[:0] = [{root!r}, {root!r} + "/benchmarks"]
import train_transformer
globals().update(train_transformer.config())
data = train_transformer.sequences(600)
train = {{"class": "StaticDataset", "data": data, "output_dim": {{"classes": [1000, 1], "data": [40, 2]}}}}
use_tensorflow, device = True, "cpu"
batch_size, num_epochs = {{"data": 1200}}, {epochs}
log_verbosity, torch_distributed = 4, {{"data": "shares"}}
"""
RATE, SECONDS = 16000, 1.0


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def train(count: int, folder: Path) -> float:
    """The seconds of an epoch by so many processes, without the first epoch."""
    port = str(free_port())
    started = []
    for rank in range(count):
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        own = {**os.environ, **{name: str(value) for name, value in places.items()}, "OMP_NUM_THREADS": "1"}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, str(ROOT / "rnn.py"), str(folder / "a.config")]
        out = subprocess.PIPE if rank == 0 else subprocess.DEVNULL
        started.append(subprocess.Popen(command, cwd=folder, env=own, stdout=out, text=True))
    ends = [time.perf_counter() for line in started[0].stdout or () if re.match(r"train epoch \d+, finished", line)]
    if any(process.wait() for process in started):
        sys.exit("a training failed")
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def training(epochs: int) -> None:
    """Prints seconds and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.config").write_text(CONFIG.format(root=str(ROOT), epochs=epochs))
        one, two = train(1, folder), train(2, folder)
    print(f"transformer: {one:.2f} s an epoch by one process, {two:.2f} s by two, ratio {one / two:.2f} (goal: 1.7)")


def archive(folder: Path, seqs: int) -> str:
    """A zip file with a list of so many sequences, which share 100 recordings in Ogg."""
    import soundfile

    rng, path = np.random.RandomState(1), folder / "audio.zip"
    entry = "{{'text': 'a', 'duration': {0}, 'file': '{1}.ogg', 'seq_name': 's{2}'}},\n"
    with zipfile.ZipFile(path, "w") as file:
        for number in range(100):
            content = io.BytesIO()
            soundfile.write(content, rng.normal(0, 0.1, int(RATE * SECONDS)), RATE, format="OGG", subtype="VORBIS")
            file.writestr(f"audio/{number}.ogg", content.getvalue())
        file.writestr("audio.txt", "[\n" + "".join(entry.format(SECONDS, i % 100, i) for i in range(seqs)) + "]\n")
    return str(path)


def loading(seqs: int) -> None:
    """Prints seconds and their ratio, how much faster than speech that is, and the highest memory."""
    from returnn_lite.datasets import BatchingOptions, Loader, init_dataset
    from returnn_lite.engine.worker_loader import SeqWorkerLoader

    with tempfile.TemporaryDirectory() as name:
        features = {"features": "log_mel_filterbank", "num_feature_filters": 80}
        path = archive(Path(name), seqs)
        dataset = init_dataset({"class": "OggZipDataset", "path": path, "audio": features, "targets": None})
        options, taken = BatchingOptions(batch_size=20000), []
        for loader in (
            Loader(dataset, options, keys=["data"], workers=0),
            SeqWorkerLoader(dataset, options, keys=["data"], count=2),
        ):
            dataset.init_seq_order(1)
            batches = iter(loader)
            next(batches)  # the start of processes is not loading
            start, used = time.perf_counter(), time.process_time()
            count = sum(len(batch.tags) for batch in batches)
            taken.append((time.perf_counter() - start) * seqs / count)
            if loader.workers == 0:
                speed = count * SECONDS / (time.process_time() - used)
    none, two = taken
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{seqs} sequences: {none:.1f} s without workers, {two:.1f} s by 2, ratio {none / two:.2f} (goal: 1.6)")
    print(f"features of Ogg files: {speed:.0f} times real time a core (goal: 300), {memory:.2f} GB (goal: below 2)")


def small_epochs(count: int = 5) -> None:
    """Prints the seconds of an epoch whose data are read in no time: what it takes that processes read them."""
    from returnn_lite.datasets import BatchingOptions, init_dataset
    from returnn_lite.datasets.combined.worker_process import Workers
    from returnn_lite.engine.worker_loader import SeqWorkerLoader, WorkerLoader

    data = [{"data": np.zeros((5, 4), np.float32)} for _ in range(200)]
    dataset = init_dataset({"class": "StaticDataset", "data": data, "seq_ordering": "random"})
    for kind in (WorkerLoader, SeqWorkerLoader):
        for stay in (False, True):
            workers, taken = Workers(stay=stay), []
            for epoch in range(1, count + 1):
                start = time.perf_counter()
                dataset.init_seq_order(epoch)
                for _ in kind(dataset, BatchingOptions(batch_size=100), keys=["data"], count=2, workers=workers):
                    pass
                taken.append(time.perf_counter() - start)
            print(f"{kind.__name__}, {'the same' if stay else 'new'} processes: {np.mean(taken[1:]):.3f} s an epoch")
            workers.close()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Several processes against one.")
    parser.add_argument("--epochs", type=int, default=3, help="of each training, default %(default)s")
    parser.add_argument("--seqs", type=int, default=100_000, help="sequences to load, default %(default)s")
    args = parser.parse_args()
    training(args.epochs)
    loading(args.seqs)
    small_epochs()
    command = [sys.executable, str(ROOT / "benchmarks" / "memory_conformer.py"), "--threads", "1", "--frames", "800"]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
