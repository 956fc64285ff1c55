"""Training a 3 x 256 BLSTM: ours against a hand-written torch loop on the same padded batches.

    python benchmarks/train_blstm.py [--rounds 5] [--threads N]

40-dimensional frames, 1,000 classes, frame-wise cross-entropy, batches of 5,000 frames, Adam. Prints median seconds an
epoch of both and the ratio; the goal is at most 1.05.
"""

import numpy as np
import torch
from common import (
    Batch,
    Bidirectional,
    Ours,
    Written,
    arguments,
    compare,
    frame_mask,
    linear_of,
    make_batches,
    reversing_rows,
    torch_step,
)
from torch.nn.functional import cross_entropy

FEATURES, CLASSES, UNITS, LEVELS = 40, 1000, 256, 3
BATCH_SIZE, RATE, IGNORED = 5000, 0.001, -100


def config() -> dict:
    """The training as a user would write it."""
    network, source = {}, ["data"]
    for level in range(1, LEVELS + 1):
        names = [f"lstm{level}_fw", f"lstm{level}_bw"]
        for name, direction in zip(names, (1, -1), strict=True):
            lstm = {"class": "rec", "unit": "nativelstm2", "n_out": UNITS, "direction": direction}
            network[name] = {**lstm, "from": source}
        source = names
    network["output"] = {"class": "softmax", "loss": "ce", "from": source}
    return {
        "extern_data": {"data": {"dim": FEATURES}, "classes": {"dim": CLASSES, "sparse": True}},
        "network": network,
        "optimizer": {"class": "adam", "epsilon": 1e-8},
        "learning_rate": RATE,
    }


def sequences(count: int) -> list[dict[str, np.ndarray]]:
    """Noise, as long as utterances are."""
    rng = np.random.RandomState(1)
    seqs = []
    for length in rng.randint(100, 501, size=count):
        frames = rng.normal(size=(length, FEATURES)).astype("float32")
        seqs.append({"data": frames, "classes": rng.randint(0, CLASSES, length).astype("int32")})
    return seqs


class HandWritten(Written):
    """The same model with the same weights."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.levels = torch.nn.ModuleList(Bidirectional(weights, f"lstm{n}") for n in range(1, LEVELS + 1))
        self.output = linear_of(weights, "output")

    def loss(self, batch: Batch) -> torch.Tensor:
        """Sum of the cross-entropy over valid frames."""
        x = self.tensor(batch.data["data"]).transpose(0, 1).contiguous()  # (T, B, F)
        lengths = self.tensor(batch.lengths["data"]).long()
        rows = reversing_rows(lengths, len(x))
        for level in self.levels:
            x = level(x, rows)
        classes = self.tensor(batch.data["classes"]).long().masked_fill(~frame_mask(lengths, len(x)), IGNORED)
        return cross_entropy(self.output(x).flatten(0, 1), classes.t().flatten(), ignore_index=IGNORED, reduction="sum")


def main() -> None:
    """Measures and prints."""
    args = arguments("Training speed of a BLSTM.", rounds=5)
    ours = Ours(config())
    theirs = HandWritten(ours.weights())
    batches = make_batches(sequences(60), BATCH_SIZE)
    compare("BLSTM", ours.step, torch_step(theirs, theirs.loss, RATE), batches, rounds=args.rounds, goal=1.05)


if __name__ == "__main__":
    main()
