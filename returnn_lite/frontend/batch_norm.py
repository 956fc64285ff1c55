"""`BatchNorm`: normalization by the statistics of a batch, or by running ones."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

import returnn_lite.ops.norms as ops_norms
import returnn_lite.ops.reductions as ops_reductions
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.layout import axis_of
from returnn_lite.frontend.masks import padding_mask
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.parameter import Parameter
from returnn_lite.frontend.run_ctx import get_run_ctx
from returnn_lite.frontend.sizes import use_mask_default
from returnn_lite.frontend.tensor import Tensor


class BatchNorm(Module):
    """(x - mean) / sqrt(variance + eps) · gamma + beta, by statistics over all other axes (Ioffe and Szegedy, 2015).

    In training those of the batch, which also move `running_mean` and `running_variance` by `momentum` (the share of
    the new value); else the running ones. use_mask: whether padding counts not; then the running variance is the biased
    one, without a mask the unbiased one. By default padding does not count.
    """

    def __init__(
        self,
        in_dim: Dim,
        *,
        affine: bool = True,
        momentum: float = 0.1,
        eps: float = 1e-3,
        track_running_stats: bool = True,
        use_mask: bool | None = None,
        distributed: bool | None = None,
    ) -> None:
        self.in_dim, self.use_mask, self.momentum, self.eps = in_dim, use_mask, momentum, eps
        self.distributed = distributed
        self.running_mean: Any = None
        self.running_variance: Any = None
        if track_running_stats:
            self.running_mean = Parameter((in_dim,), auxiliary=True)
            self.running_mean.initial = 0.0
            self.running_variance = Parameter((in_dim,), auxiliary=True)
            self.running_variance.initial = 1.0
        self.gamma: Any = None
        self.beta: Any = None
        if affine:
            self.gamma = Parameter((in_dim,))
            self.gamma.initial = 1.0
            self.beta = Parameter((in_dim,))
            self.beta.initial = 0.0

    def __call__(self, source: Tensor) -> Tensor:
        """Axes and roles stay."""
        at = axis_of(source.dims, self.in_dim, f"BatchNorm: {source}")
        mask_it = self.use_mask if self.use_mask is not None else use_mask_default(default=True, func_name="BatchNorm")
        training = get_run_ctx().is_train_flag_enabled(func=BatchNorm.__call__)
        raw = source.raw_tensor
        own = next((x.raw_tensor.dtype for x in (self.gamma, self.running_mean) if x is not None), torch.float32)
        dtype = torch.promote_types(raw.dtype, own)
        by_batch = training or self.running_mean is None
        if mask_it and by_batch and any(dim.need_masking() for dim in source.dims):
            mask = padding_mask(source, [dim for i, dim in enumerate(source.dims) if i != at])
            if mask is not None:
                exact = raw.to(torch.promote_types(dtype, torch.float32))
                return source._like(self._masked(exact, at, mask, training).to(dtype))
        return source._like(self._plain(raw.to(dtype), at, by_batch))

    def _masked(self, raw: torch.Tensor, at: int, mask: torch.Tensor, training: bool) -> torch.Tensor:
        axes = [i for i in range(raw.dim()) if i != at]
        mean, variance = (x.reshape(-1) for x in ops_reductions.moments(raw, axes, mask))
        if training and self.running_mean is not None:
            with torch.no_grad():
                for running, now in ((self.running_mean, mean), (self.running_variance, variance)):
                    running.raw_tensor.lerp_(now.to(running.raw_tensor.dtype), self.momentum)
        gamma, beta = (None if x is None else x.raw_tensor for x in (self.gamma, self.beta))
        return ops_norms.normalize_by(raw, mean, variance, at, epsilon=self.eps, scale=gamma, shift=beta)

    def _plain(self, raw: torch.Tensor, at: int, by_batch: bool) -> torch.Tensor:
        """As torch does it: all positions count."""
        parameters = (self.running_mean, self.running_variance, self.gamma, self.beta)
        mean, variance, gamma, beta = (None if x is None else x.raw_tensor for x in parameters)
        last = raw.movedim(at, -1)
        x = raw if at == 1 and raw.dim() > 2 else last.reshape(-1, last.shape[-1])
        found = functional.batch_norm(x, mean, variance, gamma, beta, by_batch, self.momentum, self.eps)
        return found if x is raw else found.reshape(last.shape).movedim(-1, at)
