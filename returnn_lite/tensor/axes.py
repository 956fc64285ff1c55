"""Axis texts of configs ("T", "F", "spatial:0", "stag:x", "except_time", ints, Dims …) to positions – only here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.tensor.dim import SPATIAL, Dim, same_axis
from returnn_lite.tensor.spec import Spec


class AxisValues:
    """What `axes` takes: a text, a number, a Dim, a list of these, or None. `in` tells whether a value is one."""

    def __contains__(self, value: object) -> bool:
        if isinstance(value, (list, tuple, set, frozenset)):
            return all(item in self for item in value)
        if isinstance(value, bool):
            return False
        return value is None or isinstance(value, (str, int, Dim)) or hasattr(value, "__index__")

    def name(self, kind: str) -> str:
        """How errors call them."""
        return "an axis (a str, an int, a Dim, or a list of them)"


AxisText = Annotated[Any, AxisValues()]

_NAMED: dict[str, Callable[[Spec], tuple[int, ...]]] = {
    "b": lambda s: _present(s, s.batch, "batch"),
    "batch": lambda s: _present(s, s.batch, "batch"),
    "t": lambda s: _present(s, s.time, "time"),
    "time": lambda s: _present(s, s.time, "time"),
    "t?": lambda s: () if s.time is None else (s.time,),
    "time?": lambda s: () if s.time is None else (s.time,),
    "f": lambda s: () if s.feature is None else (s.feature,),
    "feature": lambda s: () if s.feature is None else (s.feature,),
    "non_spatial": lambda s: () if s.feature is None else (s.feature,),
    "spatial": lambda s: s.spatial,
    "dyn": lambda s: s.dynamic,
    "dynamic": lambda s: s.dynamic,
    "static": lambda s: _where(s, lambda i: not s.dims[i].dynamic and i != s.batch),
    "spatial_except_time": lambda s: tuple(i for i in s.spatial if i != s.time),
    "except_time": lambda s: _where(s, lambda i: i not in (s.batch, s.time)),
    "except_batch": lambda s: _where(s, lambda i: i != s.batch),
    "*": lambda s: _where(s, lambda i: True),
    "": lambda s: (),
}
_INDEXED = {"s": "spatial", "spatial": "spatial", "d": "dyn", "dyn": "dyn", "dynamic": "dyn"}
_INDEXED |= {"static": "static", "except_batch": "except_batch"}


def axes(spec: Spec, text: AxisText, *, option: str = "axis") -> tuple[int, ...]:
    """Positions of the axes that `text` names, in the order of `text`.

    Case does not matter. Errors (ConfigError) name the option, the text and all names the axes answer to.
    """
    if isinstance(text, list):
        text = tuple(text)
    return spec.memo(("axes", text), lambda: _resolve(spec, text, option))


def axis(spec: Spec, text: AxisText, *, option: str = "axis") -> int:
    """Position of the one axis that `text` names; none or several are an error."""
    found = axes(spec, text, option=option)
    if len(found) != 1:
        what = "not found" if not found else "not a unique axis"
        raise ConfigError(option, f"{text!r} is {what} in {describe(spec)}")
    return found[0]


def describe(spec: Spec) -> str:
    """The Spec with the names each axis answers to, for error texts."""
    names = []
    for i, dim in enumerate(spec.dims):
        roles = [r for r, at in (("B", spec.batch), ("T", spec.time), ("F", spec.feature)) if at == i]
        if i in spec.spatial:
            roles.append(f"spatial:{spec.spatial.index(i)}")
        names.append("/".join(roles) + f" {dim.name!r} size {'?' if dim.size is None else dim.size}")
    return f"[{', '.join(names)}]"


def _resolve(spec: Spec, text: AxisText, option: str) -> tuple[int, ...]:
    if text is None:
        return ()
    if isinstance(text, (tuple, set, frozenset)):
        found = [i for part in text for i in _resolve(spec, part, option)]
        return tuple(dict.fromkeys(found))
    if isinstance(text, Dim):
        return _by_dim(spec, text)
    if isinstance(text, int) and not isinstance(text, bool):
        return (_by_int(spec, text, option),)
    if isinstance(text, str):
        return _by_text(spec, text, option)
    raise ConfigError(option, f"an axis must be a text, an int or a Dim, but is {text!r} instead")


def _by_dim(spec: Spec, dim: Dim) -> tuple[int, ...]:
    if dim.is_batch:
        return () if spec.batch is None else (spec.batch,)
    equal = [i for i, d in enumerate(spec.dims) if d == dim]
    equal = equal or [i for i, d in enumerate(spec.dims) if same_axis(d, dim)]
    if len(equal) > 1:  # an axis twice
        equal = [i for i in equal if spec.dims[i].priority == dim.priority] or equal
    return tuple(equal)


def _by_int(spec: Spec, number: int, option: str) -> int:
    """Ints count axes with batch, loop axes left out."""
    visible = [i for i, d in enumerate(spec.dims) if d not in spec.loop]
    if not -len(visible) <= number < len(visible):
        raise ConfigError(option, f"{number} must be an axis of {describe(spec)}, but it has {len(visible)} axes")
    return visible[number]


def _by_text(spec: Spec, text: str, option: str) -> tuple[int, ...]:
    low = text.lower()
    if low in _NAMED:
        return _NAMED[low](spec)
    if re.fullmatch("[btf]+", low):
        return tuple(i for letter in low for i in _NAMED[letter](spec))
    head, _, rest = low.partition(":")
    if head == "dim" and rest.isdigit():
        return _unique_size(spec, int(rest), option)
    if head in ("stag", "tag") and rest:
        return _tagged(spec, rest, spatial_only=head == "stag")
    if head == "stag-single" and rest:
        index, _, tag = rest.partition(":")
        return _nth(_tagged(spec, tag, spatial_only=True), index, text, spec, option)
    if head in _INDEXED and rest:
        return _nth(_NAMED[_INDEXED[head]](spec), rest, text, spec, option)
    raise ConfigError(
        option, f"invalid axis {text!r}{did_you_mean(low, [n for n in _NAMED if n])}; axes: {describe(spec)}"
    )


def _present(spec: Spec, position: int | None, role: str) -> tuple[int, ...]:
    if position is None:
        raise ConfigError("axis", f"no {role} axis in {describe(spec)}")
    return (position,)


def _where(spec: Spec, accept: Callable[[int], bool]) -> tuple[int, ...]:
    return tuple(i for i, d in enumerate(spec.dims) if d not in spec.loop and accept(i))


def _unique_size(spec: Spec, size: int, option: str) -> tuple[int, ...]:
    found = _where(spec, lambda i: spec.dims[i].size == size)
    if len(found) != 1:
        raise ConfigError(option, f"'dim:{size}' must name one axis, but {len(found)} match in {describe(spec)}")
    return found


def _tagged(spec: Spec, tag: str, *, spatial_only: bool) -> tuple[int, ...]:
    def matches(i: int) -> bool:
        dim = spec.dims[i]
        if spatial_only and i not in spec.spatial and (dim.kind != SPATIAL or dim.is_batch):
            return False
        return any(tag in name.lower() for name in _names(dim))

    return _where(spec, matches)


def _names(dim: Dim) -> list[str]:
    """The description of a Dim and, for a renamed one, of what it was named before."""
    names = [dim.name]
    while dim.op == "same" and isinstance(dim.parts[0], Dim):
        dim = dim.parts[0]
        names.append(dim.name)
    return names


def _nth(found: Sequence[int], index: str, text: str, spec: Spec, option: str) -> tuple[int, ...]:
    number = int(index) if re.fullmatch(r"-?\d+", index) else None
    if number is None or not -len(found) <= number < len(found):
        raise ConfigError(option, f"{text!r} names no axis: {len(found)} candidates in {describe(spec)}")
    return (found[number],)
