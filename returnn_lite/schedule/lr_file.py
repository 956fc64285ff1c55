"""The learning rate file: {epoch: EpochData(learningRate=…, error={…})} as Python text. Read without running code.

Values are plain numbers; meta entries stand among the scores under ":meta:<name>". Written whole under a temporary
name in the same folder and renamed: a reader sees the old file or the new one.
"""

import ast
import math
import operator
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.files import write_atomically

META = ":meta:"
SETTINGS = "agent_settings"  # the name of the meta entry with what is set besides the learning rate
TEMPORARY = ".new_tmp"
ONE_LINE = 40  # a dict with fewer characters of items stands on one line


# What stands in the file: numbers, texts, lists, dicts, records; who wrote an entry knows its form.
Entry: TypeAlias = Any


@dataclass
class Record:
    """What is known of one epoch."""

    learning_rate: float | None
    error: dict[str, float] = field(default_factory=dict)  # scores and errors by key, such as "dev_score"
    meta: dict[str, Entry] = field(default_factory=dict)


# Writing


def to_text(epochs: Mapping[int, Record]) -> str:
    """The content of the file."""
    return better_repr(epochs) + "\n"


def better_repr(value: object) -> str:
    """As repr, but dicts sorted, long ones with a line per item; NaN and infinities such that Python reads them."""
    if isinstance(value, Record):
        error = value.error | {META + key: entry for key, entry in value.meta.items()}
        return f"EpochData(learningRate={better_repr(value.learning_rate)}, error={better_repr(error)})"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f"float('{value!r}')"
    if isinstance(value, list | tuple):
        inner = ", ".join(better_repr(item) for item in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    if isinstance(value, Mapping):
        items = [f"{better_repr(key)}: {better_repr(value[key])}" for key in sorted(value)]
        if sum(map(len, items)) >= ONE_LINE:
            return "{\n" + "".join(f"{item},\n" for item in items) + "}"
        return "{" + ", ".join(items) + "}"
    return repr(value)


def shortest(value: Entry) -> Entry:
    """A number of numpy or torch as the plain number with the shortest text: np.float32(0.01) -> 0.01."""
    if not hasattr(value, "item"):
        return value
    if "float32" in str(value.dtype):
        return float(str(np.float32(value.item())))
    return value.item()


def write(path: str, epochs: Mapping[int, Record]) -> None:
    """Replaces the file as a whole; its folder is made if needed."""
    text = to_text(epochs)
    write_atomically(path, lambda file: file.write(text.encode()), suffix=TEMPORARY)


def require_writable(path: str) -> None:
    """ConfigError if the file's folder is none that can be written or made: better before an epoch than after it."""
    folder = os.path.dirname(path) or "."
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder) or "."
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError("learning_rate_file", f"{path!r} cannot be written: {folder!r} is not a writable folder")


# Reading


def read(path: str) -> dict[int, Record]:
    """The file's records. ConfigError with the line if it is not as it must be."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        return from_text(content.decode("utf-8-sig"), path)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        text = f"must be UTF-8 text, but has the byte 0x{content[error.start]:02x} there"
        raise ConfigError(f"{path}:{line}", text) from None


def from_text(text: str, path: str) -> dict[int, Record]:
    """The records in the content of a file; `path` is for error messages."""
    whole, zero, _ = text.partition("\0")
    if zero:  # as power cuts leave them
        raise ConfigError(f"{path}:{1 + whole.count(chr(10))}", "must be text, but has a zero byte")
    begin = len(text) - len(text.lstrip())
    before = text.count("\n", 0, begin)  # lines
    try:
        return _records(ast.parse(text[begin:].rstrip(), mode="eval").body)
    except _NotAllowed as error:
        raise ConfigError(f"{path}:{before + error.line}", error.message) from None
    except SyntaxError as error:
        reason = error.msg if text.strip() else "it is empty"
        text = f"must be a Python expression, a dict {{epoch: EpochData(...), ...}}, but {reason}"
        raise ConfigError(f"{path}:{before + (error.lineno or 1)}", text) from None
    except (RecursionError, MemoryError) as error:  # too many brackets
        raise ConfigError(path, f"must be a dict {{epoch: EpochData(...), ...}}, but cannot be read: {error}") from None


def _records(node: ast.expr) -> dict[int, Record]:
    """The whole file's value."""
    if not isinstance(node, ast.Dict):
        raise _NotAllowed(node, f"must be a dict {{epoch: EpochData(...), ...}}, but is `{_short(node)}`")
    records = {}
    for key, value in zip(node.keys, node.values, strict=True):
        epoch, record = _key(key, node), evaluate(value)
        if not isinstance(epoch, int):
            raise _NotAllowed(value, f"must be a dict {{epoch: EpochData(...), ...}}, but has the key {epoch!r}")
        if not isinstance(record, Record):
            raise _NotAllowed(value, f"epoch {epoch} must be EpochData(...), but is `{_short(value)}`")
        records[epoch] = record
    return records


def _short(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else text[:59] + "…"


class _NotAllowed(Exception):
    def __init__(self, node: ast.expr | ast.keyword, message: str) -> None:
        self.line, self.message = node.lineno, message


NAMES = {"nan": math.nan, "inf": math.inf, "NaN": math.nan, "Infinity": math.inf}
NUMPY = ("np", "numpy")
OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def evaluate(node: ast.expr) -> Entry:
    """The value of an expression of literals, nan, inf, float(…), np.float32(…), EpochData(…) and arithmetic."""
    match node:
        case ast.Constant():
            return node.value
        case ast.Name() if node.id in NAMES:
            return NAMES[node.id]
        case ast.Attribute(value=ast.Name(id=module)) if module in NUMPY and node.attr in NAMES:
            return NAMES[node.attr]
        case ast.Dict():
            return {_key(key, node): evaluate(value) for key, value in zip(node.keys, node.values, strict=True)}
        case ast.List() | ast.Tuple():
            items = [evaluate(item) for item in node.elts]
            return items if isinstance(node, ast.List) else tuple(items)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            number = _number(node.operand)
            return -number if isinstance(node.op, ast.USub) else number
        case ast.BinOp() if type(node.op) in OPERATORS:
            return _computed(node)
        case ast.Call():
            return _call(node)
    raise _NotAllowed(node, f"must hold numbers, texts and EpochData only, but has `{ast.unparse(node)}`")


def _key(key: ast.expr | None, node: ast.Dict) -> Entry:
    value = None if key is None else evaluate(key)
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise _NotAllowed(node, "keys must be epochs or names")
    return value


def _number(node: ast.expr) -> int | float:
    value = evaluate(node)
    if not isinstance(value, int | float):
        raise _NotAllowed(node, f"must be a number, but is `{ast.unparse(node)}` instead")
    return value


def _computed(node: ast.BinOp) -> float:
    try:
        return OPERATORS[type(node.op)](_number(node.left), _number(node.right))
    except ArithmeticError as error:
        raise _NotAllowed(node, f"must be a number, but is `{_short(node)}`: {error}") from None


def _call(node: ast.Call) -> Entry:
    """EpochData(…); float('nan'), np.float32(0.01), np.int64(3): the plain number."""
    match node.func:
        case ast.Name(id="EpochData") if not node.args:
            return _record(node)
        case ast.Name(id="float" | "int" as kind) if len(node.args) == 1 and not node.keywords:
            pass
        case ast.Attribute(value=ast.Name(id="np" | "numpy"), attr=kind) if len(node.args) == 1 and not node.keywords:
            pass
        case _:
            kind = ""
    convert = float if kind.startswith("float") else int if kind.startswith(("int", "uint")) else None
    if convert is None:
        hint = did_you_mean(node.func.id, ["EpochData", "float", "int"]) if isinstance(node.func, ast.Name) else ""
        raise _NotAllowed(node, f"must hold numbers, texts and EpochData only, but has `{ast.unparse(node)}`{hint}")
    try:
        return convert(evaluate(node.args[0]))
    except (TypeError, ValueError, OverflowError):
        raise _NotAllowed(node, f"must be a number, but is `{ast.unparse(node)}` instead") from None


FIELDS = ("learningRate", "learning_rate", "error", "meta")


def _record(node: ast.Call) -> Record:
    """EpochData(learningRate=0.1, error={"dev_score": 2.0, ":meta:note": "x"}); `error` may be missing or a number."""
    nodes = {keyword.arg: keyword for keyword in node.keywords}
    for name, keyword in nodes.items():
        if name not in FIELDS:
            raise _NotAllowed(keyword, f"EpochData has no `{name}`, only {', '.join(FIELDS)}")
    values = {name: evaluate(keyword.value) for name, keyword in nodes.items()}
    rate = values.get("learningRate", values.get("learning_rate"))
    error, meta = values.get("error") or {}, values.get("meta") or {}
    if isinstance(error, int | float):  # a very old form
        error = {"old_format_score": float(error)}
    if not isinstance(error, dict) or not isinstance(meta, dict) or not isinstance(rate, int | float | None):
        raise _NotAllowed(node, f"`learningRate` must be a number, `error` a dict, but this is `{ast.unparse(node)}`")
    if not all(isinstance(key, str) for key in (*error, *meta)):
        raise _NotAllowed(node, f"the keys of `error` must be names, but this is `{ast.unparse(node)}`")
    scores = {key: value for key, value in error.items() if not key.startswith(META)}
    for key, value in scores.items():
        if not isinstance(value, int | float):
            raise _NotAllowed(node, f"`{key}` must be a number, but is {value!r} instead")
    meta = meta | {key.removeprefix(META): value for key, value in error.items() if key.startswith(META)}
    return Record(None if rate is None else float(rate), scores, meta)
