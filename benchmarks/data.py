"""Data at scale: orders of many sequences, opening and reading of HDF files, audio features.

    python benchmarks/data.py [--seqs 10000000] [--hdf-seqs 1000000] [--read-seqs 10000] [--folder /tmp]

Prints seconds and the memory at its highest. The file that is read has 200 frames of 40 numbers per sequence (3.2 GB
for 100,000 sequences).
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from returnn_lite.datasets import init_dataset
from returnn_lite.datasets.audio_pipeline import AudioFeatures
from returnn_lite.datasets.ordering import OrderOptions, seq_order

FRAMES, DIM, RATE = 200, 40, 16000


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Prints how long the block took."""
    began = time.perf_counter()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what:60} {time.perf_counter() - began:8.2f} s   {peak:5.2f} GB at most so far")


def orders(count: int) -> None:
    """Orders of an epoch."""
    lengths = np.random.RandomState(1).randint(10, 2000, count)
    for name in ("random", "sorted", "laplace:.1000"):
        with timed(f"order of {count} sequences, {name}"):
            seq_order(OrderOptions(seq_ordering=name), 1, count, lambda: lengths, tuple)


def write(path: Path, count: int, frames: int) -> None:
    """A file of sequences, all equally long."""
    with h5py.File(path, "w") as file:
        inputs = file.create_dataset("inputs", (count * frames, DIM), "float32")
        block = np.ones((min(count, 1000) * frames, DIM), "float32")
        for start in range(0, len(inputs), len(block)):
            inputs[start : start + len(block)] = block[: len(inputs) - start]
        file["seqLengths"] = np.stack([np.full(count, frames), np.zeros(count)], 1).astype("int32")
        file["seqTags"] = np.array([b"corpus/recording/%08d" % i for i in range(count)])
        file.attrs["inputPattSize"] = DIM


def opening(folder: Path, count: int) -> None:
    """Opening a file of very many short sequences, and all tags."""
    path = folder / "many.hdf"
    write(path, count, 1)
    with timed(f"opening an HDF file of {count} sequences"):
        dataset = init_dataset({"class": "HDFDataset", "files": [str(path)]})
    with timed("reading and looking up all its tags"):
        tags = dataset.get_all_tags()
        dataset.tag_table.find_all(tags)


def reading(folder: Path, count: int) -> None:
    """Reading all frames, against a plain loop of h5py slices."""
    path = folder / "frames.hdf"
    write(path, count, FRAMES)
    with h5py.File(path) as file, timed(f"reading {count} sequences with h5py alone"):
        inputs = file["inputs"]
        for i in range(count):
            inputs[i * FRAMES : (i + 1) * FRAMES]
    dataset = init_dataset({"class": "HDFDataset", "files": [str(path)]})
    dataset.init_seq_order(1)
    with timed(f"reading {count} sequences with HDFDataset, 32 at once"):
        for start in range(0, count, 32):
            dataset.load_seqs(start, start + 32)
            for i in range(start, min(start + 32, count)):
                dataset.get_data(i, "data")


def features() -> None:
    """Features of ten minutes of audio."""
    audio = np.random.RandomState(1).randn(RATE * 15) * 0.1
    for name in ("mfcc", "log_mel_filterbank"):
        extract = AudioFeatures(features=name)
        with timed(f"{name} of 10 minutes of audio"):
            for _ in range(40):
                extract(audio, RATE, seq_name="", rng=np.random.RandomState(1))


def main() -> None:
    """Prints all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seqs", type=int, default=10_000_000)
    parser.add_argument("--hdf-seqs", type=int, default=1_000_000)
    parser.add_argument("--read-seqs", type=int, default=10_000)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the files are written, default: the temporary one"
    )
    args = parser.parse_args()
    orders(args.seqs)
    features()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        opening(Path(folder), args.hdf_seqs)
        reading(Path(folder), args.read_seqs)


if __name__ == "__main__":
    main()
