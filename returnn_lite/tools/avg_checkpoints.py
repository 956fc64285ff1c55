"""Averages the parameters of several epochs: `avg_checkpoints.py OUT.pt model.010 model.011 …`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from returnn_lite.engine.checkpoint import read_model
from returnn_lite.engine.find import epoch_base, epoch_of_file, model_file
from returnn_lite.engine.formats import format_of
from returnn_lite.errors import ConfigError
from returnn_lite.tools.convert_checkpoint import suffix_format, write

Params = Mapping[str, torch.Tensor]


def average(models: Sequence[Params], names: Sequence[str]) -> dict[str, torch.Tensor]:
    """The mean of every parameter, in double precision; of integers (counters) the last value.

    Raises ConfigError, with the file's name of `names`, if one has other parameters than the first.
    """
    for model, name in zip(models, names, strict=True):
        other = {key for key in models[0].keys() ^ model.keys()}
        other |= {key for key in models[0].keys() & model.keys() if models[0][key].shape != model[key].shape}
        if other:
            raise ConfigError(
                name, f"must have the parameters of {names[0]}, but differs in {', '.join(sorted(other))}"
            )
    found = {}
    for key, last in models[-1].items():
        if not last.is_floating_point():
            found[key] = last
            continue
        total = torch.zeros(last.shape, dtype=torch.float64)
        for model in models:
            total += model[key]
        found[key] = (total / len(models)).to(last.dtype)
    return found


def filenames(args: argparse.Namespace) -> list[str]:
    """The files that are named, and those of `--model` with the epochs of `--epochs`."""
    names = list(args.models)
    for part in (args.epochs or "").split(",") if args.epochs else []:
        first, _, last = part.partition("-")
        names += [epoch_base(args.model or "", epoch) for epoch in range(int(first), int(last or first) + 1)]
    return names


def main(argv: Sequence[str]) -> int:
    """Runs the tool; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="avg_checkpoints.py", description="Averages the parameters of several epochs (also of TensorFlow's files)."
    )
    parser.add_argument("output", help="the model file to write, such as out/model.avg.pt; without suffix as the first")
    parser.add_argument("models", nargs="*", help="model files, with or without suffix")
    parser.add_argument("--model", help="the config's `model`, for --epochs")
    parser.add_argument("--epochs", help="epochs and ranges of epochs: 10-12,15")
    args = parser.parse_args(argv)
    try:
        names = filenames(args)
        if not names:
            raise ConfigError("models", "there must be at least one model file")
        models: list[dict[str, Any]] = [read_model(name) for name in names]
        averaged = average(models, names)
        form = suffix_format(args.output) or ("tf" if format_of(model_file(names[0]) or "") else "pt")
        name = write(args.output, averaged, form, epoch=epoch_of_file(names[-1]) or 0)
    except (ConfigError, ValueError) as exc:
        print(exc, file=sys.stderr)
        return 1
    print(f"{name}: average of {len(names)} models, {len(averaged)} entries")
    return 0
