"""Operations of a training step: ours against hand-written torch, counted on the CPU.

    python benchmarks/operations.py [--only transformer] [--as-gpu]

For each net of the training benchmarks: how many operations a step dispatches that compute or copy something (each is
at least one launch on a GPU), the bytes that they read and write, those for whose result the program waits, and the
largest sum of what a step has allocated at a time (parameters and the optimizer's numbers are there before), all of the
second step of a batch. `--as-gpu`: layers take the form that they have on a GPU. Optimizers are left out:
one launch or few, and torch's own counts its steps on the host.
"""

import argparse
import gc
import sys
from collections import Counter
from itertools import accumulate
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
import train_attention
import train_blstm
import train_conformer
import train_transformer
from common import Batch, Ours, make_batches, unseen_torch_step
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from returnn_lite.optim import RuleOptimizer

NETS: dict[str, tuple[ModuleType, tuple[int, ...]]] = {
    "blstm": (train_blstm, (40,)),
    "attention": (train_attention, (60,)),
    "transformer": (train_transformer, (60,)),
    "conformer": (train_conformer, (20,)),
}
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique", "_unique2"}
FREE = {"empty", "empty_like", "empty_strided", "new_empty", "detach", "lift_fresh", "alias", "_unsafe_view"}


class Counting(TorchDispatchMode):
    """Counts while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name in FREE or is_view(function):
            return out
        self.calls[name] += 1
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor) and not x.is_sparse]
        self.bytes += sum(x.numel() * x.element_size() for x in tensors)
        return out

    @property
    def waits(self) -> int:
        """Calls whose result decides what is done next."""
        return sum(count for name, count in self.calls.items() if name in WAITING)


def is_view(function: Any) -> bool:
    """Whether an operation only says how memory is seen."""
    schema = function._schema
    return any(a.alias_info is not None and not a.alias_info.is_write for a in schema.arguments)


def counted(step: Any, batch: Batch) -> Counting:
    """Of the second step: the first one makes what stays."""
    step(batch)
    found = Counting()
    with found, patch.object(RuleOptimizer, "apply"), patch.object(torch.optim.Adam, "step"):
        step(batch)
    return found


def pretend_gpu() -> None:
    """From now on layers and losses take the form that they have on a GPU."""
    for name, module in list(sys.modules.items()):
        if name.startswith("returnn_lite.") and hasattr(module, "on_gpu"):
            module.on_gpu = lambda x: True  # type: ignore[attr-defined]
        if name.startswith("returnn_lite.") and hasattr(module, "own_form"):
            module.own_form = lambda x: False  # type: ignore[attr-defined]


def peak(step: Any, batch: Batch) -> int:
    """The largest number of bytes that a step has allocated and not yet given back."""
    step(batch)
    gc.collect()
    with (
        patch.object(torch.optim.Adam, "step"),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as made,
    ):
        step(batch)
    events = made.profiler.kineto_results.events()
    changes = sorted((x.start_ns(), x.nbytes()) for x in events if x.name() == "[memory]")
    return max(accumulate(size for _, size in changes))


def main() -> None:
    """Counts and prints."""
    parser = argparse.ArgumentParser(description="Operations of training steps.")
    parser.add_argument("--only", choices=NETS, help="one net")
    parser.add_argument("--as-gpu", action="store_true", help="in the form for a GPU")
    parser.add_argument("--names", action="store_true", help="print what differs, by operation")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.as_gpu:
        pretend_gpu()
    for name, (module, size) in NETS.items():
        if args.only not in (None, name):
            continue
        ours = Ours(module.config())
        theirs = module.HandWritten(ours.weights())
        batch = make_batches(module.sequences(*size), module.BATCH_SIZE)[0]
        mine = counted(ours.step_unseen, batch)
        by_hand = unseen_torch_step(theirs, theirs.loss, module.RATE)
        hand = counted(by_hand, batch)
        peaks = [peak(step, batch) / 1e6 for step in (ours.step_unseen, by_hand)]
        totals = [sum(x.calls.values()) for x in (mine, hand)]
        print(
            f"{name}: {totals[0]} operations, hand-written {totals[1]}, ratio {totals[0] / totals[1]:.2f}; "
            f"bytes {mine.bytes / 1e9:.3f} and {hand.bytes / 1e9:.3f} G, ratio {mine.bytes / hand.bytes:.2f}; "
            f"waits {mine.waits} and {hand.waits}; peak {peaks[0]:.0f} and {peaks[1]:.0f} MB, "
            f"ratio {peaks[0] / peaks[1]:.2f}"
        )
        if args.names:
            for key in sorted(mine.calls.keys() | hand.calls.keys(), key=lambda k: hand.calls[k] - mine.calls[k]):
                if mine.calls[key] != hand.calls[key]:
                    print(f"    {key}: {mine.calls[key]} and {hand.calls[key]}")


if __name__ == "__main__":
    main()
