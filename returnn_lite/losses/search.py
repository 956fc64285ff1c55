"""Losses on the hypotheses of a search: `search_score`, `expected_loss`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from returnn_lite.errors import ConfigError
from returnn_lite.losses.base import Loss, LossSum, SequenceLoss, loss, make_loss
from returnn_lite.tensor import Beam, Tensor, to_beam


@loss("search_score")
class SearchScore(Loss):
    """Minus the scores of all hypotheses of a search, summed. Without search there is no value."""

    needs_target = False
    compares_frames = False
    of_beam = True

    def compute(self, output: Tensor, target: Tensor | None) -> LossSum:
        """The sum."""
        return LossSum(None if output.beam is None else -output.beam.scores.sum(), None)


@loss("expected_loss")
class ExpectedLoss(SequenceLoss):
    """The expected loss of the hypotheses of a search: sum over the beam of w (l - mean l) / beam (Prabhavalkar et al.
    2018).

    `loss`: {"class": a loss per sequence, …}, its "error" or "value" by `loss_kind`. w = exp(score), normalised over
    the beam with `norm_scores` (`norm_scores_stop_gradient`: the sum has no gradient). `subtract_average_loss`: l -
    mean l over the beam; with `loss_correction_grad_only` only in the gradient. `divide_beam_size`: divided by the
    beam size.
    """

    of_beam = True

    def __init__(
        self,
        *,
        loss: Any,
        loss_kind: str = "error",
        norm_scores: bool = True,
        norm_scores_stop_gradient: bool = True,
        divide_beam_size: bool = True,
        subtract_average_loss: bool = True,
        loss_correction_grad_only: bool = False,
    ) -> None:
        if not isinstance(loss, Mapping) or "class" not in loss:
            raise ConfigError("loss_opts", f'`loss` must be a dict with "class", but is {loss!r} instead')
        if loss_kind not in ("error", "value"):
            raise ConfigError("loss_opts", f'`loss_kind` must be "error" or "value", but is {loss_kind!r} instead')
        self.inner, _ = make_loss(loss["class"], {k: v for k, v in loss.items() if k != "class"}, "loss_opts")
        self.kind = loss_kind
        self.normalize = norm_scores
        self.stop_gradient = norm_scores_stop_gradient
        self.divide = divide_beam_size
        self.subtract = subtract_average_loss
        self.only_gradient = loss_correction_grad_only

    def per_sequence(self, output: Tensor, target: Tensor | None) -> LossSum:
        """One value per sequence."""
        beam = output.beam
        if beam is None:
            raise ConfigError(
                "loss", "`expected_loss` needs the hypotheses of a search; read a choice of an `extra.search:` net"
            )
        self.inner.training = self.training
        each = self.inner.per_sequence(output, None if target is None else to_beam(target, beam))
        losses = each.error if self.kind == "error" else each.value
        if losses is None:
            raise ConfigError("loss_opts", f"the loss {self.inner.loss_name!r} has no {self.kind}")
        return LossSum(self._expected(losses.unflatten(0, (-1, beam.size)), beam), None)

    def _expected(self, losses: torch.Tensor, beam: Beam) -> torch.Tensor:
        """(B, K) -> (B,)"""
        weights = self._weights(beam)
        corrected = losses - losses.mean(-1, keepdim=True) if self.subtract else losses
        value = (weights * corrected).sum(-1)
        if self.only_gradient:
            value = value + ((weights * losses).sum(-1) - value).detach()
        return value / beam.size if self.divide else value

    def _weights(self, beam: Beam) -> torch.Tensor:
        if not self.normalize:
            return beam.scores.exp()
        total = torch.logsumexp(beam.scores, -1, keepdim=True)
        return (beam.scores - (total.detach() if self.stop_gradient else total)).exp()
