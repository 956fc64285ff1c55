"""Data at scale: orders of many sequences, opening and reading of HDF files, audio features.

    python benchmarks/data.py [--seqs 10000000] [--hdf-seqs 1000000] [--read-seqs 100000] [--folder /tmp]

Prints seconds, and the memory of a process that does nothing else, at its highest. The file that is read has 200 frames
of 40 numbers per sequence (3.2 GB for 100,000 sequences); all files are removed at the end.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.datasets import init_dataset  # noqa: E402
from returnn_lite.datasets.audio.pipeline import AudioFeatures  # noqa: E402
from returnn_lite.datasets.base import Dataset  # noqa: E402

FRAMES, DIM, RATE = 200, 40, 16000
AT_ONCE = 32  # sequences, when they are read
BLOCK = 1000  # sequences that the two ways of reading do in turn
TAGS_AT_ONCE = 1_000_000


class Seconds(NamedTuple):
    """By the clock on the wall, and of this process's work: on a busy machine the second is less."""

    wall: float
    cpu: float

    def plus(self, other: Seconds) -> Seconds:
        """The sum."""
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)


def show(what: str, seconds: Seconds, more: str = "") -> None:
    """One line of the result."""
    print(f"{what:65} {seconds.wall:8.2f} s ({seconds.cpu:5.2f} s of the processor)   {more}", flush=True)


def seconds_of(work: Callable[[], object]) -> Seconds:
    """How long it takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def alone(work: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """(what a new process gives, its memory at its highest in GB)"""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: tuple[Any, float] = pool.apply(with_peak, (work, args))
        return found


def with_peak(work: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, float]:
    """In the new process."""
    return work(*args), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# --- files ---


def write(path: Path, lengths: np.ndarray, dim: int, *, fill: bool) -> None:
    """A file of sequences; without `fill` their frames take no space on the disk, as nobody writes them."""
    with h5py.File(path, "w") as file:
        inputs = file.create_dataset("inputs", (int(lengths.sum()), dim), "float32")
        block = np.ones((BLOCK * FRAMES, dim), "float32")
        for start in range(0, len(inputs) if fill else 0, len(block)):
            inputs[start : start + len(block)] = block[: len(inputs) - start]
        file["seqLengths"] = np.stack([lengths, np.zeros_like(lengths)], 1).astype("int32")
        tags = file.create_dataset("seqTags", (len(lengths),), "S26")
        for start in range(0, len(lengths), TAGS_AT_ONCE):
            end = min(start + TAGS_AT_ONCE, len(lengths))
            tags[start:end] = [b"corpus/recording/%08d" % i for i in range(start, end)]
        file.attrs["inputPattSize"] = dim


def opened(path: Path, **options: Any) -> Dataset:
    """The file as a dataset."""
    return init_dataset({"class": "HDFDataset", "files": [str(path)], **options})


# --- what is measured ---


def orders(folder: Path, count: int) -> None:
    """`init_seq_order` of the second epoch, when the order of the first one is still there."""
    path = folder / "lengths.hdf"
    write(path, np.random.RandomState(1).randint(10, 2000, count), 1, fill=False)
    for name in ("random", "sorted", "laplace:.1000"):
        seconds, peak = alone(order, path, name)
        show(f"init_seq_order of {count} sequences, {name}", seconds, f"{peak:.2f} GB")


def order(path: Path, name: str) -> Seconds:
    """Seconds of one order."""
    dataset = opened(path, seq_ordering=name)
    dataset.init_seq_order(1)
    return seconds_of(lambda: dataset.init_seq_order(2))


def opening(folder: Path, count: int) -> None:
    """Opening a file of very many short sequences, and all tags."""
    path = folder / "many.hdf"
    write(path, np.ones(count, int), DIM, fill=True)
    seconds, peak = alone(open_and_look, path)
    show(f"opening an HDF file of {count} sequences", seconds[0])
    show("reading and looking up all its tags", seconds[1], f"{peak:.2f} GB")


def open_and_look(path: Path) -> tuple[Seconds, Seconds]:
    """Seconds of opening, and of looking for every tag."""
    opening = seconds_of(lambda: opened(path))
    dataset = opened(path)
    return opening, seconds_of(lambda: dataset.tag_table.find_all(dataset.get_all_tags()))


def reading(folder: Path, count: int) -> None:
    """Reading all frames, against a plain loop of h5py slices, in turn."""
    path = folder / "frames.hdf"
    write(path, np.full(count, FRAMES), DIM, fill=True)
    dataset, plain, ours = opened(path), Seconds(0, 0), Seconds(0, 0)
    dataset.init_seq_order(1)
    with h5py.File(path) as file:
        for number, start in enumerate(range(0, count, BLOCK)):
            end = min(start + BLOCK, count)
            works = [partial(read_slices, file["inputs"]), partial(read, dataset)]
            backwards = number % 2  # whoever comes second finds the processor's cache filled
            times = [seconds_of(partial(work, start, end)) for work in works[:: -1 if backwards else 1]]
            plain, ours = plain.plus(times[backwards]), ours.plus(times[1 - backwards])
    show(f"reading {count} sequences with h5py alone", plain)
    show(
        f"reading {count} sequences with HDFDataset, {AT_ONCE} at once",
        ours,
        f"{plain.wall / ours.wall:.2f} of h5py's speed",
    )


def read_slices(inputs: h5py.Dataset, start: int, end: int) -> None:
    """The plain loop."""
    for i in range(start, end):
        inputs[i * FRAMES : (i + 1) * FRAMES]


def read(dataset: Dataset, start: int, end: int) -> None:
    """As a loader does it."""
    for first in range(start, end, AT_ONCE):
        last = min(first + AT_ONCE, end)
        dataset.load_seqs(first, last)
        for i in range(first, last):
            dataset.get_data(i, "data")


def features() -> None:
    """Features of ten minutes of audio."""
    audio = np.random.RandomState(1).randn(RATE * 15) * 0.1
    for name in ("mfcc", "log_mel_filterbank"):
        extract = partial(AudioFeatures(features=name), seq_name="", rng=np.random.RandomState(1))
        show(f"{name} of 10 minutes of audio", seconds_of(lambda: [extract(audio, RATE) for _ in range(40)]))  # noqa: B023


def main() -> None:
    """Prints all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seqs", type=int, default=10_000_000)
    parser.add_argument("--hdf-seqs", type=int, default=1_000_000)
    parser.add_argument("--read-seqs", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where the files are written, default: the temporary one")
    args = parser.parse_args()
    features()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        orders(Path(folder), args.seqs)
        opening(Path(folder), args.hdf_seqs)
        reading(Path(folder), args.read_seqs)


if __name__ == "__main__":
    main()
