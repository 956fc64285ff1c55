"""The update rule for models written in torch or with `returnn.frontend`."""

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.optim.accumulation import Accumulation
from returnn_lite.optim.gradients import Gradients
from returnn_lite.optim.groups import Groups
from returnn_lite.optim.process import Norms, clip_together, filtered, shaped
from returnn_lite.optim.update_rule import Parts, UpdateRule, by_name, together

EPSILON = 1e-6  # of torch.nn.utils.clip_grad_norm_


class TorchRule(UpdateRule):
    """The global norm is that of the summed gradients after noise and clipping by value; sums, and the count of steps
    left out because their gradients are not finite, begin anew with every epoch."""

    def __init__(self, config: Config, log: Log, *, parts: Groups, accumulation: Accumulation) -> None:
        if config.float("grad_clip", 0.0):
            raise ConfigError("grad_clip", "is no option: use `gradient_clip_global_norm` (or `gradient_clip`)")
        super().__init__(config, log, parts=parts, accumulation=accumulation)

    def start_epoch(self) -> None:
        super().start_epoch()
        self.invalid.count = 0

    def _update(self, batch: Gradients, global_step: int) -> Parts:
        parts = self._summed(batch)
        raw, noise = together(parts), self._noise(global_step)
        if not parts or self.invalid.found(raw, global_step):
            return []
        parts = [(group, shaped(grads, group.options, noise)) for group, grads in parts]
        limit = self.groups[0].options.gradient_clip_global_norm
        if limit:
            parts = by_name(clip_together(together(parts), limit, epsilon=EPSILON), parts)
        norms = Norms(raw, self.tags)
        return [(group, filtered(grads, group.options, norms)) for group, grads in parts]
