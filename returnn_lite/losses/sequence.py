"""Losses over whole sequences: CTC and edit distance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from returnn_lite.config import Config
from returnn_lite.config.option_types import PositiveInt
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.activations import safe_log
from returnn_lite.losses import ctc
from returnn_lite.losses.base import Loss, LossSum, SequenceLoss, loss
from returnn_lite.ops.ctc import collapse_repeated
from returnn_lite.ops.ctc_decode import beam_search_decode, greedy_decode
from returnn_lite.ops.edit_distance import edit_distance
from returnn_lite.ops.kernels import on_gpu
from returnn_lite.tensor import Spec, Tensor

Labels = tuple[torch.Tensor, torch.Tensor]  # (B, N) and lengths (B,)


def labels_of(x: Tensor) -> Labels:
    """The labels (B, N) of a sparse tensor and their lengths; without time axis one label per sequence."""
    if not x.spec.sparse:
        raise ConfigError("loss", f"needs sparse labels, but gets {x.spec}")
    if x.spec.time is None:
        ones = torch.ones(x.shape[0], dtype=torch.int32, device=x.device)
        return x.data.reshape(-1, 1), ones
    return x.data, x.length_per_seq(x.spec.dims[x.spec.time]).values


@loss("ctc")
class CTC(Loss):
    """Connectionist temporal classification (Graves et al. 2006): -log of the summed probability of all alignments.

    The output has one class more than the target, the last one is blank. Summed over sequences. Error: edit distance of
    the decoded labels (greedy in training, else a prefix beam search with `beam_width`). `use_native` computes on given
    log probabilities or logits by `ctc_opts`; `use_viterbi` takes the best alignment instead of the sum.
    """

    recurrent = True

    def __init__(
        self,
        *,
        target_collapse_repeated: bool = False,
        auto_clip_target_len: bool = False,
        output_in_log_space: bool = False,
        beam_width: PositiveInt = 100,
        ctc_opts: Mapping[str, Any] | None = None,
        use_native: bool = False,
        use_viterbi: bool = False,
    ) -> None:
        self.collapse = target_collapse_repeated
        self.auto_clip = auto_clip_target_len
        self.log_space = output_in_log_space
        self.beam_width = beam_width
        self.options = dict(ctc_opts or {})
        self.native = use_native or use_viterbi
        self.viterbi = use_viterbi
        if use_native and beam_width > 1:
            raise ConfigError("loss_opts", f"`beam_width` must be 1 with `use_native`, but is {beam_width} instead")
        self._check_options()

    def _check_options(self) -> None:
        plain = ("preprocess_collapse_repeated", "ctc_merge_repeated", "ignore_longer_outputs_than_inputs")
        native = (
            "logits_normalize",
            "grad_wrt_softmax_in",
            "label_loop",
            "ctc_merge_repeated",
            "blank_index",
            "zero_infinity",
        )
        known = native if self.native else plain
        for key in self.options:
            if key not in known:
                raise ConfigError("loss_opts", f"`ctc_opts` has no entry {key!r}{did_you_mean(key, known)}")

    def configure(self, config: Config, behavior: int) -> None:
        """What becomes of sequences without a valid alignment."""
        if self.native:
            self.options.setdefault("zero_infinity", ctc.zero_infinity(config, behavior))

    def check(self, output: Spec, target: Spec) -> None:
        """One class more than the target has: blank."""
        if target.dim is not None and output.dim != target.dim + 1:
            text = f"the output must have dim {target.dim + 1} (blank is the last), but has {output.dim}"
            raise ConfigError("", f"{text}; target: {target}, output: {output}")

    def compute(self, output: Tensor, target: Tensor | None) -> LossSum:
        """Sum over sequences, and the summed edit distance."""
        if target is None or output.spec.time is None:
            raise ConfigError("loss", "`ctc` needs a target, and an output with a time axis")
        labels, label_lengths = labels_of(target)
        lengths = output.length_per_seq(output.spec.dims[1]).values
        if self.auto_clip:
            label_lengths = ctc.auto_clip_target_lengths(label_lengths, lengths)
        wanted: Labels = collapse_repeated(labels, label_lengths) if self.collapse else (labels, label_lengths)
        logits = self._logits(output)
        function: Callable[..., torch.Tensor] = ctc.native_ctc_loss if self.native else ctc.tf_ctc_loss
        more = {"max_approx": True} if self.viterbi else {}
        value = function(logits, lengths, *wanted, **self.options, **more).sum()
        return LossSum(value, self._error(logits.detach(), lengths, labels, label_lengths))

    def _logits(self, output: Tensor) -> torch.Tensor:
        if self.log_space:
            return output.data
        if output.pre is not None and output.pre.activation == "softmax":
            return output.pre.data
        return safe_log(output.data)

    def _error(
        self, logits: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor, sizes: torch.Tensor
    ) -> torch.Tensor:
        if self.training or self.beam_width == 1:
            found, found_lengths = greedy_decode(logits, lengths, trim=not on_gpu(logits))
        else:
            found, found_lengths, _ = beam_search_decode(logits, lengths, beam_width=self.beam_width)
        return edit_distance(found, found_lengths, labels, sizes).sum().to(torch.float32)


@loss("edit_distance")
class EditDistance(SequenceLoss):
    """Only an error: the edit distance of the (sparse) output to the target, summed over sequences.

    `label_map` {i: j} renames labels of both before.
    """

    def __init__(
        self,
        *,
        label_map: Mapping[int, int] | None = None,
        ctc_decode: bool = False,
        output_in_log_space: bool = False,
        debug_print: bool = False,
    ) -> None:
        self.label_map = dict(label_map or {})
        self.ctc_decode = ctc_decode

    def per_sequence(self, output: Tensor, target: Tensor | None) -> LossSum:
        """The distance."""
        if target is None:
            raise ConfigError("loss", "`edit_distance` needs a target")
        if self.ctc_decode and not output.spec.sparse:
            found = greedy_decode(output.data, output.length_per_seq(output.spec.dims[1]).values)
        elif output.spec.sparse:
            found = labels_of(output)
        else:
            raise ConfigError("loss", f"`edit_distance` needs sparse output (or `ctc_decode`), but gets {output.spec}")
        wanted = labels_of(target)
        distance = edit_distance(self._mapped(found[0]), found[1], self._mapped(wanted[0]), wanted[1])
        return LossSum(None, distance.to(torch.float32))

    def _mapped(self, labels: torch.Tensor) -> torch.Tensor:
        result = labels
        for old, new in self.label_map.items():
            result = torch.where(labels == old, torch.full_like(labels, new), result)
        return result
