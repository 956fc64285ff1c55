"""Prefix beam search over CTC outputs, of a whole batch at a time.

Graves & Jaitly, Towards end-to-end speech recognition with recurrent neural networks, 2014; Hannun et al., First-pass
large vocabulary continuous speech recognition using bi-directional recurrent DNNs, 2014.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from returnn_lite.ops.masked import pack

# Of a linear congruential generator (Knuth): prefixes are told apart by numbers of 64 bits.
FACTOR, SHIFT = 6364136223846793005, 1442695040888963407


@dataclass(frozen=True)
class Hypotheses:
    """The best label sequences of a batch, best first. `labels` (B, K, N) int32, 0 after the end, `lengths` (B, K)
    int32, `scores` (B, K): natural logarithms, -inf where there are fewer than K.
    """

    labels: Tensor
    lengths: Tensor
    scores: Tensor


@dataclass
class _Beam:
    """The prefixes after some frames, each (B, K). `in_blank`, `in_label`: log sums of the alignments that end in blank
    and in the last label; `extra`: what length and language model give; `last`: the last label, -1 for none; `key`,
    `parent`: numbers of the prefix, and of that without its last label.
    """

    in_blank: Tensor
    in_label: Tensor
    extra: Tensor
    last: Tensor
    key: Tensor
    parent: Tensor

    @classmethod
    def empty(cls, batch: int, size: int, like: Tensor) -> _Beam:
        """The empty prefix alone."""
        never = like.new_full((batch, size), -torch.inf)
        in_blank = never.clone()
        in_blank[:, 0] = 0
        number = torch.zeros(batch, size, dtype=torch.int64, device=like.device)
        return cls(in_blank, never, torch.zeros_like(never), number - 1, number, number)

    def where(self, condition: Tensor, other: _Beam) -> _Beam:
        """This one for the sequences (B, 1) where the condition holds, else the other."""
        pairs = ((vars(self)[name], vars(other)[name]) for name in vars(self))
        return _Beam(*(torch.where(condition, own, their) for own, their in pairs))


@dataclass(frozen=True)
class _Pairs:
    """The continuations that may be among the best: prefix (P,) by its rank, label (P,) by its rank in the frame.
    `place` (K, C + 1): which of them each pair is, P for none.
    """

    prefix: Tensor
    label: Tensor
    place: Tensor

    @classmethod
    def of(cls, size: int, number: int, device: torch.device, *, every: bool) -> _Pairs:
        """All pairs, or those (k, c) from 0 on with (k + 1) c <= K.

        Every other has K better ones: prefixes and labels that rank no lower give (k + 1) (c + 1), of which k + 1 count
        less because the label is the prefix's last one.
        """
        ranks, labels = torch.arange(size)[:, None], torch.arange(number)
        wanted = ((ranks + 1) * labels <= size) | every
        prefix, label = wanted.nonzero(as_tuple=True)
        place = torch.full((size, number + 1), len(prefix))
        place[prefix, label] = torch.arange(len(prefix))
        return cls(prefix.to(device), label.to(device), place.to(device))


def ctc_beam_search(
    log_probs: Tensor,
    lengths: Tensor,
    *,
    blank: int = -1,
    beam_size: int,
    length_bonus: float = 0.0,
    transitions: Tensor | None = None,
) -> Hypotheses:
    """The label sequences of which the alignments have the largest sums.  Shape: (B, T, V), (B,) -> (B, beam_size, N)

    `length_bonus` is added for each label, and `transitions` (V + 1, V): row 0 for the first label, row i + 1 for a
    label behind label i. Both count in the scores. A device is waited for once, in the end.
    """
    batch, frames, classes = log_probs.shape
    blank %= classes
    lengths = lengths.to(log_probs.device)
    if transitions is not None or length_bonus:
        table = log_probs.new_zeros(classes + 1, classes) if transitions is None else transitions
        transitions = table + length_bonus
    every = transitions is not None  # else a label ranks by the frame alone
    number = classes - 1 if every else min(classes - 1, beam_size + 1)
    pairs = _Pairs.of(beam_size, number, log_probs.device, every=every)
    beam = _Beam.empty(batch, beam_size, log_probs)
    same = torch.arange(beam_size, device=log_probs.device)
    steps = []
    for t in range(frames):
        after, slots, labels = _step(beam, log_probs[:, t], blank, pairs, transitions)
        active = (t < lengths)[:, None]
        beam = after.where(active, beam)
        steps.append((torch.where(active, slots, same), labels, active))
    scores = torch.logaddexp(beam.in_blank, beam.in_label) + beam.extra
    return Hypotheses(*_trace(steps, batch, beam_size, log_probs.device), scores)


def _step(
    beam: _Beam, frame: Tensor, blank: int, pairs: _Pairs, transitions: Tensor | None
) -> tuple[_Beam, Tensor, Tensor]:
    """The beam after one more frame (B, V); which prefix each came from, and the label it got, -1 for none: (B, K)."""
    size, number = beam.last.shape[1], pairs.place.shape[1] - 1
    labels_only = frame.clone()
    labels_only[:, blank] = -torch.inf
    values, labels = labels_only.topk(number, 1)  # (B, C)
    total = torch.logaddexp(beam.in_blank, beam.in_label)
    # A label equal to the last one begins anew only behind a blank.
    pair_labels = labels[:, pairs.label]
    again = beam.last[:, pairs.prefix] == pair_labels
    before = torch.where(again, beam.in_blank[:, pairs.prefix], total[:, pairs.prefix])
    longer = before + values[:, pairs.label]  # (B, P)
    stay_blank = total + frame[:, blank, None]
    stay_label, longer = _merged(beam, total, frame, labels, longer, pairs)
    gain = beam.extra[:, pairs.prefix]
    if transitions is not None:
        gain = gain + transitions[beam.last[:, pairs.prefix] + 1, pair_labels]
    stay = torch.logaddexp(stay_blank, stay_label)
    ranked = torch.cat([stay + beam.extra, longer + gain], 1)
    chosen = ranked.topk(size, 1).indices
    is_stay, place = chosen < size, (chosen - size).clamp(min=0)
    slots = torch.where(is_stay, chosen, pairs.prefix[place])
    new = pair_labels.gather(1, place)

    def either(kept: Tensor, grown: Tensor) -> Tensor:
        return torch.where(is_stay, kept.gather(1, slots), grown)

    key = beam.key.gather(1, slots)
    after = _Beam(
        in_blank=stay_blank.gather(1, slots).masked_fill(~is_stay, -torch.inf),
        in_label=either(stay_label, longer.gather(1, place)),
        extra=either(beam.extra, gain.gather(1, place)),
        last=either(beam.last, new),
        key=torch.where(is_stay, key, key * FACTOR + (new + SHIFT)),
        parent=either(beam.parent, key),
    )
    return after, slots, new.masked_fill(is_stay, -1)


def _merged(
    beam: _Beam, total: Tensor, frame: Tensor, labels: Tensor, longer: Tensor, pairs: _Pairs
) -> tuple[Tensor, Tensor]:
    """Log sums of the prefixes that end in their last label, and the continuations without those that are such a
    prefix: what leads to it is added there.
    """
    last = beam.last.clamp(min=0)
    at_last = frame.gather(1, last)
    stay = (beam.in_label + at_last).masked_fill(beam.last < 0, -torch.inf)
    has_parent, above = _parents(beam, total > -torch.inf)
    before = torch.where(last == beam.last.gather(1, above), beam.in_blank.gather(1, above), total.gather(1, above))
    stay = torch.where(has_parent, torch.logaddexp(stay, before + at_last), stay)
    ranks = torch.full_like(frame, labels.shape[1], dtype=torch.int64)
    ranks.scatter_(1, labels, torch.arange(labels.shape[1], device=frame.device).expand_as(labels))
    gone = pairs.place[above, ranks.gather(1, last)].masked_fill(~has_parent, longer.shape[1])
    padded = torch.nn.functional.pad(longer, (0, 1)).scatter(1, gone, -torch.inf)  # the last column is cut off
    return stay, padded[:, :-1]


def _parents(beam: _Beam, possible: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the prefix without its last label is in the beam, too, and where.  Shape: (B, K), (B, K)"""
    size = beam.key.shape[1]
    nobody = torch.arange(-2, -2 - size, -1, device=beam.key.device)
    keys, order = torch.where(possible, beam.key, nobody).sort(1)
    at = torch.searchsorted(keys, beam.parent).clamp(max=size - 1)
    found = (keys.gather(1, at) == beam.parent) & possible & (beam.last >= 0)
    return found, order.gather(1, at)


def _trace(
    steps: list[tuple[Tensor, Tensor, Tensor]], batch: int, size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The labels of each prefix and their numbers, by the way that it came."""
    at, found = torch.arange(size, device=device).expand(batch, -1), []
    for slots, labels, active in reversed(steps):
        found.append(labels.gather(1, at).masked_fill(~active, -1))
        at = slots.gather(1, at)
    if not found:
        empty = torch.zeros(batch, size, 0, dtype=torch.int32, device=device)
        return empty, torch.zeros(batch, size, dtype=torch.int32, device=device)
    rows = torch.stack(found[::-1], -1).flatten(0, 1).to(torch.int32)
    packed, lengths = pack(rows, rows >= 0)
    return packed.unflatten(0, (batch, size)), lengths.unflatten(0, (batch, size))
