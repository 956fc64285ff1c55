"""The update rule for nets of layers."""

from returnn_lite.optim.gradients import Gradients
from returnn_lite.optim.process import Norms, process
from returnn_lite.optim.update_rule import Parts, UpdateRule


class LayerRule(UpdateRule):
    """Norms are those of the batch's gradients as they came, clipping by the global norm goes before filters; what is
    left at the end of an epoch begins the first update of the next one, unless a function gives the number of steps. A
    batch whose gradients are not finite may be left out of a sum."""

    def _update(self, batch: Gradients, global_step: int) -> Parts:
        if self.invalid.found(batch, global_step):
            for group in self.groups:
                self.accumulation.add(group, {})
            return []
        norms, noise = Norms(batch, self.tags), self._noise(global_step)
        return [(group, process(grads, group.options, norms, noise)) for group, grads in self._summed(batch)]
