"""Training an attention encoder-decoder: ours against a hand-written torch loop of the same model and batches.

    python benchmarks/train_attention.py [--rounds 5] [--threads N]

Encoder: 2 x BLSTM 2 x 128, half the frames after the first one. Decoder: an LSTM with additive attention and feedback
of the weights, 200 labels, about 17 of them for about 150 frames. In the hand-written loop all that does not depend on
the previous label runs once for all labels. Prints median seconds an epoch of both and the ratio (goal: at most 1.0).
"""

from collections.abc import Mapping

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
from torch.nn.functional import cross_entropy, max_pool1d

FEATURES, CLASSES, UNITS, POOL = 40, 200, 128, 2
BATCH_SIZE, RATE, IGNORED = 3000, 0.001, -100


def blstm(name: str, source: list[str]) -> dict:
    """Both directions of one level."""
    lstm = {"class": "rec", "unit": "nativelstm2", "n_out": UNITS, "from": source}
    return {f"{name}_fw": {**lstm, "direction": 1}, f"{name}_bw": {**lstm, "direction": -1}}


def linear(source: list[str], size: int, **options: object) -> dict:
    """A product without activation."""
    return {"class": "linear", "activation": None, "n_out": size, "from": source, **options}


DECODER = {
    "output": {"class": "choice", "target": "classes", "beam_size": 12, "from": "output_prob", "initial_output": 0},
    "end": {"class": "compare", "from": "output", "value": 0},
    "embedding": linear(["output"], UNITS, with_bias=False, initial_output=0),
    "state": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": UNITS, "from": ["prev:embedding", "prev:attention"]},
    "query": linear(["state"], UNITS, with_bias=False),
    "feedback": linear(["prev:accum_weights"], UNITS, with_bias=False),
    "energy_in": {"class": "combine", "kind": "add", "from": ["base:keys", "feedback", "query"], "n_out": UNITS},
    "energy_tanh": {"class": "activation", "activation": "tanh", "from": "energy_in"},
    "energy": linear(["energy_tanh"], 1, with_bias=False),
    "att_weights": {"class": "softmax_over_spatial", "from": "energy"},
    "accum_weights": {
        "class": "eval",
        "from": ["prev:accum_weights", "att_weights"],
        "eval": "source(0) + source(1) * 0.5",
        "out_type": {"dim": 1, "shape": (None, 1)},
    },
    "attention": {"class": "generic_attention", "weights": "att_weights", "base": "base:encoder"},
    "readout_in": linear(["state", "prev:embedding", "attention"], UNITS),
    "readout": {"class": "reduce_out", "mode": "max", "num_pieces": 2, "from": "readout_in"},
    "output_prob": {"class": "softmax", "target": "classes", "loss": "ce", "from": "readout"},
}


def config() -> dict:
    """The training as a user would write it."""
    pool = {"class": "pool", "mode": "max", "padding": "same", "pool_size": (POOL,)}
    network = {
        **blstm("lstm1", ["data"]),
        "shrink": {**pool, "from": ["lstm1_fw", "lstm1_bw"]},
        **blstm("lstm2", ["shrink"]),
        "encoder": {"class": "copy", "from": ["lstm2_fw", "lstm2_bw"]},
        "keys": linear(["encoder"], UNITS),
        "output": {"class": "rec", "from": [], "target": "classes", "max_seq_len": 50, "unit": DECODER},
    }
    return {
        "extern_data": {"data": {"dim": FEATURES}, "classes": {"dim": CLASSES, "sparse": True}},
        "network": network,
        "optimizer": {"class": "adam", "epsilon": 1e-8},
        "learning_rate": RATE,
    }


def sequences(count: int) -> list[dict[str, np.ndarray]]:
    """Noise with a label for about every ninth frame."""
    rng = np.random.RandomState(1)
    seqs = []
    for length in rng.randint(120, 181, size=count):
        labels = rng.randint(1, CLASSES, length // 9).astype("int32")
        labels[-1] = 0
        seqs.append({"data": rng.normal(size=(length, FEATURES)).astype("float32"), "classes": labels})
    return seqs


class HandWritten(Written):
    """The same model with the same weights."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        inner = {name.removeprefix("output/rec/"): w for name, w in weights.items()}
        self.lower, self.upper = Bidirectional(weights, "lstm1"), Bidirectional(weights, "lstm2")
        self.keys = linear_of(weights, "keys")
        self.embedding = torch.nn.Parameter(inner["embedding/W"])
        kernel = inner["state/rec/lstm_cell/kernel"]  # rows: embedding, attention, h; gates i, j, f, o
        self.from_label, self.from_context, self.from_state = (
            torch.nn.Parameter(part.clone()) for part in kernel.split((UNITS, 2 * UNITS, UNITS))
        )
        bias = inner["state/rec/lstm_cell/bias"].clone()
        bias[2 * UNITS : 3 * UNITS] += 1.0  # of the forget gate
        self.bias = torch.nn.Parameter(bias)
        self.query = linear_of(inner, "query", bias=False)
        self.feedback = torch.nn.Parameter(inner["feedback/W"])  # (1, UNITS)
        self.energy = linear_of(inner, "energy", bias=False)
        self.readout, self.output = linear_of(inner, "readout_in"), linear_of(inner, "output_prob")

    def encode(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, F) -> (B, T / 2, 2 UNITS), and which of its frames are valid."""
        x = self.lower(x.transpose(0, 1).contiguous(), reversing_rows(lengths, x.shape[1]))
        x = x.masked_fill(~frame_mask(lengths, len(x)).t().unsqueeze(2), 0.0)  # the last pool of an odd length sees one
        x = max_pool1d(x.permute(1, 2, 0), POOL, ceil_mode=True).permute(2, 0, 1)  # (T', B, F)
        shorter = -(-lengths // POOL)
        valid = frame_mask(shorter, len(x))
        x = x.masked_fill(~valid.t().unsqueeze(2), 0.0).contiguous()
        return self.upper(x, reversing_rows(shorter, len(x))).transpose(0, 1).contiguous(), valid

    def decode(self, encoder: torch.Tensor, valid: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Logits (B, N, V) of the labels (B, N), each from the true labels before it."""
        before = self.embedding[labels[:, :-1]]  # (B, N - 1, E)
        before = torch.cat([torch.zeros_like(before[:, :1]), before], 1)
        keys = self.keys(encoder)
        state = cell = encoder.new_zeros(len(labels), UNITS)
        context = encoder.new_zeros(len(labels), encoder.shape[2])
        seen = encoder.new_zeros(*encoder.shape[:2], 1)
        states, contexts = [], []
        weight = torch.cat([self.from_context, self.from_state])
        for gates in (before @ self.from_label + self.bias).unbind(1):
            i, j, f, o = torch.addmm(gates, torch.cat([context, state], 1), weight).chunk(4, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * j.tanh()
            state = o.sigmoid() * cell.tanh()
            energy = self.energy((keys + seen * self.feedback + self.query(state).unsqueeze(1)).tanh())
            weights = energy.squeeze(2).masked_fill(~valid, float("-inf")).softmax(1)  # (B, T')
            seen = seen + 0.5 * weights.unsqueeze(2)
            context = torch.bmm(weights.unsqueeze(1), encoder).squeeze(1)
            states.append(state)
            contexts.append(context)
        readout = self.readout(torch.cat([torch.stack(states, 1), before, torch.stack(contexts, 1)], 2))
        return self.output(readout.unflatten(2, (-1, 2)).amax(3))

    def loss(self, batch: Batch) -> torch.Tensor:
        """Sum of the cross-entropy over valid labels."""
        lengths = self.tensor(batch.lengths["data"]).long()
        encoder, valid = self.encode(self.tensor(batch.data["data"]), lengths)
        labels = self.tensor(batch.data["classes"]).long()
        behind = ~frame_mask(self.tensor(batch.lengths["classes"]), labels.shape[1])
        logits = self.decode(encoder, valid, labels).flatten(0, 1)
        wanted = labels.masked_fill(behind, IGNORED).flatten()
        return cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum")


def main() -> None:
    """Measures and prints."""
    args = arguments("Training speed of an attention model.", rounds=5)
    ours = Ours(config())
    theirs = HandWritten(ours.weights())
    batches = make_batches(sequences(200), BATCH_SIZE)
    compare("attention", ours.step, torch_step(theirs, theirs.loss, RATE), batches, rounds=args.rounds, goal=1.0)


if __name__ == "__main__":
    main()
