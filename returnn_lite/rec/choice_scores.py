"""Log scores of a choice's sources."""

from __future__ import annotations

import torch

from returnn_lite.errors import ConfigError
from returnn_lite.layers.activations import safe_log
from returnn_lite.ops.beam import gumbel_noise
from returnn_lite.tensor import Tensor
from returnn_lite.tensor.precision import in_float32


def log_scores(x: Tensor, input_type: str, count: int, path: str) -> torch.Tensor:
    """Log scores of all labels, `count` hypotheses per sequence.  Shape: (B * K, V) -> (B, K, V)"""
    if x.spec.feature is None or x.spec.batch is None or x.spec.rank != 2:
        raise ConfigError(path, f"the source of a choice must be scores (B, V), but is {x.spec} instead")
    found = log_probs(x.axis_last(x.spec.feature), input_type)
    return found.reshape(-1, count, found.shape[-1])


def log_probs(x: Tensor, input_type: str) -> torch.Tensor:
    """Natural logarithm of the scores, the feature axis being the last one; exact where they come from a softmax."""
    x = in_float32(x)
    if input_type == "log_prob":
        return x.data
    if input_type == "logits":
        return torch.log_softmax(x.data, -1)
    if x.pre is not None and x.pre.activation == "softmax":
        return torch.log_softmax(x.pre.data, -1)
    return safe_log(x.data)


def noise(like: torch.Tensor, scale: float, generator: torch.Generator) -> torch.Tensor | None:
    """Gumbel noise times `scale`; None for none."""
    if not scale:
        return None
    return gumbel_noise(like, generator) * scale
