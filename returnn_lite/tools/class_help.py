"""`rnn.py --help-loss`, `--help-dataset`, `--help-optimizer NAME`: what a class does, its options, their defaults.

As a tool it writes the page of all losses.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

import returnn_lite.catalog  # noqa: F401  (fills the registries)
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.datasets.registry import dataset_class
from returnn_lite.datasets.registry import own_options as dataset_options
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.losses.base import CommonLossOptions, Loss, loss_class, loss_names
from returnn_lite.optim.resolve import find_class


def describe_loss(name: str) -> str:
    """A loss and its `loss_opts`. Raises ConfigError for an unknown one."""
    if name not in loss_names():
        known = "; there are " + ", ".join(loss_names())
        raise ConfigError("--help-loss", f"unknown loss {name!r}{did_you_mean(name, loss_names()) or known}")
    cls = loss_class(name)
    return _text(name, cls, loss_options(cls), "loss_opts", (field.name for field in fields(CommonLossOptions)))


def loss_options(cls: type[Loss]) -> list[inspect.Parameter]:
    """The `loss_opts` of a loss, but for those of all."""
    return [p for p in inspect.signature(cls).parameters.values() if p.kind is p.KEYWORD_ONLY]


def describe_dataset(name: str) -> str:
    """A dataset class and its options. Raises ConfigError for an unknown one."""
    cls = dataset_class(name, "--help-dataset")
    return _text(name, cls, dataset_options(cls).values(), "options", (field.name for field in fields(BaseOptions)))


def describe_optimizer(name: str) -> str:
    """An optimizer class and its options. Raises ConfigError for an unknown one."""
    cls = find_class(name, "--help-optimizer")
    if isinstance(cls, str):
        return f"{cls}\n    Thinc's class of this name: docs/optimizers.md\n"
    parameters = list(inspect.signature(cls).parameters.values())
    own = [p for p in parameters if p.name not in ("params", "lr", "learning_rate") and p.kind is not p.VAR_KEYWORD]
    return _text(name, cls, own, "options", ["learning_rate_multiplier", "param_groups", "schedules"])


def _text(name: str, cls: type, own: Iterable[inspect.Parameter], word: str, common: Iterable[str]) -> str:
    """The first paragraph of the class, a line for each option, and the options of all."""
    about = (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
    rows = [f"    {p.name}" + ("" if p.default is p.empty else f" = {p.default!r}") for p in own]
    lines = [
        name,
        f"    {about}" * bool(about),
        f"{word}:",
        *(rows or ["    none"]),
        f"{word} of all: {', '.join(common)}",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def losses_page() -> str:
    """All losses with their `loss_opts`, in Markdown."""
    words: dict[type[Loss], list[str]] = {}
    for name in loss_names():
        words.setdefault(loss_class(name), []).append(name)
    common = ", ".join(f"`{field.name} = {field.default!r}`" for field in fields(CommonLossOptions))
    parts = [
        "# Losses\n",
        "Written by `make docs` from the classes themselves; `rnn.py --help-loss NAME` prints one.\n",
        'A layer has a loss by `"loss": NAME`, with options in `loss_opts`, and counts by `loss_scale`. What is '
        "trained is the sum over frames (or sequences), what is reported the mean.\n",
        f"`loss_opts` of every loss: {common}.\n",
    ]
    for cls, names in words.items():
        options = ", ".join(_option(p) for p in loss_options(cls)) or "none"
        parts += [f"## {', '.join(names)}\n", f"{inspect.getdoc(cls) or ''}\n", f"`loss_opts`: {options}.\n"]
    return "\n".join(parts)


def _option(parameter: inspect.Parameter) -> str:
    default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
    return f"`{parameter.name}{default}`"


def main(argv: Sequence[str]) -> int:
    """Writes the page to the file that is named, or prints it."""
    parser = argparse.ArgumentParser(prog="loss_reference.py", description="Writes the reference of all losses.")
    parser.add_argument("file", nargs="?", type=Path, help="default: standard output")
    target: Path | None = parser.parse_args(argv).file
    if target is None:
        print(losses_page(), end="")
    else:
        target.write_text(losses_page(), encoding="utf-8")
    return 0
