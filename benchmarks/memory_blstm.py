"""Memory for training a deep BLSTM on long sequences: ours against a hand-written torch loop on the same batch.

    python benchmarks/memory_blstm.py [--steps 3] [--threads N]

4 x 256 BLSTM, 4 sequences of up to 3,000 frames, Adam. Each side trains in a process of its own; what counts is the
peak of its resident memory, less that before its first step. What is freed goes back to the system at once (as far as
the C library listens to MALLOC_MMAP_THRESHOLD_), since what it keeps otherwise varies from run to run by a tenth.
Prints megabytes of both and the ratio (goal: at most 1.2).
"""

import argparse
import multiprocessing
import os
import resource
from multiprocessing.connection import Connection

import numpy as np
import torch
import train_blstm
from common import Batch, Ours, padded, torch_step

LEVELS, LENGTHS = 4, (3000, 2900, 2800, 2700)


def batch() -> Batch:
    """Long sequences of noise."""
    rng = np.random.RandomState(1)
    return padded(
        [
            {
                "data": rng.normal(size=(length, train_blstm.FEATURES)).astype("float32"),
                "classes": rng.randint(0, train_blstm.CLASSES, length).astype("int32"),
            }
            for length in LENGTHS
        ]
    )


def peak() -> float:
    """The largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def train(ours: bool, steps: int, threads: int, pipe: Connection) -> None:
    """Some training steps; sends the last loss and the memory that they took."""
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    train_blstm.LEVELS = LEVELS
    net = Ours(train_blstm.config())
    data = batch()
    if ours:
        step = net.step
    else:
        model = train_blstm.HandWritten(net.weights())
        step = torch_step(model, model.loss, train_blstm.RATE)
        del net
    before = peak()
    for _ in range(steps):
        loss = step(data)
    pipe.send((loss, peak() - before))


def measured(ours: bool, steps: int, threads: int) -> tuple[float, float]:
    """Last loss and megabytes of one side, in a process of its own."""
    receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=train, args=(ours, steps, threads, sender))
    process.start()
    sender.close()
    found: tuple[float, float] = receiver.recv()
    process.join()
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Memory for training a deep BLSTM.")
    parser.add_argument("--steps", type=int, default=3, help="training steps, default %(default)s")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    args = parser.parse_args()
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # bytes; read by the processes that are started
    (mine, our_peak), (theirs, their_peak) = (measured(side, args.steps, args.threads) for side in (True, False))
    if abs(mine - theirs) > 1e-3 * abs(theirs):
        raise SystemExit(f"the losses must be equal, but are {mine} (ours) and {theirs} (hand-written)")
    print(f"{LEVELS} levels, {len(LENGTHS)} sequences of up to {max(LENGTHS)} frames, loss {mine:.3f}")
    ratio = our_peak / their_peak
    print(f"ours {our_peak:.0f} MB, hand-written {their_peak:.0f} MB, ratio {ratio:.3f} (goal: at most 1.2)")


if __name__ == "__main__":
    main()
