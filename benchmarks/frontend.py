"""Training a conformer-transformer written with returnn.frontend: ours against the same net in plain torch.

    python benchmarks/frontend.py [--rounds 5] [--threads N] [--device cuda]

A conformer encoder (12 layers of 256 features, 4 heads, convolutions over 31 frames, input of 80 features, a quarter of
the frames) and a transformer decoder (6 layers of 256 features), 1,000 labels; about 10 labels for 250 frames. Both get
the same batches and weights; a step is forward, backward and Adam. Prints median seconds of a round of steps of both,
in turn, and the ratio (goal: at most 1.15, on a GPU 1.25). On the CPU these are seconds of the processor.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite import frontend as rf  # noqa: E402
from returnn_lite.frontend.bridge import rf_module_to_pt_module  # noqa: E402
from returnn_lite.frontend.decoder.transformer import TransformerDecoder  # noqa: E402
from returnn_lite.frontend.encoder.conformer import (  # noqa: E402
    ConformerConvSubsample,
    ConformerEncoder,
    ConformerEncoderLayer,
)

FEATURES, CLASSES, SIZE, HEADS, INNER, KERNEL = 80, 1000, 256, 4, 1024, 31
ENCODER_LAYERS, DECODER_LAYERS = 12, 6
HEAD, DROPOUT = SIZE // HEADS, 0.1
TOLERANCE = 1e-4  # of the first losses without dropout, relative
Weights = Mapping[str, torch.Tensor]

feature_dim, model_dim, vocab_dim = (
    rf.Dim(FEATURES, name="features"),
    rf.Dim(SIZE, name="model"),
    rf.Dim(CLASSES, name="vocab"),
)


class Model(rf.Module):
    """The model as a user would write it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ConformerEncoder(
            feature_dim,
            model_dim,
            num_layers=ENCODER_LAYERS,
            input_layer=rf.build_dict(
                ConformerConvSubsample, out_dims=[32, 32], filter_sizes=[(3, 3), (3, 3)], strides=[(2, 2), (2, 2)]
            ),
            encoder_layer=rf.build_dict(ConformerEncoderLayer, num_heads=HEADS, conv_kernel_size=KERNEL, ff_dim=INNER),
        )
        self.decoder = TransformerDecoder(
            model_dim, vocab_dim, model_dim, num_layers=DECODER_LAYERS, num_heads=HEADS, ff_dim=INNER
        )

    def __call__(self, x: rf.Tensor, x_time: rf.Dim, y: rf.Tensor, y_time: rf.Dim) -> torch.Tensor:
        """The mean cross-entropy per label."""
        encoded, time_dim = self.encoder(x, in_spatial_dim=x_time)
        encoded = self.decoder.transform_encoder(encoded, axis=time_dim)
        inputs = rf.shift_right(y, axis=y_time, pad_value=0)
        state = self.decoder.default_initial_state(batch_dims=x.remaining_dims([x_time, feature_dim]))
        logits, _ = self.decoder(inputs, spatial_dim=y_time, state=state, encoder=encoded)
        loss = rf.cross_entropy(estimated=logits, target=y, axis=vocab_dim, estimated_type="logits")
        return rf.reduce_mean(loss, axis=loss.dims).raw_tensor


# --- in plain torch ---------------------------------------------------------------------------------------------------


def positions(rows: torch.Tensor, *, last: bool) -> torch.Tensor:
    """Sinusoids (n, SIZE): sines of all rates, then their cosines; the last rate is 1 / 10000, or one step before."""
    half = SIZE // 2
    rates = torch.exp(torch.arange(half, device=rows.device) * (-math.log(1e4) / (half - 1 if last else half)))
    angles = rows.unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def dropped(x: torch.Tensor, training: bool) -> torch.Tensor:
    """One mask for all frames."""
    if not training:
        return x
    return x * (torch.rand(x.shape[-1], device=x.device) + (1 - DROPOUT)).floor_().div_(1 - DROPOUT)


class Part(torch.nn.Module):
    """What has the weights below a prefix."""

    def __init__(self, weights: Weights, prefix: str) -> None:
        super().__init__()
        self.found, self.prefix = weights, prefix

    def linear(self, name: str, *, bias: bool = True) -> torch.nn.Linear:
        """A product."""
        weight = self.found[f"{self.prefix}{name}.weight"]
        made = torch.nn.Linear(*weight.shape, bias=bias)
        with torch.no_grad():
            made.weight.copy_(weight.t())
            if bias:
                made.bias.copy_(self.found[f"{self.prefix}{name}.bias"])
        return made

    def norm(self, name: str) -> torch.nn.LayerNorm:
        """A layer norm."""
        return torch.nn.LayerNorm(SIZE, eps=1e-6)

    def parameter(self, name: str) -> torch.nn.Parameter:
        """A copy of a weight."""
        return torch.nn.Parameter(self.found[f"{self.prefix}{name}"].detach().clone())


class FeedForward(Part):
    """Two products."""

    def __init__(self, weights: Weights, prefix: str, activation: torch.nn.Module) -> None:
        super().__init__(weights, prefix)
        self.inner, self.outer, self.activation = self.linear("linear_ff"), self.linear("linear_out"), activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, F) -> the same"""
        return self.outer(dropped(self.activation(self.inner(x)), self.training))


class RelativeAttention(Part):
    """Self-attention by relative positions."""

    def __init__(self, weights: Weights, prefix: str) -> None:
        super().__init__(weights, prefix)
        self.qkv, self.proj, self.positions = (
            self.linear("qkv"),
            self.linear("proj"),
            self.linear("linear_pos", bias=False),
        )
        self.u, self.v = self.parameter("pos_bias_u"), self.parameter("pos_bias_v")

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None, table: torch.Tensor) -> torch.Tensor:
        """(B, T, F), (B, 1, 1, T) bool, (2T - 1, F) -> (B, T, F)"""
        q, k, v = self.qkv(x).unflatten(2, (HEADS, 3 * HEAD)).transpose(1, 2).chunk(3, 3)
        p = self.positions(table).unflatten(1, (HEADS, HEAD)).permute(1, 2, 0)
        by_key = (q + self.u.unsqueeze(1)) @ k.transpose(2, 3)
        by_position = (q + self.v.unsqueeze(1)) @ p
        frames = x.shape[1]
        shifted = (
            F.pad(by_position, (1, 0)).flatten(2)[..., frames:].unflatten(2, (frames, 2 * frames - 1))[..., :frames]
        )
        energies = (by_key + shifted) * HEAD**-0.5
        if mask is not None:
            energies = energies.masked_fill(~mask, -math.inf)
        weights = F.dropout(energies.softmax(3), DROPOUT, self.training)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class ConformerLayer(Part):
    """One layer."""

    def __init__(self, weights: Weights, prefix: str) -> None:
        super().__init__(weights, prefix)
        self.ff1, self.ff2 = (FeedForward(weights, f"{prefix}ffn{i}.", torch.nn.SiLU()) for i in (1, 2))
        self.attention = RelativeAttention(weights, f"{prefix}self_att.")
        self.norms = torch.nn.ModuleList(self.norm(name) for name in "abcde")
        self.into, self.out = self.linear("conv_block.positionwise_conv1"), self.linear("conv_block.positionwise_conv2")
        self.filter = self.parameter("conv_block.depthwise_conv.filter")
        self.filter_bias = self.parameter("conv_block.depthwise_conv.bias")
        self.batch_norm = torch.nn.BatchNorm1d(SIZE, eps=1e-3)

    def convolution(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, F) -> the same"""
        x = F.glu(self.into(x), 2).transpose(1, 2)
        x = F.conv1d(x, self.filter, self.filter_bias, padding=KERNEL // 2, groups=SIZE)
        return self.out(F.silu(self.batch_norm(x)).transpose(1, 2))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None, table: torch.Tensor) -> torch.Tensor:
        """(B, T, F) -> the same"""
        a, b, c, d, e = self.norms
        x = x + 0.5 * dropped(self.ff1(a(x)), self.training)
        x = x + dropped(self.attention(b(x), mask, table), self.training)
        x = x + dropped(self.convolution(c(x)), self.training)
        x = x + 0.5 * dropped(self.ff2(d(x)), self.training)
        return e(x)


class DecoderLayer(Part):
    """One layer."""

    def __init__(self, weights: Weights, prefix: str) -> None:
        super().__init__(weights, prefix)
        self.qkv, self.self_out = self.linear("self_att.qkv"), self.linear("self_att.proj")
        self.kv, self.q, self.cross_out = (self.linear(f"cross_att.{name}") for name in ("kv", "q", "proj"))
        self.ff = FeedForward(weights, f"{prefix}ff.", torch.nn.ReLU())
        self.norms = torch.nn.ModuleList(self.norm(name) for name in "abc")

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor, encoder: torch.Tensor, seen: torch.Tensor | None
    ) -> torch.Tensor:
        """(B, N, F), (B, 1, N, N) bool, (B, T, F), (B, 1, 1, T) bool -> (B, N, F)"""
        rate = DROPOUT if self.training else 0.0
        a, b, c = self.norms
        q, k, v = self.qkv(a(x)).unflatten(2, (HEADS, 3 * HEAD)).transpose(1, 2).chunk(3, 3)
        y = F.scaled_dot_product_attention(q, k, v, mask, rate)
        x = x + dropped(self.self_out(y.transpose(1, 2).flatten(2)), self.training)
        k, v = self.kv(encoder).unflatten(2, (HEADS, 2 * HEAD)).transpose(1, 2).chunk(2, 3)
        q = self.q(b(x)).unflatten(2, (HEADS, HEAD)).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, seen, rate)
        x = x + dropped(self.cross_out(y.transpose(1, 2).flatten(2)), self.training)
        return x + dropped(self.ff(c(x)), self.training)


class HandWritten(Part):
    """The same model with the same weights."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights, "")
        self.filters = torch.nn.ParameterList(
            self.parameter(f"encoder.input_layer.conv_layers.{i}.{name}") for i in (0, 1) for name in ("filter", "bias")
        )
        self.into = self.linear("encoder.input_projection", bias=False)
        self.encoder = torch.nn.ModuleList(
            ConformerLayer(weights, f"encoder.layers.{i}.") for i in range(ENCODER_LAYERS)
        )
        self.embedding = self.parameter("decoder.input_embedding.weight")
        self.decoder = torch.nn.ModuleList(DecoderLayer(weights, f"decoder.layers.{i}.") for i in range(DECODER_LAYERS))
        self.final_norm = self.norm("")

    def encode(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, F), (B,) -> (B, T / 4, SIZE), (B, T / 4) bool"""
        x = x.unsqueeze(1)
        for i in (0, 2):
            x = F.conv2d(x, self.filters[i], self.filters[i + 1], stride=2, padding=1).relu()
        x = self.into(x.permute(0, 2, 3, 1).flatten(2))
        x = dropped(x, self.training)
        frames = x.shape[1]
        valid = torch.arange(frames, device=x.device) < (-(-lengths // 4)).to(x.device).unsqueeze(1)
        table = positions(torch.arange(1 - frames, frames, device=x.device), last=False)
        for layer in self.encoder:
            x = layer(x, valid[:, None, None], table)
        return x, valid

    def forward(self, x: torch.Tensor, lengths: torch.Tensor, y: torch.Tensor, y_lengths: torch.Tensor) -> torch.Tensor:
        """The mean cross-entropy per label."""
        encoded, seen = self.encode(x, lengths)
        inputs = F.pad(y[:, :-1], (1, 0))
        labels = y.shape[1]
        z = F.embedding(inputs, self.embedding) * math.sqrt(SIZE)
        z = z + positions(torch.arange(labels, device=x.device), last=True)
        z = F.dropout(z, DROPOUT, self.training)
        valid = torch.arange(labels, device=x.device) < y_lengths.to(x.device).unsqueeze(1)
        mask = valid[:, None, None] & torch.ones(labels, labels, dtype=torch.bool, device=x.device).tril()
        for layer in self.decoder:
            z = layer(z, mask, encoded, seen[:, None, None])
        logits = F.linear(self.final_norm(z), self.embedding)
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten().long(), reduction="none").view_as(y)
        return loss.masked_fill(~valid, 0.0).sum() / valid.sum()


# --- both in turn -----------------------------------------------------------------------------------------------------


def batches(count: int, device: str) -> list[dict[str, torch.Tensor]]:
    """Noise: features, labels and their lengths."""
    rng = np.random.RandomState(1)
    found = []
    for _ in range(count):
        lengths, label_lengths = np.sort(rng.randint(150, 301, 16))[::-1], rng.randint(8, 13, 16)
        found.append(
            {
                "x": torch.from_numpy(rng.normal(size=(16, lengths.max(), FEATURES)).astype("float32")).to(device),
                "lengths": torch.from_numpy(lengths.astype("int32")),
                "y": torch.from_numpy(rng.randint(1, CLASSES, (16, label_lengths.max())).astype("int32")).to(device),
                "y_lengths": torch.from_numpy(label_lengths.astype("int32")),
            }
        )
    return found


def of_frontend(model: Model, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The loss of a batch; its axes are new ones, as in each step of a training."""
    size = rf.Dim(len(batch["lengths"]), name="batch")
    x_time, y_time = (
        rf.Dim(rf.convert_to_tensor(batch[key], dims=[size]), name=key) for key in ("lengths", "y_lengths")
    )
    x = rf.convert_to_tensor(batch["x"], dims=[size, x_time, feature_dim], feature_dim=feature_dim)
    y = rf.convert_to_tensor(batch["y"], dims=[size, y_time], sparse_dim=vocab_dim)
    return model(x, x_time, y, y_time)


def main() -> None:
    """Compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="training steps of a round")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rf.select_backend_torch()
    rf.BehaviorVersion.set(24)
    rf.set_default_device(args.device)
    model = Model()
    wrapped = rf_module_to_pt_module(model)
    hand = HandWritten(dict(wrapped.state_dict())).to(args.device)
    data = batches(args.steps, args.device)
    hand.eval()
    with torch.no_grad(), rf.RunContext("train_step", 1, 0, False).running():
        a, b = float(of_frontend(model, data[0])), float(hand(**data[0]))
    if abs(a - b) > TOLERANCE * abs(b):
        sys.exit(f"the losses differ: ours {a}, by hand {b}")
    hand.train()
    optimizers = [torch.optim.Adam(m.parameters(), 1e-4, fused=True) for m in (wrapped, hand)]
    context = rf.RunContext("train_step", 1, 0, True)
    clock = time.process_time if args.device == "cpu" else time.perf_counter

    def steps(ours: bool) -> float:
        start = clock()
        for batch in data:
            with context.running():
                loss = of_frontend(model, batch) if ours else hand(**batch)
            optimizer = optimizers[0 if ours else 1]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if args.device != "cpu":
            torch.cuda.synchronize()
        return clock() - start

    for ours in (True, False):
        steps(ours)  # warm up
    times: dict[bool, list[float]] = {True: [], False: []}
    for i in range(args.rounds):
        for ours in (True, False) if i % 2 else (False, True):
            times[ours].append(steps(ours))
    mine, theirs = (statistics.median(times[ours]) for ours in (True, False))
    ratio = statistics.median(x / y for x, y in zip(times[True], times[False], strict=True))
    print(f"{args.steps} steps: ours {mine:.3f} s, by hand {theirs:.3f} s, ratio {ratio:.3f} (median of the rounds')")


if __name__ == "__main__":
    main()
