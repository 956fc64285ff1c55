"""More frames at the ends of an axis: `pad`, `prefix_in_time`, `postfix_in_time`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from returnn_lite.config.option_types import NaturalInt
from returnn_lite.errors import did_you_mean
from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.slicing import with_axis
from returnn_lite.ops.resampling import PAD_MODES, pad
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.tensor.align import common, joined, place
from returnn_lite.tensor.axes import AxisText, describe
from returnn_lite.tensor.axes import axes as find_axes
from returnn_lite.tensor.axes import axis as find_axis
from returnn_lite.tensor.masked import mask


@layer("pad")
class Pad(Layer):
    """`padding` (left, right) entries added on `axes`.  Shape: (B, T, F), "T", (1, 2) -> (B, T + 3, F)

    `padding`: a number (both sides), a pair, or a list of pairs, one per axis. `mode` constant (filled with `value`, a
    number or a scalar layer), reflect, symmetric, replication. The right side is added after the padded tensor;
    `handle_dynamic_dims` (default from behavior_version 21): after each sequence (mode constant only). `out_dims`:
    Dims for the longer axes.
    """

    recurrent = True
    lets_padding_through = True

    def __init__(
        self,
        *,
        axes: AxisText,
        padding: NaturalInt | Sequence[NaturalInt | Sequence[NaturalInt]],
        value: LayerRef | float = 0,
        mode: str = "constant",
        handle_dynamic_dims: bool | None = None,
        out_dims: Dim | Sequence[Dim] | None = None,
    ) -> None:
        super().__init__()
        self.axes = axes
        self.out_dims = [out_dims] if isinstance(out_dims, Dim) else out_dims
        self.padding = padding
        self.value = value
        self.mode = mode.lower()
        self.handle_dynamic_dims = handle_dynamic_dims
        if self.mode not in PAD_MODES:
            hint = did_you_mean(self.mode, PAD_MODES)
            raise self.error(f"`mode` must be one of {', '.join(PAD_MODES)}, but is {mode!r} instead{hint}")

    def is_recurrent(self) -> bool:
        """Not along the features."""
        return not (isinstance(self.axes, str) and self.axes.lower() in ("f", "feature"))

    def _margins(self, x: Spec) -> dict[int, tuple[int, int]]:
        """{axis: (left, right)}"""
        found = find_axes(x, self.axes, option="axes")
        given: Any = self.padding
        if isinstance(given, int):
            given = (given, given)
        each = [given] * len(found) if all(isinstance(n, int) for n in given) else list(given)
        pairs = [(p, p) if isinstance(p, int) else tuple(p) for p in each]
        if not found or len(pairs) != len(found) or any(len(p) != 2 or min(p) < 0 for p in pairs):
            text = f"`padding` must be a pair of numbers for each of the {len(found)} axes {self.axes!r}"
            raise self.error(f"{text}, but is {self.padding!r} instead; the source: {describe(x)}")
        return dict(zip(found, pairs, strict=True))

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """The longer axes."""
        if x is None:
            return None
        margins = self._margins(x)
        given = [None] * len(margins) if self.out_dims is None else self.out_dims
        if len(given) != len(margins):
            raise self.error(f"`out_dims` must have {len(margins)} entries, one per axis, but is {given!r} instead")
        for (at, (left, right)), dim in zip(margins.items(), given, strict=True):
            x = with_axis(x, at, self.axis_dim(dim, (left + x.dims[at]) + right))
        return x

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """The padded source."""
        value = refs["value"].data if "value" in refs else cast(float, self.value)
        data = x.data
        margins = self._margins(x.spec)
        for at, (left, right) in margins.items():
            data = pad(data, at, left, right, self.mode, value)
        out = x.with_data(data, self.spec(x.spec))
        follow = self.behavior >= 21 if self.handle_dynamic_dims is None else self.handle_dynamic_dims
        for at in margins:
            if follow and out.spec.dims[at].dynamic:
                out = self._behind_sequences(x, out, at, margins[at], value)
        return out

    def _behind_sequences(self, x: Tensor, out: Tensor, at: int, margins: tuple[int, int], value: Any) -> Tensor:
        """`value` behind each sequence's own end."""
        if self.mode != "constant":
            raise self.error(f'`handle_dynamic_dims` needs mode "constant", but the mode is {self.mode!r}')
        used = (margins[0] + x.spec.dims[at]) + 0
        lengths = x.length(used)
        valid = mask(out.with_data(out.data, with_axis(out.spec, at, used)).with_lengths({used: lengths}), at)
        return out if valid is None else out.with_data(torch.where(valid, out.data, _like(value, out.data)))


def _like(value: Any, data: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(value, dtype=data.dtype, device=data.device)


@layer("prefix_in_time")
class PrefixInTime(Layer):
    """`repeat` frames with the value `prefix` put in front.  Shape: (B, T, F) -> (B, repeat + T, F)

    `size_base`: a layer whose time axis has these lengths; the output takes that axis.
    """

    recurrent = True

    def __init__(
        self,
        *,
        axis: AxisText = "T",
        prefix: float = 0.0,
        repeat: NaturalInt = 1,
        size_base: LayerRef | None = None,
    ) -> None:
        super().__init__()
        self.axis = axis
        self.prefix = prefix
        self.repeat = repeat
        self.size_base = size_base
        if not isinstance(repeat, int):
            raise self.error(f"`repeat` must be a number of frames, but is {repeat!r} instead")

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """The longer axis."""
        if x is None or any(r is None for r in refs.values()):
            return None
        at = find_axis(x, self.axis)
        base = refs.get("size_base")
        new = base.time_dim if base is not None else None
        return with_axis(x, at, new or self.axis_dim(self.options.out_dim, self.repeat + x.dims[at]))

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """The prefix and the source."""
        at = find_axis(x.spec, self.axis)
        spec = self.made_spec(x.spec, **{k: r.spec for k, r in refs.items()})
        data = pad(x.data, at, self.repeat, 0, value=self.prefix)
        return _with_new_lengths(x, at, self.repeat, spec).with_data(data, spec)


def _with_new_lengths(x: Tensor, at: int, more: int, spec: Spec) -> Tensor:
    """`x` knowing the lengths of the longer axis, whatever its Dim is."""
    dim = spec.dims[at]
    return x.with_lengths({dim: x.length(x.spec.dims[at] + more)}) if dim.dynamic else x


@layer("postfix_in_time")
class PostfixInTime(Layer):
    """`repeat` frames with the value `postfix` after each sequence's own end.  Shape: (B, T, F) -> (B, T + repeat, F)

    `postfix`: a number, or a layer without that axis. All frames after the end have this value.
    """

    recurrent = True

    def __init__(self, *, axis: AxisText = "T", postfix: LayerRef | float = 0.0, repeat: NaturalInt = 1) -> None:
        super().__init__()
        self.axis = axis
        self.postfix = postfix
        self.repeat = repeat

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The longer axis."""
        x, postfix = sources[0], refs.get("postfix")
        if x is None or any(r is None for r in refs.values()):
            return None
        at = find_axis(x, self.axis)
        longer = with_axis(x, at, self._longer(x.dims[at]))
        return longer if postfix is None else common((longer, postfix), self.behavior)

    def _longer(self, dim: Dim) -> Dim:
        return self.axis_dim(self.options.out_dim, dim + self.repeat)

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """The source and the postfix."""
        at = find_axis(x.spec, self.axis)
        spec = self.made_spec(x.spec, **{k: r.spec for k, r in refs.items()})
        valid = mask(x, at)
        if valid is None:
            valid = torch.ones([x.data.shape[at] if i == at else 1 for i in range(x.spec.rank)], dtype=torch.bool)
        longer = with_axis(x.spec, at, self._longer(x.spec.dims[at]))
        known = _with_new_lengths(joined(x.data, x.spec, [x, *refs.values()]), at, self.repeat, longer)
        data, valid = (
            place(known.with_data(pad(t, at, 0, self.repeat, value=0), longer), spec, self.behavior)
            for t in (x.data, valid.to(x.device))
        )
        value = place(refs["postfix"], spec, self.behavior) if "postfix" in refs else _like(self.postfix, data)
        return known.with_data(torch.where(valid, data, value), spec)
