"""Training a conformer with CTC, made of layers: ours against the same net written with torch.nn.functional.

    python benchmarks/train_conformer.py [--rounds 3] [--threads N]

12 blocks of 512 features: half a feed-forward layer, self-attention with 8 heads, a convolution over 31 frames with a
layer norm, half a feed-forward layer, a layer norm; 1,000 labels and the blank, a label for ten frames. Prints median
seconds an epoch of both and the ratio (goal: at most 1.05).
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from common import Batch, Ours, Written, arguments, compare, frame_mask, linear_of, make_batches, torch_step

FEATURES, CLASSES, SIZE, HEADS, INNER, LAYERS, KERNEL = 80, 1000, 512, 8, 2048, 12, 31
BATCH_SIZE, RATE = 600, 0.0001


def linear(source: str, size: int, **options: object) -> dict:
    """A product, without activation unless given."""
    return {"class": "linear", "activation": None, "n_out": size, "from": source, **options}


def norm(source: str) -> dict:
    """A layer norm."""
    return {"class": "layer_norm", "from": source}


def half_feed_forward(name: str, source: str) -> dict:
    """x + half of two layers of norm(x), called `name`."""
    return {
        f"{name}_ln": norm(source),
        f"{name}_1": linear(f"{name}_ln", INNER, activation="swish"),
        f"{name}_2": linear(f"{name}_1", SIZE),
        name: {"class": "eval", "from": [source, f"{name}_2"], "eval": "source(0) + 0.5 * source(1)"},
    }


def self_attention(name: str, source: str) -> dict:
    """x + attention(norm(x)), called `name`."""
    attention = {"class": "self_attention", "num_heads": HEADS, "total_key_dim": SIZE, "n_out": SIZE}
    return {
        f"{name}_ln": norm(source),
        f"{name}_att": {**attention, "from": f"{name}_ln"},
        f"{name}_lin": linear(f"{name}_att", SIZE, with_bias=False),
        name: {"class": "combine", "kind": "add", "from": [source, f"{name}_lin"]},
    }


def convolution(name: str, source: str) -> dict:
    """x + the convolution of norm(x), called `name`."""
    depthwise = {"class": "conv", "filter_size": (KERNEL,), "padding": "same", "groups": SIZE, "n_out": SIZE}
    return {
        f"{name}_ln": norm(source),
        f"{name}_1": linear(f"{name}_ln", 2 * SIZE),
        f"{name}_glu": {"class": "gating", "activation": None, "from": f"{name}_1"},
        f"{name}_conv": {**depthwise, "with_bias": True, "from": f"{name}_glu"},
        f"{name}_conv_ln": norm(f"{name}_conv"),
        f"{name}_act": {"class": "activation", "activation": "swish", "from": f"{name}_conv_ln"},
        f"{name}_2": linear(f"{name}_act", SIZE),
        name: {"class": "combine", "kind": "add", "from": [source, f"{name}_2"]},
    }


def config() -> dict:
    """The training as a user would write it."""
    network, source = {"in": linear("data", SIZE)}, "in"
    for i in range(LAYERS):
        for part, make in (("ff1", half_feed_forward), ("sa", self_attention), ("conv", convolution)):
            network |= make(f"enc{i}_{part}", source)
            source = f"enc{i}_{part}"
        network |= half_feed_forward(f"enc{i}_ff2", source)
        source = f"enc{i}"
        network[source] = norm(f"enc{i}_ff2")
    network["output"] = {"class": "softmax", "from": source, "loss": "ctc", "n_out": CLASSES + 1}
    return {
        "extern_data": {"data": {"dim": FEATURES}, "classes": {"dim": CLASSES, "sparse": True}},
        "network": network,
        "optimizer": {"class": "adam", "epsilon": 1e-8},
        "learning_rate": RATE,
    }


def sequences(count: int, shortest: int = 100, longest: int = 200) -> list[dict[str, np.ndarray]]:
    """Noise with a label for every tenth frame."""
    rng = np.random.RandomState(1)
    seqs = []
    for length in rng.randint(shortest, longest + 1, size=count):
        labels = rng.randint(0, CLASSES, length // 10).astype("int32")
        seqs.append({"data": rng.normal(size=(length, FEATURES)).astype("float32"), "classes": labels})
    return seqs


class LayerNorm(torch.nn.LayerNorm):
    """With the parameters of our layer `name`."""

    def __init__(self, weights: Mapping[str, torch.Tensor], name: str) -> None:
        super().__init__(SIZE, eps=1e-6)
        with torch.no_grad():
            self.weight.copy_(weights[f"{name}/scale"])
            self.bias.copy_(weights[f"{name}/bias"])


class Block(torch.nn.Module):
    """One block."""

    def __init__(self, weights: Mapping[str, torch.Tensor], name: str) -> None:
        super().__init__()
        names = [f"{name}_ff1", f"{name}_sa", f"{name}_conv", f"{name}_ff2"]
        self.norms = torch.nn.ModuleList(LayerNorm(weights, f"{n}_ln") for n in names)
        self.inner = torch.nn.ModuleList(linear_of(weights, f"{n}_1") for n in (names[0], names[2], names[3]))
        self.outer = torch.nn.ModuleList(linear_of(weights, f"{n}_2") for n in (names[0], names[2], names[3]))
        self.qkv = torch.nn.Parameter(weights[f"{name}_sa_att/QKV"].t().contiguous())
        self.attended = linear_of(weights, f"{name}_sa_lin", bias=False)
        self.filter = torch.nn.Parameter(weights[f"{name}_conv_conv/W"].permute(2, 1, 0).contiguous())
        self.bias = torch.nn.Parameter(weights[f"{name}_conv_conv/bias"].clone())
        self.conv_norm, self.norm = LayerNorm(weights, f"{name}_conv_conv_ln"), LayerNorm(weights, name)

    def forward(self, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """(B, T, F) -> the same. `seen`: bool, the frames of the sequence."""
        x = x + 0.5 * self.outer[0](F.silu(self.inner[0](self.norms[0](x))))
        qkv = F.linear(self.norms[1](x), self.qkv).unflatten(2, (HEADS, -1)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(*qkv.chunk(3, 3), attn_mask=seen)
        x = x + self.attended(attended.transpose(1, 2).flatten(2))
        y = F.glu(self.inner[1](self.norms[2](x))).transpose(1, 2)
        y = F.conv1d(y, self.filter, self.bias, padding=KERNEL // 2, groups=SIZE).transpose(1, 2)
        x = x + self.outer[1](F.silu(self.conv_norm(y)))
        x = x + 0.5 * self.outer[2](F.silu(self.inner[2](self.norms[3](x))))
        return self.norm(x)


class HandWritten(Written):
    """The same model with the same weights."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.first = linear_of(weights, "in")
        self.blocks = torch.nn.ModuleList(Block(weights, f"enc{i}") for i in range(LAYERS))
        self.output = linear_of(weights, "output")

    def loss(self, batch: Batch) -> torch.Tensor:
        """Sum of the CTC losses."""
        x, lengths = self.tensor(batch.data["data"]), torch.as_tensor(batch.lengths["data"])
        seen = frame_mask(self.tensor(batch.lengths["data"]), x.shape[1])[:, None, None]
        x = self.first(x)
        for block in self.blocks:
            x = block(x, seen)
        log_probs = self.output(x).transpose(0, 1).log_softmax(2)
        labels, counts = self.tensor(batch.data["classes"]).long(), torch.as_tensor(batch.lengths["classes"])
        return F.ctc_loss(log_probs, labels, lengths.long(), counts.long(), blank=CLASSES, reduction="sum")


def main() -> None:
    """Measures and prints."""
    args = arguments("Training speed of a conformer.", rounds=3)
    ours = Ours(config())
    theirs = HandWritten(ours.weights())
    batches = make_batches(sequences(8), BATCH_SIZE)
    compare("conformer", ours.step, torch_step(theirs, theirs.loss, RATE), batches, rounds=args.rounds, goal=1.05)


if __name__ == "__main__":
    main()
