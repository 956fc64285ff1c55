"""Calls of torch as Python text."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch

from returnn_lite.to_torch.functions import IN_PLACE, INFIX, NUMBERS, PREFIX, PROPERTIES, REVERSED, name_of
from returnn_lite.to_torch.recorder import Call, Tree
from returnn_lite.to_torch.regions import Helper
from returnn_lite.to_torch.scope import Unwritable
from returnn_lite.to_torch.sizes import constant

WIDTH = 120
FLOATS = (torch.zeros, torch.ones, torch.empty)  # of float32 without a type
GRADIENTS = ("sparse", "scale_grad_by_freq")
Leaf = Callable[[int, Any], str]  # number and value of a leaf of the arguments -> its text
READ = {"__float__": "float", "__int__": "int", "__bool__": "bool", "__index__": "int"}


def call_text(call: Call, leaf: Leaf, more: Sequence[str] = ()) -> str:
    """The call; `more` arguments of a helper."""
    form = Form(leaf)
    function = call.function
    if function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
        return _indexed(call, form)
    args = [form(a) for a in call.args]
    named = [f"{key}={text}" for key, text in _named(call, form).items()]
    if isinstance(function, Helper):
        return f"{function.name}({', '.join([*args, *more])})"
    if function in NUMBERS:
        kind = READ.get(function.__name__)
        return f"{kind}({args[0]})" if kind else f"{atom(args[0])}.{function.__name__}()"
    if function in PROPERTIES:
        return f"{atom(args[0])}{PROPERTIES[function]}"
    operator = _with_operator(function, args) if not named else ""
    if operator:
        return operator
    try:
        name = name_of(function)
    except ValueError as exc:
        raise Unwritable(str(exc)) from exc
    if name.startswith("."):
        return f"{atom(args[0])}{name}({', '.join([*args[1:], *named])})"
    return f"{name}({', '.join([*args, *named])})"


def _named(call: Call, form: Form) -> dict[str, str]:
    """The named arguments but those that are defaults, or count for gradients alone."""
    texts = {key: form(value) for key, value in call.kwargs.items()}
    if call.function in FLOATS and texts.get("dtype") == "torch.float32":
        del texts["dtype"]
    if not isinstance(call.function, FunctionType):
        return texts
    try:
        defaults = inspect.signature(call.function).parameters
    except ValueError:  # a wrapped method of C
        return texts
    return {
        key: text
        for key, text in texts.items()
        if key not in GRADIENTS and (key not in defaults or text != repr(defaults[key].default))
    }


def _with_operator(function: Callable[..., Any], args: Sequence[str]) -> str:
    if len(args) == 1 and function in PREFIX:
        return f"{PREFIX[function]}{atom(args[0])}"
    if len(args) != 2:
        return ""
    if function in IN_PLACE:
        return f"{args[0]} {IN_PLACE[function]} {args[1]}"
    left, right = map(atom, args)
    if function in INFIX:
        return f"{left} {INFIX[function]} {right}"
    return f"{right} {REVERSED[function]} {left}" if function in REVERSED else ""


def _indexed(call: Call, form: Form) -> str:
    x = atom(form(call.args[0]))
    index = call.args[1]
    items = index if isinstance(index, tuple) else (index,)
    inside = ", ".join(form(item, in_brackets=True) for item in items)
    return f"{x}[{inside}]" if len(call.args) == 2 else f"{x}[{inside}] = {form(call.args[2])}"


class Form:
    """Writes nests of arguments, leaf by leaf in order."""

    def __init__(self, leaf: Leaf) -> None:
        self.leaf = leaf
        self.count = 0

    def __call__(self, tree: Tree, *, in_brackets: bool = False) -> str:
        """The text; slices in brackets are written with colons."""
        if isinstance(tree, list):
            return f"[{', '.join(self(item) for item in tree)}]"
        if isinstance(tree, tuple):
            items = [self(item, in_brackets=in_brackets) for item in tree]
            return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
        if isinstance(tree, slice):
            parts = [self(x) for x in (tree.start, tree.stop, tree.step)]
            if not in_brackets:
                return f"slice({', '.join(parts)})"
            start, stop, step = ("" if part == "None" else part for part in parts)
            return f"{start}:{stop}" + (f":{step}" if step else "")
        self.count += 1
        return self.leaf(self.count - 1, tree)


def plain(x: Any) -> str:
    """A leaf that is neither a tensor nor a size. Raises Unwritable for what torch alone does not know."""
    if x is Ellipsis:
        return "..."
    if isinstance(x, float):
        return constant(x)
    if isinstance(x, (torch.dtype, torch.memory_format, torch.layout, bool, int, str)) or x is None:
        return repr(x)
    raise Unwritable(f"it passes a {type(x).__name__} to torch")


def atom(text: str) -> str:
    """The text, in parentheses if an operator beside it could take it apart."""
    depth = 0
    for c in text:
        depth += (c in "([{") - (c in ")]}")
        if depth == 0 and c == " ":
            return f"({text})"
    return f"({text})" if text[:1] in "-~" else text


def wrapped(line: str) -> str:
    """A line that is too long, over several: an item of the last of the outermost brackets each."""
    if len(line) <= WIDTH or line.lstrip().startswith("#"):
        return line
    indent = " " * (len(line) - len(line.lstrip()))
    start, depth, quote = -1, 0, ""
    items: list[str] = []
    for i in range(line.find(" = ") + 3 if " = " in line else len(indent), len(line)):
        c = line[i]
        if c in "'\"" and quote in ("", c):
            quote = "" if quote else c
        if quote:
            continue
        depth += (c in "([{") - (c in ")]}")
        if depth == 1 and c in "([{":
            start, last, items = i, i + 1, []
        elif depth == 1 and c == ",":
            items.append(line[last:i].strip())
            last = i + 1
    calls = line[start - 1].isalnum() or line[start - 1] in "_)]"
    if start < 0 or line[-1] not in ")]}" or calls != (line[start] == "("):  # it is no call and no list
        return line
    items.append(line[last:-1].strip())
    inner = "".join(f"{indent}    {item},\n" for item in items if item)
    first = line[: start + 1]
    targets, equals, call = first.strip().partition(" = ")
    if len(first) > WIDTH and equals and ", " in targets:
        names = "".join(f"{indent}    {name},\n" for name in targets.split(", "))
        first = f"{indent}(\n{names}{indent}) = {call}"
    return f"{first}\n{inner}{indent}{line[-1]}"
