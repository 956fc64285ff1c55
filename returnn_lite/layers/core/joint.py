"""Layers with one common source that are computed together."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.layers.core.base import Layer
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.align import concat_features, concat_plan


class Joint(Layer):
    """The outputs of `members` side by side along the features; each of them is the part of its number.

    A class says in `together` how they are computed by one call, and in `worthwhile` where that is quicker than one by
    one. `whole_is_read`: whether anybody reads the outputs side by side; else there are parts alone.
    """

    class_name = "joint"
    checks_n_out = False

    def __init__(self, members: Sequence[Layer]) -> None:
        super().__init__()
        self.members = tuple(members)
        self.whole_is_read = False
        first = members[0]
        self.name, self.path, self.context, self.net = first.name, first.path, first.context, first.net

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The members' features side by side."""
        specs = [member.spec(*sources) for member in self.members]
        known = tuple(s for s in specs if s is not None)
        return concat_plan(known, self.behavior)[0] if len(known) == len(specs) else None

    def worthwhile(self, x: Tensor) -> bool:
        """Whether one call is quicker for this source."""
        raise NotImplementedError

    def together(self, x: Tensor) -> Tensor:
        """The outputs side by side, by one call."""
        raise NotImplementedError

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """All outputs."""
        x = sources[0]
        if self.worthwhile(x):
            whole = self.together(x)
            sizes = [member.made_spec(x.spec).dim or 0 for member in self.members]
            data = whole.data.split(sizes, -1)
            specs = [member.made_spec(x.spec) for member in self.members]
            parts = [whole.with_data(d, s, zero_padded=whole.zero_padded) for d, s in zip(data, specs, strict=True)]
        else:
            parts = [member.forward(x) for member in self.members]
            whole = concat_features(parts, self.behavior) if self.whole_is_read else x
        made = whole.with_data(whole.data, zero_padded=all(part.zero_padded for part in parts))
        made.parts = {str(i): part for i, part in enumerate(parts)}
        return made


class JointPart(Layer):
    """The output of one member."""

    class_name = "joint.part"
    sources = "many"
    checks_n_out = False

    def __init__(self, number: int, member: Layer) -> None:
        super().__init__()
        self.number, self.member = str(number), member
        self.name, self.path, self.context, self.net = member.name, member.path, member.context, member.net

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The part of its number."""
        return (sources[0].parts or {})[self.number]
