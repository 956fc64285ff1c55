"""`sparse_softmax_cross_entropy_with_logits`: cross-entropy per frame as a layer."""

from __future__ import annotations

import torch

from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.registry import layer
from returnn_lite.ops.cross_entropy import pick
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.align import joined, place
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axis as find_axis


@layer("sparse_softmax_cross_entropy_with_logits")
class SparseSoftmaxCrossEntropy(Layer):
    """-log softmax(logits)[target] of every frame, natural log.  Shape: logits (B, T, V), targets (B, T) -> (B, T)

    `axis`: the axis of the classes, the features by default.
    """

    full_precision = True
    sources = "none"

    def __init__(self, *, logits: LayerRef, targets: LayerRef, axis: AxisText = None) -> None:
        super().__init__()
        self.logits = logits
        self.targets = targets
        self.axis = axis

    def _axis(self, logits: Spec) -> int:
        return find_axis(logits, "F" if self.axis is None else self.axis)

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The logits without the axis of the classes."""
        logits, targets = refs["logits"], refs["targets"]
        if logits is None or targets is None:
            return None
        frames = logits.without([self._axis(logits)], feature=None)
        if not targets.sparse or any(d not in frames.dims for d in targets.dims):
            raise self.error(f"`targets` must be sparse with the axes of the logits {frames}, but is {targets} instead")
        return Spec(frames.dims, "float32", time=frames.time, feature=None, loop=frames.loop)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The cross-entropy."""
        logits, targets = refs["logits"], refs["targets"]
        axis = self._axis(logits.spec)
        frames = logits.spec.without([axis], feature=None)
        log_probs = torch.log_softmax(logits.data, axis)
        sizes = [n for i, n in enumerate(logits.data.shape) if i != axis]
        classes = place(targets, frames, self.behavior).expand(sizes)
        data = -pick(log_probs, classes, axis)
        return joined(data, self.spec(logits=logits.spec, targets=targets.spec) or frames, [logits, targets])
