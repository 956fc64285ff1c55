"""`ctc_decode`: label sequences out of frame-wise scores."""

from __future__ import annotations

import torch

from returnn_lite.config.option_types import PositiveInt
from returnn_lite.errors import did_you_mean
from returnn_lite.layers.core.base import LayerRef
from returnn_lite.layers.core.registry import layer
from returnn_lite.ops.ctc import NEVER
from returnn_lite.ops.ctc_beam import Hypotheses, ctc_beam_search
from returnn_lite.ops.ctc_decode import greedy_decode
from returnn_lite.rec.alignment import Alignment
from returnn_lite.tensor import Beam, Dim, Lengths, Spec, Tensor, batch_dim
from returnn_lite.tensor.dim import SPATIAL
from returnn_lite.tensor.spec import vector

_INPUT_TYPES = ("prob", "log_prob", "logits")


@layer("ctc_decode")
class CTCDecode(Alignment):
    """The labels of frame-wise scores: equal neighbours merged, blanks dropped.  Shape: (B, T, V) -> (B, N) labels

    With `beam_size` 1 the best class of each frame counts; else a prefix beam search finds the labels whose alignments
    have the largest sum. `blank_index`: negative ones count from the end; None: there is no blank, as for frame-wise
    classes, and `beam_size` must be 1. `input_type`: "prob", "log_prob" or "logits". For the beam search,
    `length_bonus` is added to the log score for each label, and `lm_scale` times the output of the layer `lm` without
    batch axis, log scores of a label given the previous one: (V,), the same after all, or (V + 1, V), row 0 for the
    first label and row i + 1 after label i. The part "scores" (B,) has the natural log of the score. With `keep_beams`
    all hypotheses are kept, as after a `choice`: (B * beam_size, N). Classes are those without the blank if it is the
    last one; a `target` provides their names.
    """

    def __init__(
        self,
        *,
        beam_size: PositiveInt = 1,
        blank_index: int | None = -1,
        input_type: str = "prob",
        merge_repeated: bool = True,
        length_bonus: float = 0.0,
        lm: LayerRef | None = None,
        lm_scale: float = 1.0,
        keep_beams: bool = False,
    ) -> None:
        super().__init__()
        if input_type not in _INPUT_TYPES:
            hint = did_you_mean(str(input_type), _INPUT_TYPES)
            raise self.error(f"`input_type` must be one of {', '.join(_INPUT_TYPES)}, but is {input_type!r}{hint}")
        searches = beam_size > 1 or keep_beams
        if searches and (blank_index is None or not merge_repeated):
            raise self.error("`beam_size` must be 1 without a blank, and without `merge_repeated`")
        if not searches and (lm is not None or length_bonus):
            raise self.error("`lm` and `length_bonus` need a `beam_size` above 1")
        self.beam_size, self.searches, self.keep_beams = beam_size, searches, keep_beams
        self.blank_index, self.input_type, self.merge_repeated = blank_index, input_type, merge_repeated
        self.length_bonus, self.lm, self.lm_scale = length_bonus, lm, lm_scale

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """Labels."""
        x = sources[0]
        if x is None:
            return None
        self.check_scores(x)
        self._check_lm(refs.get("lm"), x.dim or 0)
        dim = self.axis_dim(self.options.out_dim, self.dim("labels", None, SPATIAL))
        return Spec((batch_dim, dim), "int32", sparse_dim=self._classes(x), time=1, feature=None)

    def _classes(self, x: Spec) -> Dim:
        """The axis of the labels: without the blank where that is the last class."""
        size, blank = x.dim or 0, self.blank_index
        if blank is not None and not -size <= blank < size:
            raise self.error(f"`blank_index` must be one of the {size} classes, but is {blank}")
        if blank is not None and blank % size == size - 1:
            return self.dim("classes", size - 1)
        return x.feature_dim or self.dim("classes", size)

    def _check_lm(self, lm: Spec | None, size: int) -> None:
        if lm is None:
            return
        shape = tuple(dim.size for dim in lm.dims)
        if shape not in ((size,), (size + 1, size)):
            raise self.error(f"`lm` must be of shape ({size},) or ({size + 1}, {size}), but is {lm} instead")

    def part_spec(self, part: str) -> Spec | None:
        """The scores, (B,)."""
        return vector() if part == "scores" else None

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """Labels and scores."""
        x = sources[0]
        values, lengths = self._log_probs(x)
        spec = self.made_spec(x.spec, **{name: ref.spec for name, ref in refs.items()})
        if not self.searches:
            blank = self.blank_index
            labels, sizes = greedy_decode(values, lengths, blank=blank, merge_repeated=self.merge_repeated)
            return self._output(x, spec, labels, sizes, self._best_scores(values, lengths))
        found = ctc_beam_search(
            values.detach().nan_to_num(nan=NEVER, neginf=NEVER),
            lengths,
            blank=self.blank_index if self.blank_index is not None else -1,
            beam_size=self.beam_size,
            length_bonus=self.length_bonus,
            transitions=self._transitions(refs.get("lm"), values.shape[2]),
        )
        if self.keep_beams:
            return self._with_beam(x, spec, found)
        return self._output(x, spec, found.labels[:, 0], found.lengths[:, 0], found.scores[:, 0])

    def _log_probs(self, x: Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.input_type == "logits":
            values, lengths = self.frames(x)
            return values.float().log_softmax(-1), lengths
        return self.log_scores(x, self.input_type)

    def _best_scores(self, values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The log probability of the best class of each frame, summed. Shape: (B, T, V), (B,) -> (B,)"""
        frames = torch.arange(values.shape[1], device=values.device)
        return values.amax(-1).masked_fill(frames >= lengths.to(values.device)[:, None], 0.0).sum(1)

    def _transitions(self, lm: Tensor | None, classes: int) -> torch.Tensor | None:
        if lm is None:
            return None
        return (lm.data.float() * self.lm_scale).expand(classes + 1, classes)

    def _output(self, x: Tensor, spec: Spec, labels: torch.Tensor, sizes: torch.Tensor, scores: torch.Tensor) -> Tensor:
        known = x.with_lengths({spec.dims[1]: Lengths(sizes, labels.shape[1])})
        return known.with_data(labels, spec, zero_padded=True, parts={"scores": x.with_data(scores, vector())})

    def _with_beam(self, x: Tensor, spec: Spec, found: Hypotheses) -> Tensor:
        batch, size = found.scores.shape
        rows = torch.arange(batch, device=found.scores.device).repeat_interleave(size)
        beam = Beam(size, found.scores, rows, x.beam)
        labels = found.labels.flatten(0, 1)
        lengths = {spec.dims[1]: Lengths(found.lengths.flatten(), labels.shape[1])}
        scores = Tensor(found.scores.flatten(), vector(), {}, beam)
        return Tensor(labels, spec, lengths, beam, zero_padded=True, parts={"scores": scores})
