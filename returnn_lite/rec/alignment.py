"""Alignments of frames to labels: `ctc_loss`, `fast_bw` (soft), `forced_align` (the best one)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from returnn_lite.config.option_types import NaturalFloat
from returnn_lite.errors import did_you_mean
from returnn_lite.layers.activations import safe_log
from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.losses.ctc import native_ctc_loss, zero_infinity
from returnn_lite.losses.sequence import labels_of
from returnn_lite.ops.ctc import ctc_best_path, ctc_posteriors
from returnn_lite.ops.staircase import staircase_posteriors
from returnn_lite.tensor import Spec, Tensor, batch_dim
from returnn_lite.tensor.align import joined
from returnn_lite.tensor.spec import vector

_INPUT_TYPES = ("log_prob", "prob")


class Alignment(Layer):
    """Base of layers that align the frames of scores (B, T, V) to the labels of another layer."""

    full_precision = True
    recurrent = True
    checks_n_out = False

    def check_scores(self, x: Spec) -> None:
        """ConfigError unless these are frames of scores."""
        if x.batch is None or x.time is None or x.feature is None or x.rank != 3:
            raise self.error(f"the scores must be (B, T, V), but are {x} instead")

    def frames(self, x: Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, V) and the lengths (B,)."""
        spec = x.spec
        if spec.batch is None or spec.time is None or spec.feature is None:
            raise self.error(f"the scores must be (B, T, V), but are {spec} instead")
        dim = spec.dims[spec.time]
        data = x.data.permute(spec.batch, spec.time, spec.feature)
        if dim.dynamic:
            return data, x.length(dim).values
        return data, torch.full((data.shape[0],), data.shape[1], dtype=torch.int32, device=data.device)

    def log_scores(self, x: Tensor, input_type: str) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, V) of natural logarithms and the lengths; exact for what a softmax gave."""
        if input_type == "log_prob":
            return self.frames(x)
        if x.pre is not None and x.pre.activation == "softmax":
            return self.frames(x.with_data(x.pre.data.log_softmax(x.spec.feature or -1)))
        return self.frames(x.with_data(safe_log(x.data)))

    def check_input_type(self, value: str) -> str:
        """The option `input_type`."""
        if value not in _INPUT_TYPES:
            guess = did_you_mean(str(value), _INPUT_TYPES)
            raise self.error(f"`input_type` must be one of {', '.join(_INPUT_TYPES)}, but is {value!r} instead{guess}")
        return value


@layer("ctc_loss")
class CTCLoss(Alignment):
    """-log of the summed probability of all alignments (Graves et al. 2006).

    Shape: (B, T, V), (B, N) -> (B,). `logits` are log probabilities with `logits_normalized`. `blank_index`: negative
    ones count from the end. `label_loop` False: one frame per label. `max_approx`: only the best alignment. The loss of
    a sequence without any is 0 (inf with `max_approx`, but 0 from behavior_version 30 or with the setting
    tf_native_ctc_zero_infinity).
    """

    sources = "none"

    def __init__(
        self,
        *,
        logits: LayerRef,
        targets: LayerRef,
        logits_normalized: bool = False,
        blank_index: int = -1,
        max_approx: bool = False,
        label_loop: bool = True,
    ) -> None:
        super().__init__()
        self.logits = logits
        self.targets = targets
        self.normalized = logits_normalized
        self.blank_index = blank_index
        self.max_approx = max_approx
        self.label_loop = label_loop

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """(B,)"""
        logits, targets = refs["logits"], refs["targets"]
        if logits is None or targets is None:
            return None
        self.check_scores(logits)
        if targets.dim is not None and logits.dim not in (targets.dim, targets.dim + 1):
            raise self.error(f"`logits` must have {targets.dim} or {targets.dim + 1} classes, but have {logits.dim}")
        return vector()

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The loss of each sequence."""
        scores, lengths = self.frames(refs["logits"])
        loss = native_ctc_loss(
            scores, lengths, *labels_of(refs["targets"].batch_major()), logits_normalize=not self.normalized,
            grad_wrt_softmax_in=not self.normalized, label_loop=self.label_loop, blank_index=self.blank_index,
            zero_infinity=zero_infinity(self.context.config, self.behavior), max_approx=self.max_approx,
        )  # fmt: skip
        return joined(loss, vector(), [refs["logits"], refs["targets"]])


@layer("fast_bw")
class FastBaumWelch(Alignment):
    """Soft alignment: the share of each class in each frame.  Shape: (B, T, V) -> (T, B, V), 0 after the end

    `align_target` "ctc": to the labels of the data key `align_target_key`, `ctc_opts` {"blank_idx": (default: the last
    class), "label_loop"}. "staircase": to the states 0, 1, … in this order, as many as the layer
    `staircase_seq_len_source` has frames. The loss `via_layer` reads -log of the total score. Scores are raised to
    log `min_prob`, then times `am_scale`. No gradient.
    """

    def __init__(
        self,
        *,
        align_target: str,
        align_target_key: str | None = None,
        ctc_opts: Mapping[str, Any] | None = None,
        sprint_opts: Any = None,
        input_type: str = "log_prob",
        tdp_scale: float = 1.0,
        am_scale: float = 1.0,
        min_prob: NaturalFloat = 0.0,
        staircase_seq_len_source: LayerRef | None = None,
    ) -> None:
        super().__init__()
        if align_target == "sprint" or sprint_opts:
            raise self.error('`align_target` "sprint" needs an external speech toolkit; use "ctc" or "staircase"')
        if align_target not in ("ctc", "staircase"):
            raise self.error(f'`align_target` must be "ctc" or "staircase", but is {align_target!r} instead')
        if align_target == "ctc" and not align_target_key:
            raise self.error('`align_target` "ctc" needs the option `align_target_key`, a data key')
        self.align_target = align_target
        self.align_target_key = align_target_key
        self.ctc_opts = self._checked(dict(ctc_opts or {}))
        self.input_type = self.check_input_type(input_type)
        self.scales = {"am_scale": am_scale, "min_prob": min_prob}
        self.tdp_scale = tdp_scale
        self.staircase_seq_len_source = staircase_seq_len_source

    def _checked(self, options: dict[str, Any]) -> dict[str, Any]:
        known = ("blank_idx", "label_loop", "ctc_merge_repeated")
        for key in options:
            if key not in known:
                raise self.error(f"`ctc_opts` has no entry {key!r}{did_you_mean(key, known)}")
        return options

    async def link(self, net: Linker, node: Node) -> None:
        """Refers to the labels."""
        if self.align_target == "ctc":
            node.refs["labels"] = await net.data(str(self.align_target_key))

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """Time-major."""
        x, labels = sources[0], refs.get("labels")
        if x is None:
            return None
        self.check_scores(x)
        if labels is not None and labels.dim is not None and x.dim != labels.dim + 1:
            raise self.error(f"the source must have {labels.dim + 1} classes (labels and blank), but has {x.dim}")
        return x.permuted([i for i in (x.time, x.batch, x.feature) if i is not None])

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """The shares; `sequence_loss` is -log of the total score."""
        scores, lengths = self.log_scores(x, self.input_type)
        if self.align_target == "ctc":
            loops = self.ctc_opts.get("label_loop", True) and self.ctc_opts.get("ctc_merge_repeated", True)
            labels, counts = labels_of(refs["labels"].batch_major())
            shares, loss = ctc_posteriors(
                scores, lengths, labels, counts, blank=self.ctc_opts.get("blank_idx", -1), label_loop=bool(loops),
                **self.scales,
            )  # fmt: skip
        else:
            shares, loss = staircase_posteriors(scores, lengths, self._states(scores, refs), **self.scales)
        spec = self.spec(x.spec, **{k: r.spec for k, r in refs.items()})
        return x.with_data(shares.transpose(0, 1), spec, sequence_loss=loss, zero_padded=True)

    def _states(self, scores: torch.Tensor, refs: Mapping[str, Tensor]) -> torch.Tensor:
        """Number of states of each sequence."""
        source = refs.get("staircase_seq_len_source")
        if source is None or source.spec.time_dim is None:
            return torch.full((scores.shape[0],), scores.shape[2], device=scores.device)
        return source.length(source.spec.time_dim).values


@layer("forced_align")
class ForcedAlign(Alignment):
    """The best alignment to the labels of `align_target`: a class per frame, 0 after the end.

    Shape: (B, T, V) -> (T, B). `topology` "ctc", or "rna": one frame per label. `blank_idx` among the V classes
    (negative: from the end); the labels lack the blank unless `blank_included`. Part "scores" (B,): natural log of the
    score; -inf where there is no alignment.
    """

    def __init__(
        self,
        *,
        align_target: LayerRef,
        topology: str,
        input_type: str,
        blank_idx: int = -1,
        blank_included: bool = False,
    ) -> None:
        super().__init__()
        if topology not in ("ctc", "rna"):
            raise self.error(f'`topology` must be "ctc" or "rna", but is {topology!r} instead')
        self.align_target = align_target
        self.label_loop = topology == "ctc"
        self.input_type = self.check_input_type(input_type)
        self.blank_idx = blank_idx
        self.blank_included = blank_included

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """Time-major labels."""
        x, labels = sources[0], refs["align_target"]
        if x is None or labels is None:
            return None
        self.check_scores(x)
        wanted = None if labels.dim is None else labels.dim + (0 if self.blank_included else 1)
        if wanted is not None and x.dim != wanted:
            raise self.error(f"the source must have {wanted} classes for these labels, but has {x.dim}")
        return Spec((x.dims[x.time or 0], batch_dim), "int32", sparse_dim=x.feature_dim, time=0)

    def part_spec(self, part: str) -> Spec | None:
        """The scores, (B,)."""
        return vector() if part == "scores" else None

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """Labels and scores."""
        x, target = sources[0], refs["align_target"]
        values, lengths = self.log_scores(x, self.input_type)
        labels = labels_of(target.batch_major())
        path, scores = ctc_best_path(values, lengths, *labels, blank=self.blank_idx, label_loop=self.label_loop)
        spec = self.spec(x.spec, align_target=target.spec)
        return x.with_data(path.t(), spec, zero_padded=True, parts={"scores": x.with_data(scores, vector())})
