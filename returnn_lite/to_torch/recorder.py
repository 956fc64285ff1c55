"""Records what a network computes on a batch, as a list of torch calls on values."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from returnn_lite.layers.core.base import Layer
from returnn_lite.to_torch.functions import ALIASES, IGNORED, NUMBERS, PROPERTIES, changes_in_place

OPS = str(Path(__file__).resolve().parents[1] / "ops") + os.sep
SMALL = 64  # elements
ENDS = "_goes_on"  # the function of a loop that asks whether all sequences have ended
SEEN = ALIASES | set(PROPERTIES)
Tree: TypeAlias = Any  # Any: a nest of tuples, lists, dicts and slices, as arguments are


@dataclass(eq=False)
class Value:
    """A tensor of the recording. `source`: "input", "param" or "constant", with its name; "" for a call's result."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    source: str = ""
    name: str = ""
    tensor: torch.Tensor | None = field(default=None, repr=False)
    storage: int = 0  # views of one tensor have one


@dataclass(eq=False)
class Number:
    """A number that was read off a tensor."""

    value: int | float


@dataclass(eq=False)
class Op:
    """A call of a function of `ops`: its name, docstring, and the names of its arguments."""

    name: str
    doc: str
    names: dict[Value, str]
    numbers: dict[int | float, str]


@dataclass(eq=False)
class Call:
    """A call of torch: `args`, `kwargs` and `out` as they were, with a Value for each tensor.

    `layer`: path of the layer that it computes for; `ops`: the calls of functions of our `ops` that it is a part of,
    the outermost one first.
    """

    function: Any  # Any: a function of torch, or a helper of the file (`regions.Helper`)
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Tree
    layer: str
    ops: tuple[Op, ...]
    use: Any = None  # Any: of a helper (`regions.Use`), which is made of calls

    @cached_property
    def results(self) -> list[Any]:
        """The leaves of what it gives."""
        return leaves(self.out)

    @cached_property
    def arguments(self) -> list[Any]:
        """The leaves of what it reads."""
        return leaves(self.args, self.kwargs)

    @property
    def op(self) -> Op | None:
        """The outermost one."""
        return self.ops[0] if self.ops else None


class Recorder(TorchFunctionMode):
    """Records while it is entered; `inputs` and `params`: tensors by name.

    Loops run to their bound, since what their `end` layers give is set to False once it is recorded. Where a function
    of `ops` asks a tensor whether there is a short cut, it takes the general way (True).
    """

    def __init__(self, inputs: Mapping[str, torch.Tensor], params: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.values: dict[int, Value] = {}
        self.constants: dict[Hashable, Value] = {}
        self.places: dict[Hashable, Value] = {}
        self.kept: list[torch.Tensor] = []  # an id is a tensor's own as long as the tensor lives
        self.inputs = {name: self._add(x, "input", name) for name, x in inputs.items()}
        self.params = {name: self._add(x, "param", name) for name, x in params.items()}
        self.layer = ""
        self.ops: dict[FrameType, Op] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        asks = function in IGNORED or (getattr(function, "__name__", "") == "__get__" and function not in SEEN)
        if asks:
            return function(*args, **kwargs)
        known = self._values(args), self._values({key: x for key, x in kwargs.items() if key != "generator"})
        out = function(*args, **kwargs)
        if function is torch.Tensor.__bool__ and sys._getframe(1).f_code.co_name != ENDS:
            return bool(out) or bool(_place()[1])  # what Python decides cannot be recorded
        if function in NUMBERS:
            self._record(function, known, mapped(out, Number))
        elif function is torch.Tensor.__setitem__:
            self._record(function, known, None)
        elif any(isinstance(x, torch.Tensor) for x in leaves(out)):
            if isinstance(out, torch.Tensor) and _is_same(function, args):
                self.kept.append(out)
                self.values[id(out)] = self.value(args[0])
            elif changes_in_place(function) or id(out) not in self.values:
                self._record(function, known, self._values(out, computed=True), out)
        return out

    def _record(self, function: Callable[..., Any], known: tuple[Any, Any], out: Tree, result: Tree = ()) -> None:
        layer, frames = _place()
        self.layer = layer or self.layer
        self.calls.append(Call(function, *known, out, self.layer, tuple(map(self._op, frames))))
        if self.layer.endswith('["unit"]["end"]'):
            with torch._C.DisableTorchFunction():
                for x in leaves(result):
                    x.zero_()

    def _op(self, frame: FrameType) -> Op:
        """The call of a function of `ops` that this frame is, with its arguments as they were at first."""
        if frame not in self.ops:
            code = frame.f_code
            name = getattr(code, "co_qualname", code.co_name).removesuffix(".__init__").replace("<locals>.", "")
            arguments = {
                n: frame.f_locals.get(n) for n in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            }
            names = {self.values[id(x)]: n for n, x in arguments.items() if id(x) in self.values}
            numbers = {x: n for n, x in arguments.items() if isinstance(x, (int, float)) and not isinstance(x, bool)}
            doc = code.co_consts[0] if code.co_consts and isinstance(code.co_consts[0], str) else ""
            self.ops[frame] = Op(name.replace(".", "_").strip("_").lower(), inspect.cleandoc(doc), names, numbers)
        return self.ops[frame]

    def value(self, x: torch.Tensor, computed: bool = False) -> Value:
        """The Value of a tensor; one that nobody computed is a constant, unless it is another view of the same."""
        known = self.values.get(id(x))
        if known is None and not computed and x.numel():
            known = self.places.get(_memory(x))
        if known is not None:
            return known
        return self._add(x) if computed else self._constant(x)

    def _constant(self, x: torch.Tensor) -> Value:
        """The Value of a tensor that nobody computed; equal small ones share it."""
        if x.numel() > SMALL:
            return self._add(x, "constant")
        with torch._C.DisableTorchFunction():
            key = (x.dtype, tuple(x.shape), repr(x.tolist()))
        if key not in self.constants:
            self.constants[key] = self._add(x, "constant")
        self.kept.append(x)
        self.values[id(x)] = self.constants[key]
        return self.constants[key]

    def _add(self, x: torch.Tensor, source: str = "", name: str = "") -> Value:
        self.kept.append(x)
        kept = x.detach().clone() if source else None
        made = self.values[id(x)] = Value(tuple(x.shape), x.dtype, source, name, kept, x.untyped_storage().data_ptr())
        self.places[_memory(x)] = made
        return made

    def _values(self, tree: Tree, computed: bool = False) -> Tree:
        return mapped(tree, lambda x: self._leaf(x, computed))

    def _leaf(self, x: Any, computed: bool) -> Any:
        if isinstance(x, torch.Tensor):
            return self.value(x, computed)
        if isinstance(x, np.generic):
            return x.item()
        return self.value(torch.from_numpy(x.copy())) if isinstance(x, np.ndarray) else x


def mapped(tree: Tree, function: Callable[[Any], Any]) -> Tree:
    """The same nest with `function` of each leaf."""
    if isinstance(tree, (list, tuple)):
        items = [mapped(item, function) for item in tree]
        return items if isinstance(tree, list) else tuple(items)
    if isinstance(tree, dict):
        return {key: mapped(item, function) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(*(mapped(item, function) for item in (tree.start, tree.stop, tree.step)))
    return function(tree)


def leaves(*trees: Tree) -> list[Any]:
    """All leaves, in order."""
    found: list[Any] = []
    for tree in trees:
        if isinstance(tree, (list, tuple)):
            found += leaves(*tree)
        elif isinstance(tree, dict):
            found += leaves(*tree.values())
        elif isinstance(tree, slice):
            found += (tree.start, tree.stop, tree.step)
        else:
            found.append(tree)
    return found


def is_plain(x: Any) -> bool:
    """Whether an argument is an int or a float."""
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def nest(tree: Any, marked: Any) -> Any:
    """A hashable form of a nest of arguments."""
    if isinstance(tree, (list, tuple)):
        return (type(tree) is list, *(nest(item, marked) for item in tree))
    if isinstance(tree, dict):
        return tuple((key, nest(item, marked)) for key, item in tree.items())
    if isinstance(tree, slice):
        return ("slice", *(nest(item, marked) for item in (tree.start, tree.stop, tree.step)))
    return marked(tree)


def _memory(x: torch.Tensor) -> Hashable:
    """Which numbers a tensor shows: equal for two objects only if they show the same ones."""
    with torch._C.DisableTorchFunction():
        return x.data_ptr(), tuple(x.shape), x.stride(), x.dtype


def _is_same(function: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Whether the result is the first argument."""
    if function in ALIASES:
        return True
    if function is not torch.Tensor.permute:
        return False
    order = args[1:] if len(args) != 2 or isinstance(args[1], int) else args[1]
    return list(order) == list(range(len(order)))


def _place() -> tuple[str, list[FrameType]]:
    """The path of the innermost layer that is computing, and the calls of functions of `ops`, the outermost first."""
    layer, ops = "", []
    frame: FrameType | None = sys._getframe(2)  # behind this and __torch_function__
    while frame is not None:
        if frame.f_code.co_filename.startswith(OPS):
            ops.append(frame)
        this = frame.f_locals.get("self") if not layer else None
        if isinstance(this, Layer) and this.path:
            layer = this.path
        frame = frame.f_back
    return layer, ops[::-1]
