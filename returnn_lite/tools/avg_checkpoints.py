"""Averages the parameters of several epochs: `avg_checkpoints.py OUT.pt model.010 model.011 …`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from returnn_lite.engine.checkpoint import read_model, save_model
from returnn_lite.engine.find import epoch_base, epoch_of_file, strip_suffix
from returnn_lite.errors import ConfigError

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
        prog="avg_checkpoints.py", description="Averages the parameters of several epochs."
    )
    parser.add_argument("output", help="the model file to write, such as out/model.avg.pt")
    parser.add_argument("models", nargs="*", help="model files, with or without .pt")
    parser.add_argument("--model", help="the config's `model`, for --epochs")
    parser.add_argument("--epochs", help="epochs and ranges of epochs: 10-12,15")
    args = parser.parse_args(argv)
    try:
        names = filenames(args)
        if not names:
            raise ConfigError("models", "there must be at least one model file")
        models: list[dict[str, Any]] = [read_model(name) for name in names]
        averaged = average(models, names)
    except (ConfigError, ValueError) as exc:
        print(exc, file=sys.stderr)
        return 1
    step = int(averaged.get("global_step", torch.tensor(0)))
    epoch = epoch_of_file(names[-1]) or 0
    base = strip_suffix(args.output)
    save_model(base, {k: v for k, v in averaged.items() if k != "global_step"}, info={"epoch": epoch, "step": step})
    print(f"{base}.pt: average of {len(names)} models, {len(averaged)} entries")
    return 0
