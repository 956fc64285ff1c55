"""`BatchStatistics`: normalisation by the mean and variance of the batch – behind the layer and the option
`batch_norm`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Protocol

import torch

from returnn_lite.config.option_types import Share
from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.core.init import InitialValue
from returnn_lite.ops.norms import normalize_by
from returnn_lite.ops.reductions import moments
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.masked import mask_all

NEW_SINCE = 12  # behaviour version with the other defaults


class Owner(Protocol):
    """What this needs of the layer that it belongs to."""

    name: str
    path: str

    def param(
        self, name: str, shape: tuple[int, ...], init: InitialValue = 0.0, *, trainable: bool = True
    ) -> torch.nn.Parameter:
        """A parameter of the layer."""


class BatchStatistics:
    """y = (x - mu) / sqrt(var + epsilon) [* gamma] [+ beta] with statistics over all axes but the features.

    The running values follow those of the batch, r <- r + momentum * (batch - r), in every evaluation, or only in
    training with `update_sample_only_in_training`. In training (or with `force_sample`) mu = (1 - use_sample) * batch
    + use_sample * running, else running; with `delay_sample_update` running is the value before this batch's update.
    `masked_time`: only valid frames count. Defaults depend on the behaviour version. Ioffe and Szegedy 2015.
    """

    def __init__(
        self,
        behavior: int,
        *,
        use_shift: bool = True,
        use_std: bool = True,
        use_sample: Share = 0.0,
        force_sample: bool = False,
        momentum: Share | None = None,
        epsilon: float = 1e-3,
        update_sample_only_in_training: bool | None = None,
        delay_sample_update: bool | None = None,
        param_version: int | None = None,
        gamma_init: InitialValue = 1.0,
        beta_init: InitialValue = 0.0,
        masked_time: bool | None = None,
    ) -> None:
        new = behavior >= NEW_SINCE
        if masked_time is None and new:
            raise ConfigError("", f"`masked_time` of `batch_norm` must be given (behavior_version >= {NEW_SINCE})")
        self.use_shift = use_shift
        self.use_std = use_std
        self.use_sample = float(use_sample)
        self.force_sample = force_sample
        self.momentum = (0.1 if new else 0.99) if momentum is None else momentum
        self.epsilon = epsilon
        self.only_in_training = new if update_sample_only_in_training is None else update_sample_only_in_training
        self.delay = new if delay_sample_update is None else delay_sample_update
        self.version = (2 if new else 0) if param_version is None else param_version
        self.gamma_init, self.beta_init = gamma_init, beta_init
        self.masked = True if masked_time is None else masked_time
        if self.version not in (0, 1, 2):
            raise ConfigError("", f"`param_version` must be 0, 1 or 2, but is {param_version} instead")

    @property
    def plain(self) -> bool:
        """The case in which the running variance follows the unbiased variance of the batch."""
        usual = self.use_shift and self.use_std and not self.use_sample and not self.force_sample
        return self.version == 2 and not self.masked and usual

    def build(self, owner: Owner, x: Spec) -> None:
        """The parameters below `<layer>/batch_norm/`; running values are never trained."""
        if x.sparse or x.feature is None or x.dim is None:
            raise ConfigError(owner.path, f"`batch_norm` needs a feature axis of known size, but gets {x}")
        if '["unit"]' not in owner.path:  # a layer in a loop may run over the loop's axis
            self._check_frames(x)
        axes = [i for i, d in enumerate(x.dims) if d not in x.loop]
        shape = (x.dim,) if self.version == 2 else tuple(x.dim if i == x.feature else 1 for i in axes)
        prefix = {0: f"{owner.name}_{owner.name}_output_", 1: "", 2: "v2_"}[self.version]

        def param(name: str, init: InitialValue, trainable: bool) -> torch.nn.Parameter:
            return owner.param(f"batch_norm/{prefix}{name}", shape, init, trainable=trainable)

        self.mean = param("mean", 0.0, False)
        self.variance = param("variance", 1.0, False)
        self.gamma = param("gamma", self.gamma_init, True) if self.use_std else None
        self.beta = param("beta", self.beta_init, True) if self.use_shift else None

    def _check_frames(self, x: Spec) -> None:
        if self.masked and (x.batch is None or self._frame_axes(x) == ()):
            text = (
                f"`masked_time` of `batch_norm` needs a batch and a time axis, but gets {x}; give `masked_time`: False"
            )
            raise ConfigError("", text)

    @staticmethod
    def _frame_axes(x: Spec) -> tuple[int, ...]:
        """Time, and the axes of loops that the layer was moved out of."""
        return tuple(i for i, d in enumerate(x.dims) if i == x.time or d in x.loop)

    def normalised(self, x: Tensor, training: bool) -> torch.Tensor:
        """The normalised data; updates the running values."""
        own = training or self.force_sample
        updates = training or not (self.only_in_training or self.plain)
        batch = self._of_batch(x) if own or updates else None
        running = (self.mean.detach().reshape(-1), self.variance.detach().reshape(-1))
        if batch is None:
            return self._scaled(x, *running)
        new = (
            (self._moved(running[0], batch[0]), self._moved(running[1], batch[1] * self._unbiased(x)))
            if updates
            else running
        )
        mean, variance = running if self.delay else new
        if own:
            share = self.use_sample
            mean, variance = (
                (1.0 - share) * b + share * r if share else b for b, r in zip(batch, (mean, variance), strict=True)
            )
        data = self._scaled(x, mean, variance)
        self.mean.data.copy_(new[0].reshape(self.mean.shape))
        self.variance.data.copy_(new[1].reshape(self.variance.shape))
        return data

    def _moved(self, running: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        return running + self.momentum * (batch.detach() - running)

    def _unbiased(self, x: Tensor) -> float:
        """n / (n - 1) where the unbiased variance is wanted."""
        if not self.plain:
            return 1.0
        n = x.data.numel() // max(x.data.shape[x.spec.feature or 0], 1)
        return n / max(n - 1, 1)

    def _of_batch(self, x: Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and (biased) variance (F,) over the (valid) frames."""
        others = [i for i in range(x.spec.rank) if i != x.spec.feature]
        self._check_frames(x.spec)
        valid = mask_all(x, self._frame_axes(x.spec)) if self.masked else None
        mean, variance = moments(x.data, others, valid)
        return mean.reshape(-1), variance.reshape(-1)

    def _scaled(self, x: Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        scale, shift = (None if p is None else p.reshape(-1) for p in (self.gamma, self.beta))
        axis = x.spec.feature or 0
        return normalize_by(x.data, mean, variance, axis, epsilon=self.epsilon, scale=scale, shift=shift)


def from_option(value: ConfigValue, behavior: int, path: str) -> BatchStatistics | None:
    """The common option `batch_norm`: True, or a dict of options. Raises ConfigError for unknown ones."""
    if not value:
        return None
    if value is not True and not isinstance(value, Mapping):
        raise ConfigError(path, f"`batch_norm` must be True or a dict of options, but is {value!r} instead")
    options = {} if value is True else dict(value)
    known = [
        n for n, p in inspect.signature(BatchStatistics).parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for key in options:
        if key not in known:
            raise ConfigError(path, f"`batch_norm` has no option {key!r}{did_you_mean(str(key), known)}")
    try:
        return BatchStatistics(behavior, **options)
    except ConfigError as exc:
        raise ConfigError(path, exc.message) from exc
