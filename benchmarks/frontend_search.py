"""Beam search frame by frame written with returnn.frontend: ours against the same search in plain torch.

    python benchmarks/frontend_search.py [--rounds 5] [--threads N]

The decoder of `frontend.py` (6 layers of 256 features, 1,000 labels) over 16 encoded sequences of about 60 frames, beam
8, 20 labels. Both must find the same scores. Prints median seconds of the processor of a search of both, in turn, and
the ratio (goal: at most 1.25).
"""

import argparse
import math
import statistics
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from frontend import CLASSES, HEAD, HEADS, SIZE, HandWritten, Model, model_dim, positions, vocab_dim

from returnn_lite import frontend as rf
from returnn_lite.frontend.bridge import rf_module_to_pt_module

BATCH, BEAM, LABELS = 16, 8, 20
TOLERANCE = 1e-3


def by_frontend(model: Model, encoded: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The scores of the beam. Shape: (B, T, F), (B,) -> (B, BEAM)"""
    batch = rf.Dim(BATCH, name="batch")
    time_dim = rf.Dim(rf.convert_to_tensor(lengths, dims=[batch]), name="time")
    source = rf.convert_to_tensor(encoded, dims=[batch, time_dim, model_dim], feature_dim=model_dim)
    encoder = model.decoder.transform_encoder(source, axis=time_dim)
    beam = rf.Dim(1, name="beam")
    state = model.decoder.default_initial_state(batch_dims=[batch, beam])
    labels = rf.constant(0, dims=[batch, beam], sparse_dim=vocab_dim)
    scores = rf.constant(0.0, dims=[batch, beam])
    for i in range(LABELS):
        logits, state = model.decoder(labels, spatial_dim=rf.single_step_dim, state=state, encoder=encoder)
        scores = scores + rf.log_softmax(logits, axis=vocab_dim)
        scores, (parents, labels), beam = rf.top_k(scores, axis=[beam, vocab_dim], k_dim=rf.Dim(BEAM, name=f"beam{i}"))
        state = rf.nested.gather_nested(state, indices=parents)
    found: torch.Tensor = scores.copy_transpose([batch, beam]).raw_tensor
    return found


def by_hand(model: HandWritten, encoded: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The same."""
    frames = encoded.shape[1]
    seen = (torch.arange(frames) < lengths.unsqueeze(1))[:, None, None]
    cross = [layer.kv(encoded).unflatten(2, (HEADS, 2 * HEAD)).transpose(1, 2).chunk(2, 3) for layer in model.decoder]
    labels, scores = torch.zeros(BATCH, 1, dtype=torch.long), torch.zeros(BATCH, 1)
    past = [(torch.zeros(BATCH, 1, HEADS, 0, HEAD), torch.zeros(BATCH, 1, HEADS, 0, HEAD)) for _ in model.decoder]
    for i in range(LABELS):
        beam = labels.shape[1]
        z = F.embedding(labels, model.embedding) * math.sqrt(SIZE) + positions(torch.tensor([i]), last=True)[0]
        for n, layer in enumerate(model.decoder):
            a, b, c = layer.norms
            q, k, v = layer.qkv(a(z)).unflatten(2, (HEADS, 3 * HEAD)).unsqueeze(3).chunk(3, 4)
            past[n] = (torch.cat([past[n][0], k], 3), torch.cat([past[n][1], v], 3))
            y = F.scaled_dot_product_attention(*(x.flatten(0, 1) for x in (q, *past[n])))
            z = z + layer.self_out(y.reshape(BATCH, beam, SIZE))
            q = layer.q(b(z)).unflatten(2, (HEADS, HEAD)).transpose(1, 2)
            y = F.scaled_dot_product_attention(q, *cross[n], seen)
            z = z + layer.cross_out(y.transpose(1, 2).flatten(2))
            z = z + layer.ff(c(z))
        logits = F.linear(model.final_norm(z), model.embedding)
        scores, best = (scores.unsqueeze(2) + logits.log_softmax(2)).flatten(1).topk(BEAM)
        parents, labels = best // CLASSES, best % CLASSES
        rows = torch.arange(BATCH).unsqueeze(1)
        past = [(k[rows, parents], v[rows, parents]) for k, v in past]
    return scores


def main() -> None:
    """Compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rf.select_backend_torch()
    rf.BehaviorVersion.set(24)
    model = Model()
    hand = HandWritten(dict(rf_module_to_pt_module(model).state_dict())).eval()
    rng = np.random.RandomState(1)
    encoded = torch.from_numpy(rng.normal(size=(BATCH, 70, SIZE)).astype("float32"))
    lengths = torch.from_numpy(np.array([70, *rng.randint(50, 71, BATCH - 1)], "int32"))
    times: dict[bool, list[float]] = {True: [], False: []}
    with torch.no_grad(), rf.RunContext("forward_step").running():
        a, b = by_frontend(model, encoded, lengths), by_hand(hand, encoded, lengths)
        if (a - b).abs().max() > TOLERANCE * b.abs().max():
            sys.exit(f"the scores differ: ours {a[0].tolist()}, by hand {b[0].tolist()}")
        for i in range(args.rounds):
            for ours in (True, False) if i % 2 else (False, True):
                start = time.process_time()
                _ = by_frontend(model, encoded, lengths) if ours else by_hand(hand, encoded, lengths)
                times[ours].append(time.process_time() - start)
    mine, theirs = (statistics.median(times[ours]) for ours in (True, False))
    ratio = statistics.median(x / y for x, y in zip(times[True], times[False], strict=True))
    print(f"beam {BEAM}: ours {mine:.3f} s, by hand {theirs:.3f} s, ratio {ratio:.3f} (median of the rounds')")


if __name__ == "__main__":
    main()
