"""`sampling_loss`: cross-entropy over a sample of the classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from returnn_lite.config.option_types import PositiveInt
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.losses.base import FrameLoss, loss
from returnn_lite.ops.cross_entropy import log_uniform_shares, sampled_cross_entropy
from returnn_lite.tensor import Tensor

SAMPLERS = ("log_uniform", "uniform")


@loss("sampling_loss")
class SamplingLoss(FrameLoss):
    """In training the cross-entropy over the target and `num_sampled` random classes, else over all classes.

    The classes are drawn once per batch (`num_splits`: once for each of that many parts of the frames), without
    repetition, "log_uniform" (P(k) = log((k + 2) / (k + 1)) / log(V + 1): frequent classes first) or "uniform"; the
    logits are corrected by the log of the expected count (Jean et al. 2015). `remove_accidental_hits`: a sampled class
    that is the target does not count. `nce_loss`: binary decisions, target or noise (Gutmann and Hyvärinen 2010), with
    `nce_log_norm_term` subtracted from the logits. `use_full_softmax`: all classes in training too. The layer must be
    a softmax or give logits.
    """

    def __init__(
        self,
        *,
        num_sampled: PositiveInt = 128,
        num_splits: PositiveInt = 1,
        sampler: str = "log_uniform",
        nce_loss: bool = False,
        use_full_softmax: bool = False,
        remove_accidental_hits: bool | None = None,
        sampler_args: Mapping[str, Any] | None = None,
        nce_log_norm_term: float = 0.0,
    ) -> None:
        if sampler not in SAMPLERS:
            hint = did_you_mean(str(sampler), SAMPLERS)
            raise ConfigError(
                "loss_opts", f"`sampler` must be one of {', '.join(SAMPLERS)}, but is {sampler!r} instead{hint}"
            )
        self.num_sampled = num_sampled
        self.num_splits = max(num_splits, 1)
        self.sampler = sampler
        self.nce = nce_loss
        self.full = use_full_softmax
        self.hide_hits = not nce_loss if remove_accidental_hits is None else remove_accidental_hits
        self.log_norm = nce_log_norm_term

    def values(self, output: Tensor, target: Tensor) -> torch.Tensor:
        """One value per frame."""
        if not target.spec.sparse:
            raise ConfigError("loss", f"`sampling_loss` needs a sparse target, but gets {target.spec}")
        is_softmax = output.pre is not None and output.pre.activation == "softmax"
        logits = output.pre.data if output.pre is not None and is_softmax else output.data
        rows, classes = logits.flatten(0, -2), target.data.to(torch.int64).flatten()
        if self.full or not self.training:
            each = F.cross_entropy(rows, classes, reduction="none")
        else:
            size = -(-rows.shape[0] // self.num_splits)
            pairs = zip(rows.split(max(size, 1)), classes.split(max(size, 1)), strict=True)
            each = torch.cat([self._sampled(*pair) for pair in pairs])
        return each.reshape(target.shape)

    def _sampled(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """(N, V), (N,) -> (N,)"""
        return sampled_cross_entropy(
            logits - (self.log_norm if self.nce else 0.0),
            classes,
            self._shares(logits.shape[-1], logits.device),
            self.num_sampled,
            hide_hits=self.hide_hits,
            noise_contrastive=self.nce,
            generator=self.generator,
        )

    def _shares(self, size: int, device: torch.device) -> torch.Tensor:
        """The probability of each class in one draw."""
        if self.sampler == "uniform":
            return torch.full((size,), 1.0 / size, device=device)
        return log_uniform_shares(size, device)
