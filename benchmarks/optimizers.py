"""Updates of 200 parameters of mixed sizes, 20 million numbers: our rules against torch.optim's foreach optimizers.

    python benchmarks/optimizers.py [--rounds 5] [--steps 10] [--device cpu]

Both get the same gradients, in turn. The ratio is of the medians; the goal is 1.15.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.config import Config  # noqa: E402
from returnn_lite.optim.resolve import make_optimizer  # noqa: E402

TOTAL, COUNT, GOAL, RATE = 20_000_000, 200, 1.15, 1e-4
Torch = Callable[[list[torch.Tensor]], torch.optim.Optimizer]
PAIRS: dict[str, tuple[dict, Torch]] = {
    "adam": ({"class": "adam", "epsilon": 1e-8}, lambda p: torch.optim.Adam(p, lr=RATE, foreach=True)),
    "gradientdescent": ({"class": "gradientdescent"}, lambda p: torch.optim.SGD(p, lr=RATE, foreach=True)),
    "momentum": (
        {"class": "momentum", "momentum": 0.9},
        lambda p: torch.optim.SGD(p, lr=RATE, momentum=0.9, foreach=True),
    ),
    "nesterov": (
        {"class": "momentum", "momentum": 0.9, "use_nesterov": True},
        lambda p: torch.optim.SGD(p, lr=RATE, momentum=0.9, nesterov=True, foreach=True),
    ),
    "nadam": ({"class": "nadam"}, lambda p: torch.optim.NAdam(p, lr=RATE, foreach=True)),
    "rmsprop": ({"class": "rmsprop"}, lambda p: torch.optim.RMSprop(p, lr=RATE, foreach=True)),
    "thinc.Adam": (
        {"class": "thinc.Adam", "use_averages": False, "grad_clip": 0},
        lambda p: torch.optim.Adam(p, lr=RATE, foreach=True),
    ),
    "torch.Adam": ({"class": "torch.Adam", "foreach": True}, lambda p: torch.optim.Adam(p, lr=RATE, foreach=True)),
}


def parameters(device: str) -> list[torch.Tensor]:
    """Half of them vectors of 512, the rest matrices of three sizes that fill up to the total."""
    generator = torch.Generator().manual_seed(1)
    vectors, matrices = COUNT // 2, COUNT - COUNT // 2
    left = TOTAL - vectors * 512
    unit = left / (matrices * (0.5 * 0.5 + 0.3 * 1.0 + 0.2 * 2.25))
    sizes = [0.5] * round(matrices * 0.5) + [1.0] * round(matrices * 0.3) + [2.25] * round(matrices * 0.2)
    shapes = [(512,)] * vectors + [(round(math.sqrt(unit * size)),) * 2 for size in sizes]
    return [torch.randn(shape, generator=generator).to(device).requires_grad_() for shape in shapes]


def seconds(step: Callable[[], None], count: int, device: str) -> float:
    """Per step."""
    start = time.perf_counter()
    for _ in range(count):
        step()
    if device != "cpu":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


def steps_of(name: str, device: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """(our step, torch's step) on parameters of their own with the same gradients."""
    options, make_torch = PAIRS[name]
    ours, theirs = parameters(device), parameters(device)
    grads = [torch.randn_like(param) * 0.01 for param in ours]
    params = {f"p{i}": param for i, param in enumerate(ours)}
    named = {f"p{i}": grad for i, grad in enumerate(grads)}
    optimizer, reference = make_optimizer(options, Config(), "optimizer"), make_torch(theirs)
    optimizer.bind(params)
    for param, grad in zip(theirs, grads, strict=True):
        param.grad = grad
    return lambda: optimizer.apply(params, named, RATE), lambda: reference.step() and None


def main() -> None:
    """Prints one line per pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", choices=list(PAIRS), default=list(PAIRS))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.only:
        ours, theirs = steps_of(name, args.device)
        for step in (ours, theirs):
            seconds(step, 2, args.device)  # state is made
        times = [
            (seconds(ours, args.steps, args.device), seconds(theirs, args.steps, args.device))
            for _ in range(args.rounds)
        ]
        a, b = (statistics.median(column) for column in zip(*times, strict=True))
        note = "" if a / b <= GOAL else f"  above {GOAL}"
        print(f"{name:16} {1e3 * a:8.2f} ms, torch {1e3 * b:8.2f} ms, ratio {a / b:.2f}{note}", flush=True)


if __name__ == "__main__":
    main()
