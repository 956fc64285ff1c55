"""Label sequences out of CTC outputs: greedy, and the prefix beam search of TensorFlow's decoder."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from returnn_lite.ops.ctc import NEVER
from returnn_lite.ops.masked import frame_mask, pack

Array = NDArray[np.float32]


def greedy_decode(
    scores: Tensor, lengths: Tensor, *, blank: int = -1, merge_repeated: bool = True
) -> tuple[Tensor, Tensor]:
    """The best class of each frame, equal neighbours merged, blanks dropped. Shape: (B, T, V), (B,) -> (B, N), (B,)

    `scores`: anything that grows with the probability. Both results are int32; labels behind the end are 0.
    """
    blank %= scores.shape[2]
    best = scores.argmax(-1).to(torch.int32)
    keep = (best != blank) & frame_mask(lengths.to(best.device), best.shape[1])
    if merge_repeated:
        keep[:, 1:] &= best[:, 1:] != best[:, :-1]
    return pack(best, keep)


def beam_search_decode(
    logits: Tensor, lengths: Tensor, *, blank: int = -1, beam_width: int = 100, merge_repeated: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The most probable label sequence that a prefix beam search finds.

    Shape: (B, T, V), (B,) -> labels (B, N) int32 with 0 behind the end, their lengths (B,) int32, log scores (B,).
    `merge_repeated` merges equal neighbours of the result.
    """
    log_probs = logits.detach().float().log_softmax(-1).nan_to_num(nan=NEVER, neginf=NEVER).cpu().numpy()
    found = [
        _search(seq[:length], blank % logits.shape[2], beam_width)
        for seq, length in zip(log_probs, lengths.tolist(), strict=True)
    ]
    labels = [_without_repetitions(seq) if merge_repeated else seq for seq, _ in found]
    longest = max((len(seq) for seq in labels), default=0)
    padded = [seq + [0] * (longest - len(seq)) for seq in labels]
    device = logits.device
    return (
        torch.tensor(padded, dtype=torch.int32, device=device).reshape(len(labels), longest),
        torch.tensor([len(seq) for seq in labels], dtype=torch.int32, device=device),
        torch.tensor([score for _, score in found], dtype=torch.float32, device=device),
    )


def _without_repetitions(labels: list[int]) -> list[int]:
    return [label for index, label in enumerate(labels) if index == 0 or label != labels[index - 1]]


class _Prefixes:
    """The tree of all label sequences met. Node 0 is the empty one; its label, -1, equals no class."""

    def __init__(self) -> None:
        self.parents = [0]
        self.labels = [-1]
        self.nodes: dict[tuple[int, int], int] = {}

    def child(self, parent: int, label: int) -> int:
        """The node of the sequence `parent` + [label]."""
        node = self.nodes.setdefault((parent, label), len(self.labels))
        if node == len(self.labels):
            self.parents.append(parent)
            self.labels.append(label)
        return node

    def sequence(self, node: int) -> list[int]:
        """The labels from the root to the node."""
        labels = []
        while node:
            labels.append(self.labels[node])
            node = self.parents[node]
        return labels[::-1]


def _search(log_probs: Array, blank: int, beam_width: int) -> tuple[list[int], float]:
    """Prefix beam search of one sequence. Shape: (T, V)

    A prefix has two scores: of the alignments that end in blank, and of those that end in its last label.
    """
    prefixes = _Prefixes()
    beam = np.zeros(1, dtype=np.int64)  # nodes, best first
    in_blank = np.zeros(1, dtype=log_probs.dtype)
    in_label = np.full(1, -np.inf, dtype=log_probs.dtype)
    for frame in log_probs:
        last = np.array([prefixes.labels[node] for node in beam])
        total = np.logaddexp(in_blank, in_label)
        # A label equal to the last one starts anew only behind a blank.
        extended = total[:, None] + frame
        rows = np.flatnonzero(last >= 0)
        extended[rows, last[rows]] = in_blank[rows] + frame[last[rows]]
        extended[:, blank] = -np.inf
        stay_blank = total + frame[blank]
        stay_label = np.where(last >= 0, in_label + frame[last], -np.inf)
        _merge(prefixes, beam, last, extended, stay_label)
        stay = np.logaddexp(stay_blank, stay_label)
        scores = np.concatenate([stay, extended.reshape(-1)])
        chosen = _best(scores, beam_width)
        stays = chosen < len(beam)
        parent, label = np.divmod(chosen - len(beam), len(frame))
        nodes = [
            int(beam[index]) if kept else prefixes.child(int(beam[above]), int(new))
            for index, kept, above, new in zip(chosen, stays, parent, label, strict=True)
        ]
        own = np.where(stays, chosen, 0)
        in_blank = np.where(stays, stay_blank[own], -np.inf)
        in_label = np.where(stays, stay_label[own], scores[chosen])
        beam = np.array(nodes)
    return prefixes.sequence(int(beam[0])), float(np.logaddexp(in_blank[0], in_label[0]))


def _merge(prefixes: _Prefixes, beam: NDArray[np.int64], last: NDArray[np.int64], extended: Array, stay: Array) -> None:
    """Adds the extension of a prefix to the longer prefix that it is, where both are in the beam (in place)."""
    place = {int(node): index for index, node in enumerate(beam)}
    pairs = [
        (place[prefixes.parents[node]], index)
        for node, index in place.items()
        if node and prefixes.parents[node] in place
    ]
    if not pairs:
        return
    above, below = np.array(pairs).T
    stay[below] = np.logaddexp(stay[below], extended[above, last[below]])
    extended[above, last[below]] = -np.inf


def _best(scores: Array, count: int) -> NDArray[np.int64]:
    """Indices of the `count` highest possible scores (at least one), best first."""
    if len(scores) > count:
        indices = np.argpartition(-scores, count - 1)[:count]
    else:
        indices = np.arange(len(scores))
    indices = indices[np.argsort(-scores[indices], kind="stable")]
    possible = indices[scores[indices] > -np.inf]
    return possible if len(possible) else indices[:1]
