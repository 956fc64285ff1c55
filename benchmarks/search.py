"""Beam search with an attention model: ours against a hand-written batched search of the same model in torch.

    python benchmarks/search.py [--rounds 5] [--threads N]

The model of `train_attention.py`, 100 sequences, about 20 of them a batch; beam 8, then greedily (beam 1). In the
hand-written search all that depends on the frames alone is computed once, and the states follow their hypotheses by one
gather each. Labels, lengths and scores of all hypotheses must be equal. Prints median seconds of both for all
sequences and the ratio (goals: at most 0.75; greedy 1.1).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from common import CPU, TOLERANCE, Batch, Ours, arguments, in_turn, make_batches
from train_attention import BATCH_SIZE, DECODER, UNITS, HandWritten, config, sequences

from returnn_lite.config import Config
from returnn_lite.engine.models.network_source import build_network
from returnn_lite.engine.step import forward_batch
from returnn_lite.log import Log

BEAM, SEQUENCES, LONGEST = 8, 100, 50
END = 0


@dataclass
class Found:
    """The hypotheses of a batch: labels (N, B * K), lengths (B * K,), scores (B, K)."""

    labels: torch.Tensor
    lengths: torch.Tensor
    scores: torch.Tensor


class HandWrittenSearch(HandWritten):
    """The beam search by hand."""

    def search(self, batch: Batch, beam: int) -> Found:
        """The best `beam` hypotheses of each sequence."""
        frames = torch.from_numpy(batch.lengths["data"]).long()
        encoder, valid = self.encode(torch.from_numpy(batch.data["data"]), frames)
        keys, count, size = self.keys(encoder).unsqueeze(1), len(encoder), 1
        weight = torch.cat([self.from_label, self.from_context, self.from_state])
        behind = ~valid.unsqueeze(1)  # (B, 1, T)
        label = encoder.new_zeros(count, UNITS)  # embedded
        context, state, cell = encoder.new_zeros(count, 2 * UNITS), label, label
        seen = encoder.new_zeros(count, 1, encoder.shape[1])
        scores, ended = encoder.new_zeros(count, 1), torch.zeros(count, 1, dtype=torch.bool)
        lengths = torch.zeros(count, 1, dtype=torch.int32)
        first = torch.arange(count).unsqueeze(1)
        chosen, sources = [], []
        for tick in range(LONGEST):
            i, j, f, o = torch.addmm(self.bias, torch.cat([label, context, state], 1), weight).chunk(4, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * j.tanh()
            state = o.sigmoid() * cell.tanh()
            query = self.query(state).view(count, size, 1, UNITS)
            energy = self.energy((keys + seen.unsqueeze(3) * self.feedback + query).tanh()).squeeze(3)
            weights = energy.masked_fill(behind, float("-inf")).softmax(2)  # (B, K, T)
            seen = seen + 0.5 * weights
            context = torch.bmm(weights, encoder).flatten(0, 1)
            readout = self.readout(torch.cat([state, label, context], 1)).unflatten(1, (-1, 2)).amax(2)
            probs = self.output(readout).log_softmax(1).view(count, size, -1)
            scores, best, source = self.chosen(probs, scores, ended, tick, beam)
            rows = (first * size + source).flatten()
            state, cell, context = (x.index_select(0, rows) for x in (state, cell, context))
            seen = seen.flatten(0, 1).index_select(0, rows).view(count, beam, -1)
            ended = ended.gather(1, source) | (best == END)
            lengths = lengths.gather(1, source) + ~ended
            label = self.embedding[best.flatten()]
            chosen.append(best.flatten())
            sources.append(rows)
            size = beam
            if bool(ended.all()):
                break
        longest = int(lengths.max())
        return Found(followed(chosen, sources)[:longest], lengths.flatten(), scores / (longest + 1))

    def chosen(
        self, probs: torch.Tensor, scores: torch.Tensor, ended: torch.Tensor, tick: int, beam: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Scores, labels and former hypotheses (B, K) of the best continuations, whose log probabilities are (B, K, V).

        Those of ended hypotheses grow with the length.
        """
        only_end = probs.new_full((probs.shape[2],), -1e30)
        only_end[END] = 0.0
        if tick > 0:
            scores = torch.where(ended, scores * ((tick + 1) / tick), scores)
        total = torch.where(ended.unsqueeze(2), only_end, probs) + scores.unsqueeze(2)
        best, index = total.flatten(1).topk(beam, 1)
        return best, index % probs.shape[2], index // probs.shape[2]


def followed(labels: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> torch.Tensor:
    """The labels (N, B * K) of the final hypotheses, from those of each tick and the rows that they extend."""
    rows = torch.arange(len(labels[-1]))
    found = []
    for chosen, source in zip(reversed(labels), reversed(sources), strict=True):
        found.append(chosen[rows])
        rows = source[rows]
    return torch.stack(found[::-1])


def our_search(weights: dict[str, torch.Tensor], beam: int) -> Callable[[Batch], Found]:
    """The search of the engine, with these parameters."""
    options = config()
    options["network"]["output"]["unit"] = {**DECODER, "output": {**DECODER["output"], "beam_size": beam}}
    options["network"]["output"]["max_seq_len"] = LONGEST
    net = build_network(
        Config(options), options["network"], epoch=1, device=CPU, log=Log.silent(), search=True, eval=False
    ).eval()
    with torch.no_grad():
        for name, param in net.params.items():
            param.copy_(weights[name])

    def search(batch: Batch) -> Found:
        output = forward_batch(net, batch, CPU)["output"]
        return Found(output.data, output.length(output.spec.dims[0]).values, output.beam.scores)

    return search


def spread(weights: dict[str, torch.Tensor], end: float) -> dict[str, torch.Tensor]:
    """The random weights with labels that differ as if trained; `end` is the bias of the label that ends hypotheses."""
    out = {name: w.clone() for name, w in weights.items()}
    for name in ("output_prob/W", "readout_in/W", "embedding/W", "query/W", "state/rec/lstm_cell/kernel"):
        out[f"output/rec/{name}"] *= 4.0
    out["output/rec/output_prob/b"][END] += end
    return out


def check(ours: Found, theirs: Found) -> None:
    """Exits unless both found the same."""
    valid = torch.arange(len(theirs.labels)).unsqueeze(1) < theirs.lengths
    same = ours.labels.shape == theirs.labels.shape and torch.equal(ours.labels * valid, theirs.labels.int() * valid)
    close = torch.allclose(ours.scores, theirs.scores, rtol=TOLERANCE)
    if not (same and close and torch.equal(ours.lengths, theirs.lengths)):
        raise SystemExit(f"the hypotheses must be equal, but are {ours} (ours) and {theirs} (hand-written)")


def main() -> None:
    """Measures and prints."""
    args = arguments("Beam search with an attention model.", rounds=5)
    random = Ours(config()).weights()
    batches = make_batches(sequences(SEQUENCES), BATCH_SIZE)
    for beam, end, name, goal in ((BEAM, 5.0, f"beam {BEAM}", 0.75), (1, 0.0, "greedy", 1.1)):
        weights = spread(random, end)
        with torch.no_grad():
            ours, theirs = our_search(weights, beam), HandWrittenSearch(weights).eval()
            found = [(ours(batch), theirs.search(batch, beam)) for batch in batches]
            for pair in found:
                check(*pair)
            by_hand = partial(theirs.search, beam=beam)
            times = in_turn(ours, by_hand, batches, args.rounds)
        lengths = torch.cat([mine.lengths for mine, _ in found])
        print(f"{name}: {len(lengths)} equal hypotheses of {int(lengths.min())} to {int(lengths.max())} labels")
        print("ours {:.3f} s, hand-written {:.3f} s, ratio {:.3f} (goal: at most {})".format(*times, goal))


if __name__ == "__main__":
    main()
