"""`loss`: a loss as a layer, not summed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.losses.base import Loss, make_loss
from returnn_lite.tensor import Dim, Spec, Tensor


@layer("loss")
class LossLayer(Layer):
    """The loss `loss_` of every frame.  Shape: (B, T, V) -> (B, T); parts "loss" and "error"

    `target_`: a data key or "layer:x"; `loss_opts_`: options of the loss; `use_error`: the output is the error. For
    losses that have a value per frame. Padding is not masked.
    """

    recurrent = True

    def __init__(
        self,
        *,
        loss_: str,
        target_: str | None = None,
        loss_opts_: Mapping[str, Any] | None = None,
        use_error: bool = False,
    ) -> None:
        super().__init__()
        self.kind = loss_
        self.target = target_
        self.loss_options = dict(loss_opts_ or {})
        self.use_error = use_error
        self.loss: Loss | None = None
        self._frames: Spec | None = None

    async def link(self, net: Linker, node: Node) -> None:
        """Makes the loss, and reads its target."""
        self.loss = made = make_loss(self.kind, self.loss_options, self.path)[0]
        if made.needs_target or self.target:
            node.refs["target"] = await net.ask_target(self.target)

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """The frames of the source: without its feature axis."""
        if x is None:
            return None
        if x.sparse or x.feature is None:
            raise self.error(f"the source must have a feature axis, but is {x} instead")
        frames = x.without([x.feature], feature=None)
        self._frames = Spec(frames.dims, "float32", time=frames.time, feature=None, loop=frames.loop)
        return self._frames

    def part_spec(self, part: str) -> Spec | None:
        """Of "loss" and "error": that of the output."""
        return self._frames if part in ("loss", "error") else None

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The values of all frames."""
        if self.loss is None:
            raise self.error("the loss is not known")
        x = sources[0]
        spec = self.spec(x.spec, **{k: t.spec for k, t in refs.items()})
        self.loss.training = self.training
        output = x.axis_last(x.spec.feature or 0)
        target = refs.get("target")
        made = self.loss.per_frame(output, None if target is None else self._arranged(target, x.spec))
        values = {"loss": made.value, "error": made.error}
        parts = {
            name: output.with_data(data.to(output.data.dtype), spec)
            for name, data in values.items()
            if data is not None
        }
        wanted = "error" if self.use_error else "loss"
        if wanted not in parts:
            raise self.error(f"the loss {self.kind!r} has no {wanted}")
        chosen = parts[wanted].copy()
        chosen.parts = parts
        return chosen

    def _arranged(self, target: Tensor, x: Spec) -> Tensor:
        """The target with its axes in the order of the source's frames: batch, time, loops, then others; features
        last.
        """
        order: list[int] = []
        for i, dim in enumerate(x.dims):
            if i != x.feature:
                order.append(self._axis_for(dim, i == x.time, target.spec, order))
        rest = [i for i in range(target.spec.rank) if i not in order]
        if rest != ([] if target.spec.feature is None else [target.spec.feature]):
            raise self.error(f"the target {target.spec} must have the frames of the source {x}")
        return target.permuted((*order, *rest))

    def _axis_for(self, dim: Dim, is_time: bool, target: Spec, taken: list[int]) -> int:
        """The target's axis that corresponds to an axis of the source."""
        for i, d in enumerate(target.dims):
            same = d == dim or (d.is_batch and dim.is_batch) or (is_time and i == target.time)
            if i not in taken and (same or (dim.size is not None and d.size == dim.size and i != target.feature)):
                return i
        raise self.error(f"the target {target} must have the axis {dim} of the source")
