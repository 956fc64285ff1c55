"""From a step's gradients to what each optimizer gets: sums over several steps, checked and processed."""

from collections.abc import Mapping, Sequence

import torch

from returnn_lite.config import Config
from returnn_lite.config.numbers import whole
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.optim import gradients as grad
from returnn_lite.optim.accumulation import Accumulation
from returnn_lite.optim.gradients import Gradients, NoiseGenerators
from returnn_lite.optim.groups import ParamGroup
from returnn_lite.optim.optimizer import Optimizer
from returnn_lite.optim.process import Norms, clip_together, filtered, process, shaped

Parts = list[tuple[ParamGroup, Gradients]]
INVALID_STEPS = "num_allowed_consec_invalid_gradient_steps"


class GradientPipeline:
    """Holds the gradients accumulated so far. `tags`: the parameters of each tag for norms."""

    def __init__(
        self,
        config: Config,
        log: Log,
        *,
        groups: Sequence[ParamGroup],
        optimizers: Mapping[str, Optimizer],
        tags: Mapping[str, set[str]],
        accumulation: Accumulation,
        written_in_torch: bool,
    ) -> None:
        self.log, self.groups, self.optimizers, self.tags = log, groups, optimizers, tags
        self.accumulation, self.written_in_torch = accumulation, written_in_torch
        self.noise_seed = config.int("random_seed", 42) or 0
        self.allowed_invalid = whole(INVALID_STEPS, config.int(INVALID_STEPS, 0) or 0)  # in a row
        self.invalid = 0  # such steps in a row so far
        self.clip_norm = groups[0].options.gradient_clip_global_norm  # used for models written in torch

    def start_epoch(self) -> None:
        """Begins an epoch."""
        self.accumulation.start_epoch()
        if self.written_in_torch:
            self.invalid = 0

    def due(self, batch: Gradients, global_step: int) -> dict[str, Gradients]:
        """By optimizer what it gets in this step; nothing where accumulation puts that off, or (if that is allowed)
        gradients are not finite."""
        self.accumulation.next_step(global_step)
        if self.allowed_invalid and not self.written_in_torch and self._is_invalid(batch):
            for group in self.groups:
                self.accumulation.add(group, {})
            return {}
        with torch.no_grad():
            return self._processed(batch, global_step)

    def _is_invalid(self, batch: Gradients) -> bool:
        """Whether the gradients are not finite, so that the step is left out. ConfigError after too many in a row."""
        values = [grad.value_of(value).detach() for value in batch.values()]
        if not batch or bool(torch.isfinite(grad.global_norm(values, like=values[0]))):
            self.invalid = 0
            return False
        self.invalid += 1
        if self.invalid > self.allowed_invalid:
            text = f"the gradients were not finite in {self.invalid} steps in a row"
            raise ConfigError(INVALID_STEPS, f"{text}, but {self.allowed_invalid} are allowed")
        self.log.v3(f"Gradients are not finite, no update ({self.invalid} of {self.allowed_invalid} in a row).")
        return True

    def _processed(self, batch: Gradients, global_step: int) -> dict[str, Gradients]:
        noise = NoiseGenerators(self.noise_seed, global_step)
        parts = [(group, self.accumulation.add(group, batch)) for group in self.groups]
        parts = [(group, grads) for group, grads in parts if self.accumulation.due(group)]
        if self.written_in_torch:
            parts = self._limited(parts, noise)
        else:
            norms = Norms(batch, self.tags)
            parts = [(group, process(grads, group.options, norms, noise)) for group, grads in parts]
        due: dict[str, Gradients] = {}
        for group, grads in parts:
            due.setdefault(group.optimizer, {}).update(grads)
        for key in due:
            if self.optimizers[key].clip_norm:
                due[key] = clip_together(due[key], self.optimizers[key].clip_norm)
        return due

    def _limited(self, parts: Parts, noise: NoiseGenerators) -> Parts:
        """Models written in torch: the global norm is that of what is to be applied, after the stages before it.

        Nothing at all where gradients are not finite and the update is left out.
        """
        raw = {name: value for _, grads in parts for name, value in grads.items()}
        if parts and self.allowed_invalid and self._is_invalid(raw):
            return []
        parts = [(group, shaped(grads, group.options, noise)) for group, grads in parts]
        if self.clip_norm:
            whole = {name: value for _, grads in parts for name, value in grads.items()}
            whole = clip_together(whole, self.clip_norm, epsilon=1e-6)
            parts = [(group, {name: whole[name] for name in grads}) for group, grads in parts]
        norms = Norms(raw, self.tags)
        return [(group, filtered(grads, group.options, norms)) for group, grads in parts]
