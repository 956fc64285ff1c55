"""Training a transformer encoder-decoder: ours against the same net written with torch.nn.functional.

    python benchmarks/train_transformer.py [--rounds 5] [--threads N]

4 encoder and 4 decoder layers of 256 features with 4 heads, feed-forward layers of 1,024, 1,000 labels; about 25 labels
for about 40 frames. Our decoder is a loop of generic layers as configs write it, all of which the plan moves out of the
loop. Prints median seconds an epoch of both and the ratio (goal: at most 1.0).
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from common import Batch, Ours, Written, arguments, compare, frame_mask, linear_of, make_batches, torch_step

FEATURES, CLASSES, SIZE, HEADS, INNER, LAYERS = 40, 1000, 256, 4, 1024, 4
HEAD = SIZE // HEADS
BATCH_SIZE, RATE, IGNORED = 1200, 0.0005, -100
SMOOTHING = 0.1  # shared among the other labels
ENTROPY = -(1 - SMOOTHING) * math.log(1 - SMOOTHING) - SMOOTHING * math.log(SMOOTHING / (CLASSES - 1))


def linear(source: str, size: int, **options: object) -> dict:
    """A product, without activation unless given."""
    return {"class": "linear", "activation": None, "n_out": size, "from": source, **options}


def add(*sources: str) -> dict:
    """A sum."""
    return {"class": "combine", "kind": "add", "from": list(sources)}


def norm(source: str) -> dict:
    """A layer norm."""
    return {"class": "layer_norm", "from": source}


def heads(source: str) -> dict:
    """The features split into those of the heads."""
    return {"class": "split_dims", "axis": "F", "dims": (HEADS, HEAD), "from": source}


def self_attention(name: str, source: str, **options: object) -> dict:
    """x + attention(norm(x)), called `<name>_sa_out`."""
    attention = {"class": "self_attention", "num_heads": HEADS, "total_key_dim": SIZE, "n_out": SIZE, **options}
    return {
        f"{name}_sa_ln": norm(source),
        f"{name}_sa": {**attention, "from": f"{name}_sa_ln"},
        f"{name}_sa_lin": linear(f"{name}_sa", SIZE, with_bias=False),
        f"{name}_sa_out": add(source, f"{name}_sa_lin"),
    }


def feed_forward(name: str, source: str) -> dict:
    """x + two layers of norm(x), called `name`."""
    return {
        f"{name}_ff_ln": norm(source),
        f"{name}_ff1": linear(f"{name}_ff_ln", INNER, activation="relu"),
        f"{name}_ff2": linear(f"{name}_ff1", SIZE),
        name: add(source, f"{name}_ff2"),
    }


def cross_attention(name: str, source: str) -> dict:
    """x + attention of norm(x) to the encoder, called `<name>_ca_out`."""
    energy = {"class": "dot", "red1": -1, "red2": -1, "var1": "T", "var2": "T?"}
    return {
        f"{name}_ca_ln": norm(source),
        f"{name}_q0": linear(f"{name}_ca_ln", SIZE, with_bias=False),
        f"{name}_q": heads(f"{name}_q0"),
        f"{name}_e": {**energy, "from": [f"base:{name}_key", f"{name}_q"]},
        f"{name}_w": {"class": "softmax_over_spatial", "from": f"{name}_e", "energy_factor": HEAD**-0.5},
        f"{name}_a0": {"class": "generic_attention", "weights": f"{name}_w", "base": f"base:{name}_value"},
        f"{name}_a": {"class": "merge_dims", "axes": "static", "from": f"{name}_a0"},
        f"{name}_a_lin": linear(f"{name}_a", SIZE, with_bias=False),
        f"{name}_ca_out": add(source, f"{name}_a_lin"),
    }


def decoder() -> dict:
    """The unit of the loop over the labels."""
    unit = {
        "output": {"class": "choice", "target": "classes", "beam_size": 12, "from": "output_prob", "initial_output": 0},
        "end": {"class": "compare", "from": "output", "value": 0},
        "emb_raw": linear("prev:output", SIZE, with_bias=False),
        "emb_scaled": {"class": "eval", "from": "emb_raw", "eval": f"source(0) * {math.sqrt(SIZE)}"},
        "emb": {"class": "positional_encoding", "add_to_input": True, "from": "emb_scaled"},
    }
    source = "emb"
    for i in range(LAYERS):
        name = f"dec{i}"
        unit |= self_attention(name, source, attention_left_only=True)
        unit |= cross_attention(name, f"{name}_sa_out")
        unit |= feed_forward(name, f"{name}_ca_out")
        source = name
    unit["dec"] = norm(source)
    smoothed = {"loss": "ce", "loss_opts": {"label_smoothing": SMOOTHING}}
    unit["output_prob"] = {"class": "softmax", "from": "dec", "target": "classes", **smoothed}
    return unit


def config() -> dict:
    """The training as a user would write it."""
    network = {
        "enc_in": linear("data", SIZE),
        "enc_pos": {"class": "positional_encoding", "add_to_input": True, "from": "enc_in"},
    }
    source = "enc_pos"
    for i in range(LAYERS):
        network |= self_attention(f"enc{i}", source)
        network |= feed_forward(f"enc{i}", f"enc{i}_sa_out")
        source = f"enc{i}"
    network["encoder"] = norm(source)
    for i in range(LAYERS):
        for part in ("key", "value"):
            network[f"dec{i}_{part}0"] = linear("encoder", SIZE, with_bias=False)
            network[f"dec{i}_{part}"] = heads(f"dec{i}_{part}0")
    network["output"] = {"class": "rec", "from": [], "target": "classes", "max_seq_len": 100, "unit": decoder()}
    return {
        "extern_data": {"data": {"dim": FEATURES}, "classes": {"dim": CLASSES, "sparse": True}},
        "network": network,
        "optimizer": {"class": "adam", "epsilon": 1e-8},
        "learning_rate": RATE,
    }


def sequences(count: int) -> list[dict[str, np.ndarray]]:
    """Noise with about as many labels as a subword sequence has."""
    rng = np.random.RandomState(1)
    seqs = []
    for length in rng.randint(20, 61, size=count):
        labels = rng.randint(1, CLASSES, length * 2 // 3).astype("int32")
        labels[-1] = 0
        seqs.append({"data": rng.normal(size=(length, FEATURES)).astype("float32"), "classes": labels})
    return seqs


def positions(count: int, device: torch.device) -> torch.Tensor:
    """Sinusoids (count, SIZE): sines of all rates, then their cosines."""
    rates = torch.exp(torch.arange(SIZE // 2, device=device) * (-math.log(1e4) / (SIZE // 2 - 1)))
    angles = torch.arange(count, device=device).unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def split_heads(x: torch.Tensor) -> torch.Tensor:
    """(B, T, F) -> (B, heads, T, F / heads)"""
    return x.unflatten(2, (HEADS, HEAD)).transpose(1, 2)


class LayerNorm(torch.nn.LayerNorm):
    """With the parameters of our layer `name`."""

    def __init__(self, weights: Mapping[str, torch.Tensor], name: str) -> None:
        super().__init__(SIZE, eps=1e-6)
        with torch.no_grad():
            self.weight.copy_(weights[f"{name}/scale"])
            self.bias.copy_(weights[f"{name}/bias"])


class Block(torch.nn.Module):
    """An encoder or (with `cross`) decoder layer."""

    def __init__(self, weights: Mapping[str, torch.Tensor], name: str, *, cross: bool) -> None:
        super().__init__()
        self.cross = cross
        self.self_norm, self.ff_norm = LayerNorm(weights, f"{name}_sa_ln"), LayerNorm(weights, f"{name}_ff_ln")
        self.qkv = torch.nn.Parameter(weights[f"{name}_sa/QKV"].t().contiguous())
        self.self_out = linear_of(weights, f"{name}_sa_lin", bias=False)
        if cross:
            self.cross_norm = LayerNorm(weights, f"{name}_ca_ln")
            self.query = linear_of(weights, f"{name}_q0", bias=False)
            self.key, self.value = (linear_of(weights, f"base/{name}_{p}0", bias=False) for p in ("key", "value"))
            self.cross_out = linear_of(weights, f"{name}_a_lin", bias=False)
        self.inner, self.outer = linear_of(weights, f"{name}_ff1"), linear_of(weights, f"{name}_ff2")

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None, encoder: torch.Tensor | None, seen: torch.Tensor | None
    ) -> torch.Tensor:
        """(B, T, F) -> the same. Bool: `mask`, the own frames seen (None: those before); `seen` of the encoder."""
        qkv = F.linear(self.self_norm(x), self.qkv).unflatten(2, (HEADS, 3 * HEAD)).transpose(1, 2)
        q, k, v = qkv.chunk(3, 3)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        x = x + self.self_out(attended.transpose(1, 2).flatten(2))
        if self.cross:
            q, k, v = self.query(self.cross_norm(x)), self.key(encoder), self.value(encoder)
            attended = F.scaled_dot_product_attention(split_heads(q), split_heads(k), split_heads(v), attn_mask=seen)
            x = x + self.cross_out(attended.transpose(1, 2).flatten(2))
        return x + self.outer(self.inner(self.ff_norm(x)).relu())


class HandWritten(Written):
    """The same model with the same weights."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        inner = {name.removeprefix("output/rec/"): w for name, w in weights.items()}
        inner |= {f"base/{name}": w for name, w in weights.items()}
        self.enc_in = linear_of(weights, "enc_in")
        self.encoder = torch.nn.ModuleList(Block(weights, f"enc{i}", cross=False) for i in range(LAYERS))
        self.decoder = torch.nn.ModuleList(Block(inner, f"dec{i}", cross=True) for i in range(LAYERS))
        self.enc_norm, self.dec_norm = LayerNorm(weights, "encoder"), LayerNorm(inner, "dec")
        self.embedding = torch.nn.Parameter(inner["emb_raw/W"])
        self.output = linear_of(inner, "output_prob")

    def encode(self, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """(B, T, F) -> (B, T, SIZE)"""
        x = self.enc_in(x) + positions(x.shape[1], x.device)
        for block in self.encoder:
            x = block(x, seen, None, None)
        return self.enc_norm(x)

    def decode(self, labels: torch.Tensor, encoder: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Logits (B, N, V) of the labels (B, N), each from the true labels before it."""
        before = F.pad(labels[:, :-1], (1, 0))
        x = F.embedding(before, self.embedding) * math.sqrt(SIZE) + positions(labels.shape[1], labels.device)
        for block in self.decoder:
            x = block(x, None, encoder, seen)
        return self.output(self.dec_norm(x))

    def loss(self, batch: Batch) -> torch.Tensor:
        """Sum of the smoothed cross-entropy over valid labels."""
        data, lengths = self.tensor(batch.data["data"]), self.tensor(batch.lengths["data"])
        seen = frame_mask(lengths, data.shape[1])[:, None, None]
        labels = self.tensor(batch.data["classes"]).long()
        logits = self.decode(labels, self.encode(data, seen), seen)
        behind = ~frame_mask(self.tensor(batch.lengths["classes"]), labels.shape[1])
        wanted = labels.masked_fill(behind, IGNORED).flatten()
        share = SMOOTHING * CLASSES / (CLASSES - 1)  # torch gives the right label a share as well
        logits = logits.flatten(0, 1)
        loss = F.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum", label_smoothing=share)
        return loss - ENTROPY * (~behind).sum()


def main() -> None:
    """Measures and prints."""
    args = arguments("Training speed of a transformer.", rounds=5)
    ours = Ours(config())
    theirs = HandWritten(ours.weights())
    batches = make_batches(sequences(150), BATCH_SIZE)
    compare("transformer", ours.step, torch_step(theirs, theirs.loss, RATE), batches, rounds=args.rounds, goal=1.0)


if __name__ == "__main__":
    main()
