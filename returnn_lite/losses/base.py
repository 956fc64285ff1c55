"""`Loss`: the base of all losses, their register, and what they get."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch

from returnn_lite.config import Config
from returnn_lite.config.option_types import PositiveFloat, option_kinds, shortened, wrong_values
from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.errors import ConfigError, ConfigErrors, did_you_mean
from returnn_lite.tensor import Deferred, Spec, Tensor
from returnn_lite.tensor.masked import mask_all

L = TypeVar("L", bound="type[Loss]")
_LOSSES: dict[str, type[Loss]] = {}
REFUSED = {  # losses of old configs -> why they do not exist here
    "sprint": "it needs an external speech toolkit; for CTC-like alignments use `fast_bw` with the loss `via_layer`",
    "fast_bw": "it needs an external speech toolkit; use the layer `fast_bw` with the loss `via_layer`, or `ctc`",
}


@dataclass
class LossSum:
    """Sums over all valid frames or sequences: `value` and `error`, scalars; None where a loss has none."""

    value: torch.Tensor | None
    error: torch.Tensor | None


class Loss:
    """A loss of one layer.

    A class says its options as keyword-only parameters and computes in `compute(output, target)`. `needs_target`;
    `recurrent`: it looks at whole sequences; else frames are compared one by one, so output and target must have the
    same frames (unless not `compares_frames`). Hypotheses of a search are each compared with the target, unless the
    loss is one of the whole beam (`of_beam`). `layer_options` are the options that name layers. `training` is the
    train flag, `layers` the values of the named layers, `generator` the random numbers of the present batch.
    """

    loss_name: ClassVar[str] = ""
    needs_target: ClassVar[bool] = True
    recurrent: ClassVar[bool] = False
    compares_frames: ClassVar[bool] = True
    of_beam: ClassVar[bool] = False
    layer_options: ClassVar[tuple[str, ...]] = ()
    training: bool = False
    generator: torch.Generator | None = None
    layers: Mapping[str, Tensor] = {}  # noqa: RUF012 - replaced, never changed

    def per_frame(self, output: Tensor, target: Tensor | None) -> LossSum:
        """Value and error of every frame, not summed; padding is not masked."""
        raise ConfigError("loss", f"the loss {self.loss_name!r} has no value per frame")

    def per_sequence(self, output: Tensor, target: Tensor | None) -> LossSum:
        """Value and error of every sequence, (B,)."""
        raise ConfigError("loss", f"the loss {self.loss_name!r} has no value per sequence")

    def configure(self, config: Config, behavior: int) -> None:
        """Defaults that depend on the config besides `loss_opts`."""

    def check(self, output: Spec, target: Spec) -> None:
        """Raises ConfigError for an output that cannot be compared with this target."""

    def compute(self, output: Tensor, target: Tensor | None) -> LossSum:
        """The sums for this output: batch and time in front (batch first for a `recurrent` loss), feature axis last."""
        raise TypeError(f"loss {self.loss_name!r} has no compute")

    def inverse_norm(self, output: Tensor, target: Tensor | None) -> torch.Tensor:
        """1 / norm factor: number of target frames; of output frames without target; else of the valid positions of the
        only dynamic axis; else of sequences."""
        for x in (target, output):
            if x is not None and x.spec.time is not None:
                return x.length_per_seq(x.spec.dims[x.spec.time]).values.sum().to(torch.float32)
        dynamic = [dim for dim in output.spec.dims if dim.dynamic]
        if len(dynamic) == 1:
            return output.length(dynamic[0]).values.sum().to(torch.float32)
        at = output.spec.batch
        return torch.full((), float(output.shape[at]) if at is not None else 1.0, device=output.device)


class FrameLoss(Loss):
    """Base of losses that are a sum over frames: `values(output, target)` gives one number per frame."""

    def values(self, output: Tensor, target: Tensor) -> torch.Tensor:
        """The loss of every frame."""
        raise NotImplementedError

    def errors(self, output: Tensor, target: Tensor) -> torch.Tensor | None:
        """The error of every frame: 1 where the largest output is not the target."""
        return wrong_frames(output, target)

    def per_frame(self, output: Tensor, target: Tensor | None) -> LossSum:
        """Value and error of every frame."""
        if target is None:
            raise ConfigError("loss", f"`{self.loss_name}` needs a target")
        return LossSum(self.values(output, target), self.errors(output, target))

    def compute(self, output: Tensor, target: Tensor | None) -> LossSum:
        """Sums over valid frames."""
        frames = self.per_frame(output, target)
        return LossSum(*(None if x is None else masked_sum(x, output) for x in (frames.value, frames.error)))


class SequenceLoss(Loss):
    """Base of losses with one value and error per sequence."""

    recurrent = True

    def compute(self, output: Tensor, target: Tensor | None) -> LossSum:
        """Sums over sequences."""
        each = self.per_sequence(output, target)
        return LossSum(*(None if x is None else x.sum() for x in (each.value, each.error)))


@dataclass
class CommonLossOptions:
    """`loss_opts` that every loss has."""

    use_flatten_frames: bool = True
    use_normalized_loss: bool = False
    custom_norm_factor: PositiveFloat | Callable[..., Any] | None = None
    custom_inv_norm_factor: str | None = None
    scale: float = 1.0


def loss(*names: str) -> Callable[[L], L]:
    """Registers a Loss class under its config words."""

    def register(cls: L) -> L:
        for name in names:
            _LOSSES[name] = cls
        cls.loss_name = names[0]
        return cls

    return register


def loss_names() -> list[str]:
    """All config words, sorted."""
    return sorted(_LOSSES)


def loss_class(name: str) -> type[Loss]:
    """The class of a config word. KeyError if there is none."""
    return _LOSSES[name]


def make_loss(name: ConfigValue, options: ConfigDict, path: str) -> tuple[Loss, CommonLossOptions]:
    """The loss of a config word with its `loss_opts`. Raises ConfigError for unknown names and options."""
    if not isinstance(name, str):
        raise ConfigError(path, f"`loss` must be the name of a loss, but is {shortened(name)} instead")
    if name in REFUSED:
        raise ConfigError(path, f"the loss {name!r} is not supported: {REFUSED[name]}")
    if name not in _LOSSES:
        raise ConfigError(path, f"unknown loss {name!r}{did_you_mean(str(name), loss_names())}")
    cls = _LOSSES[name]
    signature = inspect.signature(cls).parameters
    own = {n for n, p in signature.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    common = set(CommonLossOptions.__dataclass_fields__)
    for key in options:
        if key not in own | common:
            known = sorted(own | common)
            text = f"loss {name!r} has no option {key!r}{did_you_mean(key, known)}; its options: {', '.join(known)}"
            raise ConfigError(f'{path}["loss_opts"]', text)
    missing = sorted(n for n in own if signature[n].default is inspect.Parameter.empty and n not in options)
    if missing:
        raise ConfigError(f'{path}["loss_opts"]', f"loss {name!r} needs the option {missing[0]!r}, but it is missing")
    wrong = wrong_values(
        {**option_kinds(CommonLossOptions), **option_kinds(cls.__init__)}, options, f'{path}["loss_opts"]'
    )
    if wrong:
        raise wrong[0] if len(wrong) == 1 else ConfigErrors(wrong)
    try:
        made = cls(**{k: v for k, v in options.items() if k in own})
    except ConfigError as exc:
        raise ConfigError(f'{path}["loss_opts"]', exc.message) from exc
    except (TypeError, ValueError, ArithmeticError) as exc:
        raise ConfigError(f'{path}["loss_opts"]', f"wrong option value: {type(exc).__name__}: {exc}") from exc
    return made, CommonLossOptions(**{k: v for k, v in options.items() if k in common})


def masked_sum(values: torch.Tensor, output: Tensor) -> torch.Tensor:
    """Sum of `values` (the axes of `output`, some at its end left out) over valid frames."""
    valid = mask_all(output)
    if valid is None:
        return values.sum()
    for _ in range(valid.dim() - values.dim()):
        valid = valid.squeeze(-1)
    return torch.where(valid, values, torch.zeros((), dtype=values.dtype, device=values.device)).sum()


def wrong_frames(output: Tensor, target: Tensor) -> torch.Tensor:
    """1 where the largest output is not the target (dense target: its largest entry), else 0, per frame."""
    classes = target.data if target.spec.sparse else target.data.argmax(-1)
    scores = output.pre.data if isinstance(output, Deferred) else output.data
    return (scores.argmax(-1) != classes).to(torch.float32)


def frame_error(output: Tensor, target: Tensor) -> torch.Tensor:
    """Number of valid frames in which the largest output is not the target."""
    return masked_sum(wrong_frames(output, target), output)
