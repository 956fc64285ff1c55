"""`rnn.py --help-loss`, `--help-dataset`, `--help-optimizer NAME`: what a class does, its options, their defaults."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import fields

import returnn_lite.catalog  # noqa: F401  (fills the registries)
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.datasets.registry import dataset_class
from returnn_lite.datasets.registry import own_options as dataset_options
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.losses.base import CommonLossOptions, loss_class, loss_names
from returnn_lite.optim.resolve import find_class


def describe_loss(name: str) -> str:
    """A loss and its `loss_opts`. Raises ConfigError for an unknown one."""
    if name not in loss_names():
        known = "; there are " + ", ".join(loss_names())
        raise ConfigError("--help-loss", f"unknown loss {name!r}{did_you_mean(name, loss_names()) or known}")
    cls = loss_class(name)
    own = [p for p in inspect.signature(cls).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return _text(name, cls, own, "loss_opts", (field.name for field in fields(CommonLossOptions)))


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
