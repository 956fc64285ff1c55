"""What the training benchmarks share: our training step, the yardstick's interface, and timing both in turn."""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import returnn_lite.catalog  # noqa: E402, F401 - fills the registers
from returnn_lite.config import Config  # noqa: E402
from returnn_lite.engine.models.network_source import build_network  # noqa: E402
from returnn_lite.engine.step import Forward, by_itself, run_step  # noqa: E402
from returnn_lite.log import Log  # noqa: E402
from returnn_lite.optim.updater import Updater  # noqa: E402
from returnn_lite.tasks import eval_names  # noqa: E402

CPU = torch.device("cpu")
TOLERANCE = 1e-4  # of the first losses, relative
Step = Callable[["Batch"], float]


@dataclass
class Batch:
    """A mini-batch as the loader makes it: padded arrays (B, T, …), lengths (B,), tags."""

    data: dict[str, np.ndarray]
    lengths: dict[str, np.ndarray]
    tags: list[str] = field(default_factory=list)
    complete: float = 1.0


def make_batches(seqs: Sequence[Mapping[str, np.ndarray]], batch_size: int) -> list[Batch]:
    """Sequences of like length together, each batch at most `batch_size` frames of "data" with padding."""
    batches: list[Batch] = []
    group: list[Mapping[str, np.ndarray]] = []
    for seq in sorted(seqs, key=lambda s: len(s["data"])):
        if len(seq["data"]) * (len(group) + 1) > batch_size:
            batches.append(padded(group))
            group = []
        group.append(seq)
    return [*batches, padded(group)]


def padded(seqs: Sequence[Mapping[str, np.ndarray]]) -> Batch:
    """The sequences as one batch, zeros behind their ends."""
    batch = Batch({}, {}, [f"seq-{i}" for i in range(len(seqs))])
    for key, first in seqs[0].items():
        lengths = np.array([len(s[key]) for s in seqs], dtype="int32")
        whole = np.zeros((len(seqs), lengths.max(), *first.shape[1:]), first.dtype)
        for row, seq in zip(whole, seqs, strict=True):
            row[: len(seq[key])] = seq[key]
        batch.data[key], batch.lengths[key] = whole, lengths
    return batch


class Ours:
    """The engine's training step for a config given as a dict, on `device`; `forward` runs the network."""

    def __init__(self, config: Mapping[str, Any], device: torch.device = CPU, forward: Forward = by_itself) -> None:
        self.device, self.forward = device, forward
        self.config = Config(dict(config))
        self.config.eval_names = eval_names
        log = Log.silent()
        self.rate = float(config["learning_rate"])
        self.net = build_network(self.config, config["network"], epoch=1, device=device, log=log).train()
        self.updater = Updater(
            self.net.params, self.config, param_options=self.net.param_options, initial_learning_rate=self.rate, log=log
        )
        self.steps = 0

    def step(self, batch: Batch) -> float:
        """One training step; returns the objective."""
        loss = self.step_unseen(batch).tolist()[-1]  # on a CPU the engine looks at the scores of every step
        return float(loss)

    def step_unseen(self, batch: Batch) -> torch.Tensor:
        """One training step; returns its scores, for which nobody has waited."""
        result = run_step(self.net, batch, self.device, self.forward, wanted=())
        result.out.forget_layers()
        self.updater.step(
            result.out.objective, global_step=self.steps, learning_rate=self.rate, epoch_step=self.steps,
            gradients=result.out.gradients,
        )  # fmt: skip
        self.steps += 1
        return result.scores

    def weights(self) -> dict[str, torch.Tensor]:
        """Copies of all parameters by name."""
        return {name: param.detach().clone() for name, param in self.net.params.items()}


def unseen_torch_step(
    model: torch.nn.Module, loss: Callable[[Batch], torch.Tensor], rate: float
) -> Callable[[Batch], torch.Tensor]:
    """The plain training step of a hand-written model; gives its objective, for which nobody has waited."""
    adam = torch.optim.Adam(model.parameters(), lr=rate, foreach=True)

    def step(batch: Batch) -> torch.Tensor:
        adam.zero_grad()
        objective = loss(batch)
        objective.backward()
        adam.step()
        return objective.detach()

    return step


def torch_step(model: torch.nn.Module, loss: Callable[[Batch], torch.Tensor], rate: float) -> Step:
    """The same, which gives the objective as a number."""
    step = unseen_torch_step(model, loss, rate)
    return lambda batch: float(step(batch))


class Written(torch.nn.Module):
    """Base of the hand-written models."""

    def tensor(self, array: np.ndarray | torch.Tensor) -> torch.Tensor:
        """An array of a batch, on the device of the parameters."""
        x = torch.as_tensor(array)
        device = next(self.parameters()).device
        return x if device == CPU else x.pin_memory().to(device, non_blocking=True)


def frame_mask(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """Bool (B, size): True before the sequence's end."""
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(1)


def reversing_rows(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """Row of the flat time-major data (T * B) for every row of the data reversed within the lengths."""
    ticks = torch.arange(size, device=lengths.device).unsqueeze(1)
    source = torch.where(ticks < lengths, lengths - 1 - ticks, ticks)
    return (source * len(lengths) + torch.arange(len(lengths), device=lengths.device)).flatten()


def reordered(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Frames (T, B, F) in the order of `rows`."""
    return x.flatten(0, 1).index_select(0, rows).view(x.shape)


def lstm_of(weights: Mapping[str, torch.Tensor], name: str) -> torch.nn.LSTM:
    """A torch LSTM with the parameters `<name>/rec/…` of a nativelstm2 layer, whose gates are a, i, f, o."""
    w, re, b = (weights[f"{name}/rec/{p}"] for p in ("W", "W_re", "b"))
    size = re.shape[0]
    order = torch.cat([torch.arange(n * size, (n + 1) * size) for n in (1, 2, 0, 3)]).to(w.device)  # to i, f, a, o
    made = torch.nn.LSTM(w.shape[0], size)
    with torch.no_grad():
        made.weight_ih_l0.copy_(w.t()[order])
        made.weight_hh_l0.copy_(re.t()[order])
        made.bias_ih_l0.copy_(b[order])
        made.bias_hh_l0.zero_()
    return made


def linear_of(weights: Mapping[str, torch.Tensor], name: str, *, bias: bool = True) -> torch.nn.Linear:
    """A torch Linear with the parameters `<name>/W` and `<name>/b`."""
    w = weights[f"{name}/W"]
    made = torch.nn.Linear(*w.shape, bias=bias)
    with torch.no_grad():
        made.weight.copy_(w.t())
        if bias:
            made.bias.copy_(weights[f"{name}/b"])
    return made


class Bidirectional(torch.nn.Module):
    """Two LSTMs, the backward one on sequences reversed within their lengths.  Shape: (T, B, D) -> (T, B, 2H)"""

    def __init__(self, weights: Mapping[str, torch.Tensor], name: str) -> None:
        super().__init__()
        self.forward_lstm = lstm_of(weights, f"{name}_fw")
        self.backward_lstm = lstm_of(weights, f"{name}_bw")

    def forward(self, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """`rows`: of `reversing_rows`."""
        ahead, _ = self.forward_lstm(x)
        back, _ = self.backward_lstm(reordered(x, rows))
        return torch.cat([ahead, reordered(back, rows)], -1)


def in_turn(
    ours: Callable[[Batch], Any], theirs: Callable[[Batch], Any], batches: Sequence[Batch], rounds: int
) -> tuple[float, float, float]:
    """Median seconds of ours and of theirs on all batches, batch by batch in turn, and the median of the ratios."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        total = [0.0, 0.0]
        for batch in batches:
            for i, step in enumerate((ours, theirs)):
                start = time.perf_counter()
                step(batch)
                total[i] += time.perf_counter() - start
        for known, value in zip(seconds, total, strict=True):
            known.append(value)
    mine, yardstick = (statistics.median(s) for s in seconds)
    return mine, yardstick, statistics.median(a / b for a, b in zip(*seconds, strict=True))


def compare(name: str, ours: Step, theirs: Step, batches: Sequence[Batch], *, rounds: int, goal: float) -> float:
    """Times both on all batches, batch by batch in turn; prints median seconds an epoch, and returns their ratio."""
    first = [step(batches[0]) for step in (ours, theirs)]
    if abs(first[0] - first[1]) > TOLERANCE * abs(first[1]):
        sys.exit(f"{name}: the first losses must be equal, but are {first[0]} (ours) and {first[1]} (hand-written)")
    mine, yardstick, ratio = in_turn(ours, theirs, batches, rounds)
    threads = torch.get_num_threads()
    print(f"{name}: {len(batches)} batches, {rounds} rounds, {threads} threads, first loss {first[0]:.4f}")
    print(f"ours {mine:.3f} s, hand-written {yardstick:.3f} s an epoch, ratio {ratio:.3f} (goal: at most {goal})")
    return ratio


def arguments(description: str, rounds: int) -> argparse.Namespace:
    """The command line: `--rounds`, `--threads`; sets the number of threads and the random seed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help="passes over the batches, default %(default)s")
    threads = torch.get_num_threads()
    parser.add_argument("--threads", type=int, default=threads, help="threads of torch, default %(default)s")
    parsed = parser.parse_args()
    torch.set_num_threads(parsed.threads)
    torch.manual_seed(1)
    return parsed
