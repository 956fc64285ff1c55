"""All names of `returnn.frontend`, what each is, and what is refused, as tables in docs/frontend.md."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from returnn_lite.frontend import NOT_HERE
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.loss import Loss
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.parameter import Parameter
from returnn_lite.frontend.run_ctx import RunContext
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.frontend.tensor_dict import TensorDict
from returnn_lite.tools.renewed_page import renew

MARK = "names"
PACKAGE = "returnn_lite.frontend"
# How configs write it -> the module.
PARTS = {
    "rf": PACKAGE,
    **{f"rf.{name}": f"{PACKAGE}.{name}" for name in ("audio", "init", "nested", "hooks")},
    **{
        f"returnn.frontend.{name}": f"{PACKAGE}.{name}"
        for name in (
            *("encoder.base", "encoder.conformer", "encoder.conformer_v2", "encoder.e_branchformer"),
            *("encoder.transformer", "decoder.transformer", "conversions.torch_nn", "conversions.hf_llama"),
        )
    },
    "returnn.torch.frontend.bridge": f"{PACKAGE}.bridge",
    "returnn.tensor.marked_dim": f"{PACKAGE}.marked_dim",
}
CLASSES: tuple[type, ...] = (Dim, Tensor, TensorDict, Module, Parameter, RunContext, Loss)


def tables() -> str:
    """All tables, in Markdown."""
    parts = [_table(f"`{name}`", _names_of(name, importlib.import_module(module))) for name, module in PARTS.items()]
    members = [_table(f"Members of `{cls.__name__}`", _members_of(cls)) for cls in CLASSES]
    refused = _table("Refused, in one line", ((f"`rf.{name}`", text) for name, text in sorted(NOT_HERE.items())))
    return "\n".join([*parts, *members, refused])


def _table(head: str, rows: Iterator[tuple[str, str]]) -> str:
    lines = [f"| {head} | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)]
    return "\n".join(lines) + "\n"


def _names_of(prefix: str, module: ModuleType) -> Iterator[tuple[str, str]]:
    """Functions, classes and values of the package that a module has."""
    short = prefix if prefix.startswith("rf") else ""
    exported = getattr(module, "__all__", None)
    for name in sorted(exported or vars(module), key=str.lower):
        value = getattr(module, name)
        if name.startswith("_") or isinstance(value, ModuleType) or not _is_ours(value, module, exported):
            continue
        text = _of_value(value) if isinstance(value, Dim) else _first_line(value)
        yield f"`{short}.{name}`" if short else f"`{name}`", _cell(text)


def _is_ours(value: Any, module: ModuleType, exported: Sequence[str] | None) -> bool:
    """Whether a value belongs to the frontend, and, but for the main module, is defined by this one."""
    if isinstance(value, Dim):
        return module.__name__ == PACKAGE
    home = getattr(value, "__module__", None)
    if not callable(value) or not str(home).startswith(PACKAGE) or inspect.getdoc(value) is None:
        return False
    return module.__name__ == PACKAGE or exported is not None or f"{home}.".startswith(f"{module.__name__}.")


def _of_value(value: Dim) -> str:
    return "The axis of sequences in a batch." if value.is_batch_dim() else "In place of an axis: one step of a loop."


def _members_of(cls: type) -> Iterator[tuple[str, str]]:
    """Public methods and properties that are not the base class's."""
    base = set(dir(Tensor)) if cls is Parameter else set()
    for name in sorted(dir(cls), key=str.lower):
        value = inspect.getattr_static(cls, name)
        if not name.startswith("_") and name not in base and inspect.getdoc(value) is not None and not _is_slot(value):
            yield f"`{name}`", _cell(_first_line(value))


def _is_slot(value: object) -> bool:
    return inspect.ismemberdescriptor(value) or isinstance(value, str | int | float | dict)


def _first_line(value: Callable[..., Any]) -> str:
    """The first sentence of the docstring, up to a blank line."""
    return " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(argv: Sequence[str]) -> int:
    """Renews the tables in the page that is named, or prints them."""
    return renew(argv, "frontend_names.py", "All names of returnn.frontend, and what each is.", MARK, tables)
