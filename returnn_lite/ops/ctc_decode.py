"""Label sequences out of CTC outputs: greedy, and by the prefix beam search of `ctc_beam`."""

from __future__ import annotations

from torch import Tensor

from returnn_lite.ops.ctc import NEVER
from returnn_lite.ops.ctc_beam import ctc_beam_search
from returnn_lite.ops.masked import frame_mask, pack


def greedy_decode(
    scores: Tensor, lengths: Tensor, *, blank: int | None = -1, merge_repeated: bool = True, trim: bool = True
) -> tuple[Tensor, Tensor]:
    """The best class of each frame, equal neighbours merged, blanks dropped. Shape: (B, T, V), (B,) -> (B, N), (B,)

    `scores`: anything that grows with the probability; `blank` None: no class is dropped. Both results are int32;
    labels behind the end are 0. N is T without `trim`, so that nothing waits to learn it.
    """
    best = scores.argmax(-1).int()
    keep = frame_mask(lengths.to(best.device), best.shape[1])
    if blank is not None:
        keep &= best != blank % scores.shape[2]
    if merge_repeated:
        keep[:, 1:] &= best[:, 1:] != best[:, :-1]
    return pack(best, keep, trim=trim)


def beam_search_decode(
    logits: Tensor, lengths: Tensor, *, blank: int = -1, beam_width: int = 100, merge_repeated: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The most probable label sequence that a prefix beam search finds.

    Shape: (B, T, V), (B,) -> labels (B, N) int32 with 0 after the end, their lengths (B,) int32, log scores (B,).
    `merge_repeated` merges equal neighbours of the result.
    """
    log_probs = logits.detach().float().log_softmax(-1).nan_to_num(nan=NEVER, neginf=NEVER)
    found = ctc_beam_search(log_probs, lengths, blank=blank, beam_size=beam_width)
    labels, label_lengths = found.labels[:, 0], found.lengths[:, 0]
    keep = frame_mask(label_lengths, labels.shape[1])
    if merge_repeated:
        keep[:, 1:] &= labels[:, 1:] != labels[:, :-1]
    return (*pack(labels, keep), found.scores[:, 0])
