"""Records what a network computes on a batch, as a list of torch calls on values."""

from __future__ import annotations

import inspect
import os
import string
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
from returnn_lite.layers.core.context import RunState
from returnn_lite.to_torch.functions import ALIASES, IGNORED, NUMBERS, PROPERTIES, changes_in_place

OPS = str(Path(__file__).resolve().parents[1] / "ops") + os.sep
OTHERS = (str(Path(torch.__file__).parent) + os.sep, str(Path(__file__).parent) + os.sep)  # whose variables say nothing
PLAIN = frozenset(
    {*string.ascii_lowercase, "data", "result", "out", "found", "made", "value", "values", "tensor", "raw", "moved",
     "flat", "given", "answer", "left", "right", "new", "item", "each", "total", "source", "sources", "own", "their"}
)  # fmt: skip
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
    """A call of a function of `ops`: its name, docstring, and the names of its arguments and variables."""

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
    ticks_left: int = 0  # of a question whether all sequences have ended: how many ticks could follow

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


@dataclass(frozen=True)
class Ends:
    """Where the loops of a recording end, whatever their `end` layers give: `run`, the present one, tells the tick.

    In tick `FIRST` the best hypothesis of each sequence ends (without a beam: all sequences but one), behind tick
    `last` the loop, so that the longest hypothesis, the longest of the best ones and the bound of the loop are unlike.
    """

    FIRST = 2
    run: Callable[[], RunState]
    last: int

    def put(self, x: torch.Tensor) -> None:
        """Says which hypotheses end, in place.  Shape: (B * K,) bool"""
        run = self.run()
        x.zero_()
        if run.tick is None or not run.batch or x.dim() != 1:
            return
        beam = len(x) // run.batch
        if run.tick == self.FIRST and beam:
            x[:: beam if beam > 1 else 1][beam == 1 :] = 1

    @property
    def tick(self) -> int:
        """The present one of the innermost loop."""
        return self.run().tick or 0

    @property
    def is_over(self) -> bool:
        """Whether the loop ends here."""
        return self.tick >= self.last


class Recorder(TorchFunctionMode):
    """Records while it is entered; `inputs` and `params`: tensors by name. Loops end by `ends`.

    Where a function of `ops` asks a tensor whether there is a short cut, it takes the general way (True).
    """

    def __init__(
        self, inputs: Mapping[str, torch.Tensor], params: Mapping[str, torch.Tensor], ends: Ends | None = None
    ) -> None:
        super().__init__()
        self.ends = ends
        self.calls: list[Call] = []
        self.values: dict[int, Value] = {}
        self.constants: dict[Hashable, Value] = {}
        self.places: dict[Hashable, Value] = {}
        self.kept: list[torch.Tensor] = []  # an id is a tensor's own as long as the tensor lives
        self.inputs = {name: self._add(x, "input", name) for name, x in inputs.items()}
        self.params = {name: self._add(x, "param", name) for name, x in params.items()}
        self.layer = ""
        self.ops: dict[FrameType, Op] = {}
        self.locals: dict[Value, str] = {}  # the names of variables in layers and in functions of the config

    def __exit__(self, *error: Any) -> None:
        for frame, op in self.ops.items():
            self._name_locals(frame, op.names)
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if isinstance(kwargs.get("out"), torch.Tensor):  # recorded as a result that is copied
            target = kwargs.pop("out")
            made = self.__torch_function__(function, types, args, kwargs)
            return self.__torch_function__(torch.Tensor.copy_, types, (target, made))
        asks = function in IGNORED or (getattr(function, "__name__", "") == "__get__" and function not in SEEN)
        if asks:
            return function(*args, **kwargs)
        known = self._values(args), self._values({key: x for key, x in kwargs.items() if key != "generator"})
        out = function(*args, **kwargs)
        if function is torch.Tensor.__bool__ and sys._getframe(1).f_code.co_name != ENDS:
            return bool(out) or bool(_place()[1])  # what Python decides cannot be recorded
        if function in NUMBERS:
            self._record(function, known, mapped(out, Number))
            if function is torch.Tensor.__bool__ and self.ends is not None:
                self.calls[-1].ticks_left = sys._getframe(1).f_locals["self"].bound - self.ends.tick - 1
                return self.ends.is_over
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
        if frames:
            self._name_locals(frames[-1], self._op(frames[-1]).names)
        else:
            for caller in _callers():
                self._name_locals(caller, self.locals, PLAIN)
        self.layer = layer or self.layer
        self.calls.append(Call(function, *known, out, self.layer, tuple(map(self._op, frames))))
        if self.ends is not None and self.layer.endswith('["unit"]["end"]'):
            with torch._C.DisableTorchFunction():
                for x in leaves(result):
                    self.ends.put(x)

    def _op(self, frame: FrameType) -> Op:
        """The call of a function of `ops` that this frame is, with its arguments as they were at first."""
        if frame not in self.ops:
            code = frame.f_code
            name = getattr(code, "co_qualname", code.co_name).removesuffix(".__init__").replace("<locals>.", "")
            arguments = {
                n: frame.f_locals.get(n) for n in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            }
            own = getattr(arguments.get("self"), "__dict__", {})
            known = {**own, **arguments}.items()
            names = {self.values[id(x)]: n.strip("_") for n, x in known if id(x) in self.values}
            numbers = {x: n for n, x in arguments.items() if isinstance(x, (int, float)) and not isinstance(x, bool)}
            doc = code.co_consts[0] if code.co_consts and isinstance(code.co_consts[0], str) else ""
            self.ops[frame] = Op(name.replace(".", "_").strip("_").lower(), inspect.cleandoc(doc), names, numbers)
        return self.ops[frame]

    def _name_locals(self, frame: FrameType, names: dict[Value, str], but: frozenset[str] = frozenset()) -> None:
        """Gives tensors the `names` of the variables and attributes that hold them, unless they have one."""
        own = getattr(frame.f_locals.get("self"), "__dict__", {})
        for name, x in [*frame.f_locals.items(), *own.items()]:
            if id(x) in self.values and isinstance(x, torch.Tensor) and name not in but:
                names.setdefault(self.values[id(x)], name.strip("_"))

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


def _callers() -> list[FrameType]:
    """The function that calls torch, and the one that calls it."""
    frame = sys._getframe(3)  # behind this, _record and __torch_function__
    return [f for f in (frame, frame.f_back) if f is not None and not f.f_code.co_filename.startswith(OTHERS)]


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
