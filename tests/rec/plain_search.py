"""Beam search, hypothesis by hypothesis: what the loop is held against."""

import math
from dataclasses import dataclass

HUGE = -1e30


@dataclass
class Hypothesis:
    """A partial sequence: `labels`, log score, length counted by the loop, whether it has ended, its last parent."""

    labels: tuple = ()
    score: float = 0.0
    length: int = 0
    ended: bool = False
    parent: int = 0


@dataclass
class Options:
    """The options of a choice and of its loop; `target`: labels for cheating, which also fix the number of ticks."""

    beam: int = 3
    length_normalization: bool = True
    exponent: float = 1.0
    prob_scale: float = 1.0
    base_scale: float = 1.0
    keep_beams: bool = False
    include_eos: bool = False
    max_len: int = 6
    cheating: object = False
    target: tuple = ()
    ticks: int | None = None  # known number of ticks: nothing ends by itself
    end: int | None = None  # with known ticks: the length of this sequence


def continuations(hypotheses, log_prob, tick, opts):
    """[(score, k, label)] of all continuations in flat order."""
    found = []
    for k, hyp in enumerate(hypotheses):
        ended = hyp.ended
        if opts.ticks is not None:
            ended = tick >= opts.end + (0 if opts.include_eos else 1)
        base = hyp.score
        if ended and opts.length_normalization and tick > 0:
            base *= ((tick + 1) / tick) ** opts.exponent
        for label, value in enumerate(log_prob(hyp.labels, tick)):
            new = (0.0 if label == 0 else HUGE) if ended else value
            found.append((opts.prob_scale * new + opts.base_scale * base, k, label))
    return found


def best(found, opts, beams):
    """The continuations that stay, best first."""
    ranked = sorted(found, key=lambda c: -c[0])  # stable: of equal ones the first
    if opts.keep_beams:
        each = opts.beam // beams
        ranked = [c for k in range(beams) for c in [r for r in ranked if r[1] == k][:each]]
    ranked = ranked[: opts.beam]
    return ranked + [(-math.inf, 0, 0)] * (opts.beam - len(ranked))


def with_target(found, opts, tick, beams):
    """The picked continuations, the last one replaced by the target's."""
    label = opts.target[tick] if tick < len(opts.target) else 0
    gold = next(c for c in found if c[1] == beams - 1 and c[2] == label)
    if opts.cheating == "exclusive":
        found = [(-math.inf, *c[1:]) if c == gold else c for c in found]
    return [*best(found, opts, beams)[:-1], gold]


def advance(hypotheses, log_prob, tick, opts):
    """One tick of one sequence."""
    found = continuations(hypotheses, log_prob, tick, opts)
    picked = with_target(found, opts, tick, len(hypotheses)) if opts.cheating else best(found, opts, len(hypotheses))
    new = []
    for score, k, label in picked:
        old = hypotheses[k]
        ended = old.ended or label == 0
        counts = not old.ended if opts.include_eos else not ended
        new.append(Hypothesis((*old.labels, label), score, old.length + counts, ended, k))
    return new


def search(log_probs, opts):
    """The final hypotheses of each sequence of a batch, scores normalised. `log_probs[b](labels, tick)` -> list.

    `opts`: one for each sequence.
    """
    state = [[Hypothesis()] for _ in log_probs]
    for tick in range(opts[0].ticks if opts[0].ticks is not None else opts[0].max_len):
        state = [advance(s, f, tick, o) for s, f, o in zip(state, log_probs, opts, strict=True)]
        if opts[0].ticks is None and all(h.ended for s in state for h in s):
            break
    for hyps, o in zip(state, opts, strict=True):
        for h in hyps:
            h.length = h.length if o.ticks is None else o.end
    if opts[0].length_normalization:
        longest = max(h.length for s in state for h in s) + (0 if opts[0].include_eos else 1)
        for h in (h for s in state for h in s):
            h.score /= longest
    return state
