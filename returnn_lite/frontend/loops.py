"""Loops and conditions: `while_loop`, `scan`, `cond`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import tree

from returnn_lite.frontend.binary import logical_and
from returnn_lite.frontend.const import convert_to_tensor, full
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.elementwise import cast, copy_to_device
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import show
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.frontend.tensor_array import TensorArray
from returnn_lite.frontend.types import Nested, Operand
from returnn_lite.frontend.where import where


def is_true(value: object, what: str) -> bool:
    """A Python bool, or a scalar bool tensor, as a bool. WrongUse for anything else."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, Tensor):
        raise WrongUse(f"the condition of {what} must be a bool or a scalar bool tensor, but is {value!r} instead")
    if value.dims or value.dtype != "bool":
        raise WrongUse(f"the condition of {what} must be a scalar bool tensor, but is {value} instead")
    if value.raw_tensor.device.type != "cpu":
        raise WrongUse(f"the condition of {what} must be on the CPU, but is on {value.device}; use rf.copy_to_device")
    return bool(value.raw_tensor)


def cond(pred: Operand, true_fn: Callable[[], Nested], false_fn: Callable[[], Nested]) -> Nested:
    """The result of one of the two functions; the other is not called."""
    if isinstance(pred, Tensor) and not pred.dims:
        pred = copy_to_device(pred, "cpu")
    return true_fn() if is_true(pred, "cond") else false_fn()


def while_loop(cond: Callable[[Nested], Nested], body: Callable[[Nested], Nested], initial: Nested) -> Nested:
    """The state after `body` was applied as long as `cond` holds of it.

    The state is a structure of Tensors, Dims, TensorArrays and None. Its tensors must keep their axes, but where a Dim
    of the state is replaced by another one.
    """
    state = initial
    for leaf in tree.flatten(state):
        _check_leaf(leaf)
    while is_true(cond(state), "while_loop"):
        new = body(state)
        check_same(state, new)
        state = new
    return state


def _check_leaf(leaf: Any) -> None:
    if leaf is not None and not isinstance(leaf, Tensor | Dim | TensorArray):
        text = "the state of a loop must be made of Tensors, Dims, TensorArrays and None, but has"
        raise WrongUse(f"{text} {leaf!r}; use rf.convert_to_tensor")


def check_same(before: Nested, after: Nested) -> None:
    """WrongUse if a structure differs from the one before, or its tensors do."""
    try:
        tree.assert_same_structure(before, after)
    except (ValueError, TypeError) as error:
        raise WrongUse(f"the state of a loop must keep its structure: {str(error).splitlines()[0]}") from None
    old, new = tree.flatten(before), tree.flatten(after)
    replaced = [(a, b) for a, b in zip(old, new, strict=True) if isinstance(a, Dim) and isinstance(b, Dim)]
    for a, b in zip(old, new, strict=True):
        _check_leaf(b)
        if isinstance(a, TensorArray) and isinstance(b, TensorArray):
            a, b = a.tensor_template, b.tensor_template
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            _check_tensor(a, b, replaced)
        elif type(a) is not type(b):
            raise WrongUse(f"the state of a loop must keep its kinds of values, but {a!r} becomes {b!r}")


def _check_tensor(a: Tensor, b: Tensor, replaced: Sequence[tuple[Dim, Dim]]) -> None:
    def now(dim: Dim) -> Dim:
        return next((new for old, new in replaced if old == dim), dim)

    wanted = {now(dim) for dim in a.dims}
    if set(b.dims) != wanted or len(a.dims) != len(b.dims):
        raise WrongUse(f"the state of a loop must keep its axes: {a} becomes {b}, expected {show(list(wanted))}")
    for role in ("sparse_dim", "feature_dim"):
        old, new = getattr(a, role), getattr(b, role)
        if (old is None) != (new is None) or (old is not None and now(old) != new):
            raise WrongUse(f"the state of a loop must keep its `{role}`: {a} becomes {b}")


# --- scan -------------------------------------------------------------------------------------------------------------


def scan(
    *,
    spatial_dim: Dim | None = None,
    cond_dims: Sequence[Dim] | None = None,
    cond_before_body: bool = True,
    initial: Nested = None,
    xs: Nested = None,
    ys: Nested = None,
    cond: Callable[[Nested, Nested], Nested] | None = None,
    body: Callable[[Nested, Nested], tuple[Nested, Nested]],
    max_seq_len: Operand = None,
    return_tensor_arrays: bool = False,
) -> tuple[Nested, Nested, Dim]:
    """`body(x, state) -> (y, state)` for each frame: (the ys along the axis, the last state, the axis).

    spatial_dim of known size: over the frames of `xs`; the states of sequences that ended stay. Without: as long as
    `cond(None, state)` holds, for each entry of `cond_dims`; the new axis has their numbers of frames as sizes. ys:
    templates of the outputs, without the axis.
    """
    if not callable(body):
        raise WrongUse(f"the `body` of scan must be a function, but is {body!r} instead")
    if cond is None:
        if spatial_dim is None or not spatial_dim.is_dim_known() or xs is None:
            raise WrongUse("scan must have a `spatial_dim` of known size and `xs`, or a `cond`")
        arrays, state = _over_frames(spatial_dim, initial, xs, ys, body)
    else:
        if xs is not None and tree.flatten(xs):
            raise WrongUse("scan with a `cond` must have no `xs`")
        if cond_dims is None:
            raise WrongUse("scan with a `cond` must have `cond_dims`, the axes of the condition")
        arrays, state, spatial_dim = _by_condition(
            spatial_dim, tuple(cond_dims), cond_before_body, initial, ys, cond, body, max_seq_len
        )
    if return_tensor_arrays:
        return arrays, state, spatial_dim
    axis = spatial_dim
    stacked = tree.map_structure(lambda a: a.stack(axis=axis) if isinstance(a, TensorArray) else a, arrays)
    return stacked, state, spatial_dim


def _arrays(ys: Any) -> Any:
    return tree.map_structure(lambda template: None if template is None else TensorArray(template), ys)


def _push(arrays: Any, y: Any) -> Any:
    try:
        return tree.map_structure(lambda array, value: None if array is None else array.push_back(value), arrays, y)
    except (ValueError, TypeError) as error:
        if isinstance(error, WrongUse):
            raise
        raise WrongUse(f"scan: `body` must give outputs as `ys` says: {str(error).splitlines()[0]}") from None


def _over_frames(dim: Dim, state: Any, xs: Any, ys: Any, body: Any) -> tuple[Any, Any]:
    frames = tree.map_structure(
        lambda x: TensorArray.unstack(x, axis=dim) if isinstance(x, Tensor) and dim in x.dims else x, xs
    )
    arrays = _arrays(ys)
    mask = dim.get_mask(device=_device_of(state)) if dim.need_masking() else None
    inside = None if mask is None else TensorArray.unstack(mask, axis=dim)
    for i in range(dim.padded_size()):
        x = tree.map_structure(lambda a, i=i: a[i] if isinstance(a, TensorArray) else a, frames)
        y, new = body(x, state)
        state = new if inside is None else _kept(inside[i], new, state)
        arrays = _push(arrays, y)
    return arrays, state


def _device_of(state: Any) -> Any:
    return next((leaf.device for leaf in tree.flatten(state) if isinstance(leaf, Tensor)), None)


def _kept(condition: Tensor, new: Any, old: Any) -> Any:
    """The new state where the condition holds, for tensors with all of its axes."""

    def choose(a: Any, b: Any) -> Any:
        if not isinstance(a, Tensor) or any(dim not in a.dims for dim in condition.dims):
            return a
        if a.raw_tensor.device != condition.raw_tensor.device:
            return where(copy_to_device(condition, a.device), a, b)
        return where(condition, a, b)

    return tree.map_structure(choose, new, old)


def _by_condition(
    dim: Dim | None,
    cond_dims: tuple[Dim, ...],
    cond_before_body: bool,
    state: Any,
    ys: Any,
    cond: Callable[[Any, Any], Any],
    body: Any,
    max_seq_len: Any,
) -> tuple[Any, Any, Dim]:
    device = _device_of(state)
    going = full(dims=cond_dims, fill_value=True, device=device)
    lengths = full(dims=cond_dims, fill_value=0, device=device)
    arrays, frame = _arrays(ys), 0
    limit = max_seq_len.get_size_tensor() if isinstance(max_seq_len, Dim) else max_seq_len

    def goes_on(before: Any, state: Any) -> Any:
        if max_seq_len is not None:
            before = logical_and(before, convert_to_tensor(limit, device=device) > frame)
        return logical_and(before, convert_to_tensor(cond(None, state), device=device))

    if cond_before_body:
        going = goes_on(going, state)
    while bool(going.raw_tensor.any()):
        y, new = body(None, state)
        arrays = _push(arrays, y)
        lengths, frame = lengths + cast(going, "int32"), frame + 1
        going = goes_on(going, new)
        state = _kept(going, new, state)  # what the condition ends is not entered any more
    sizes = copy_to_device(lengths, "cpu").copy_transpose(cond_dims)
    if dim is None:
        dim = Dim(sizes, name="scan")
    else:
        dim.dyn_size_ext = sizes
    return arrays, state, dim


@contextmanager
def control_flow_ctx(ctx: object = None) -> Iterator[object]:
    """Has no effect."""
    yield ctx


def assert_(condition: Operand, message: str, stop: bool = True) -> None:
    """WrongUse with the message if a bool, or any entry of a bool tensor, is False; only printed if not `stop`."""
    holds = bool(torch.all(condition.raw_tensor)) if isinstance(condition, Tensor) else bool(condition)
    if holds:
        return
    if stop:
        raise WrongUse(f"assertion failed: {message}")
    print(f"assertion failed: {message}")
