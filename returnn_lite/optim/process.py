"""All stages between the gradients and the optimizer, in their fixed order."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from returnn_lite.optim import gradients as grad
from returnn_lite.optim.gradients import Gradients, NoiseGenerators
from returnn_lite.optim.groups import GradientOptions


def clip_together(grads: Gradients, limit: float, epsilon: float = 0.0) -> Gradients:
    """All gradients times min(1, limit / (their common norm + epsilon))."""
    values = [grad.value_of(value) for value in grads.values()]
    if not values:
        return grads
    norm = grad.global_norm(values, like=values[0])
    scaled = torch._foreach_mul(values, (limit / (norm + epsilon)).clamp(max=1.0))
    return {name: grad.with_value(old, new) for (name, old), new in zip(grads.items(), scaled, strict=True)}


class Norms:
    """Norms of the batch's gradients as they came: over all parameters, or over those with a tag; once each."""

    def __init__(self, grads: Gradients, tags: Mapping[str, set[str]]) -> None:
        self.grads, self.tags = grads, tags
        self.known: dict[str | None, Tensor] = {}

    def __call__(self, tag: str | None) -> Tensor:
        if tag not in self.known:
            names = self.grads.keys() if tag is None else self.grads.keys() & self.tags.get(tag, set())
            values = [grad.value_of(self.grads[name]) for name in self.grads if name in names]
            self.known[tag] = grad.global_norm(values, like=next(iter(self.grads.values())))
        return self.known[tag]


def process(grads: Gradients, options: GradientOptions, norms: Norms, noise: NoiseGenerators) -> Gradients:
    """All stages between the gradients and the optimizer, in their fixed order."""
    grads = shaped(grads, options, noise)
    if options.gradient_clip_global_norm and grads:
        values = [grad.value_of(value) for value in grads.values()]
        values = grad.clip_global_norm(values, options.gradient_clip_global_norm, norms(options.clip_tag))
        grads = _with_values(grads, values)
    return filtered(grads, options, norms)


def shaped(grads: Gradients, options: GradientOptions, noise: NoiseGenerators) -> Gradients:
    """The stages before the clipping of the global norm: noise, and clipping of each parameter by itself."""
    clips = options.gradient_clip or options.gradient_clip_norm or options.gradient_clip_avg_norm
    if not grads or not (options.gradient_noise or clips):
        return grads
    if options.gradient_noise:  # noise on all rows makes a gradient dense
        grads = grad.dense(grads)
    values = [grad.value_of(value) for value in grads.values()]
    if options.gradient_noise:
        values = grad.add_noise(values, options.gradient_noise, noise)
    if options.gradient_clip:
        values = grad.clip_values(values, options.gradient_clip)
    if options.gradient_clip_norm:
        values = grad.clip_norms(values, options.gradient_clip_norm)
    if options.gradient_clip_avg_norm:
        values = grad.clip_average_norms(values, options.gradient_clip_avg_norm)
    return _with_values(grads, values)


def filtered(grads: Gradients, options: GradientOptions, norms: Norms) -> Gradients:
    """The stages after it."""
    values = [grad.value_of(value) for value in grads.values()]
    if not values or not (options.gradient_nan_inf_filter or options.grad_norm_to_clip_to_zero):
        return grads
    if options.gradient_nan_inf_filter:
        values = grad.without_nan_and_inf(values)
    if options.grad_norm_to_clip_to_zero:
        values = grad.zero_above(values, options.grad_norm_to_clip_to_zero, norms(options.global_norm_tag))
    return _with_values(grads, values)


def _with_values(grads: Gradients, values: Sequence[Tensor]) -> Gradients:
    return {name: grad.with_value(old, new) for (name, old), new in zip(grads.items(), values, strict=True)}
