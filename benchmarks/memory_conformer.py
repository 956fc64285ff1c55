"""Memory for training a conformer of layers with `grad_checkpoint`, against the same training without.

    python benchmarks/memory_conformer.py [--size 256] [--frames 1500] [--threads N]

12 blocks, 4 sequences, one step; each block is a part that the backward pass computes again. Each side trains in a
process of its own; what counts is the peak of its resident memory, less that before its step. Prints megabytes and
seconds of both and the ratios (goal: memory at most 0.55), and checks that the gradients are equal.
"""

import argparse
import multiprocessing
import os
import time
from multiprocessing.connection import Connection

import numpy as np
import torch
import train_conformer
from common import Batch, Ours, padded
from memory_blstm import peak

from returnn_lite.engine.step import run_step

SEQUENCES = 4


def batch(frames: int) -> Batch:
    """Sequences of noise, with a label for ten frames."""
    rng = np.random.RandomState(1)
    lengths = [frames - 50 * i for i in range(SEQUENCES)]
    data = [rng.normal(size=(length, train_conformer.FEATURES)).astype("float32") for length in lengths]
    classes = [rng.randint(0, train_conformer.CLASSES, length // 10).astype("int32") for length in lengths]
    return padded([{"data": x, "classes": y} for x, y in zip(data, classes, strict=True)])


def train(parts: bool, args: argparse.Namespace, pipe: Connection) -> None:
    """One step; sends the objective, the norm of its gradients, the memory and the seconds that it took."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    train_conformer.SIZE, train_conformer.INNER = args.size, 4 * args.size
    config = train_conformer.config()
    if parts:
        config["grad_checkpoint"] = [f"enc{i}_*" for i in range(train_conformer.LAYERS)]
    net = Ours(config).net
    data = batch(args.frames)
    before, start = peak(), time.perf_counter()
    out = run_step(net, data, torch.device("cpu")).out
    objective = out.objective
    out.forget_layers()
    grads = torch.autograd.grad(objective, list(net.params.values()))
    seconds = time.perf_counter() - start
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(grad) for grad in grads]))
    pipe.send((objective.item(), norm.item(), peak() - before, seconds))


def measured(parts: bool, args: argparse.Namespace) -> tuple[float, float, float, float]:
    """What `train` sends, from a process of its own."""
    receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=train, args=(parts, args, sender))
    process.start()
    sender.close()
    found: tuple[float, float, float, float] = receiver.recv()
    process.join()
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Memory for training a conformer with grad_checkpoint.")
    parser.add_argument("--size", type=int, default=256, help="features of a block, default %(default)s")
    parser.add_argument("--frames", type=int, default=1500, help="of the longest sequence, default %(default)s")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    args = parser.parse_args()
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # bytes; read by the processes that are started
    loss, norm, memory, seconds = measured(False, args)
    same_loss, same_norm, less, longer = measured(True, args)
    if abs(same_loss - loss) > 1e-4 * abs(loss) or abs(same_norm - norm) > 1e-3 * norm:
        raise SystemExit(f"the numbers must be equal, but are {loss}, {norm} and {same_loss}, {same_norm}")
    print(f"{train_conformer.LAYERS} blocks of {args.size}, {SEQUENCES} sequences of up to {args.frames} frames")
    print(f"memory: {less:.0f} of {memory:.0f} MB, ratio {less / memory:.3f} (goal: at most 0.55)")
    print(f"time: {longer:.1f} of {seconds:.1f} s, ratio {longer / seconds:.2f}")


if __name__ == "__main__":
    main()
