"""What is in a model file: names, shapes, statistics, differences: `inspect-checkpoint.py MODEL [--stats]`."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from returnn_lite.compat import formats  # noqa: F401 - registers the formats
from returnn_lite.engine.checkpoints.checkpoint import read_model
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.tools.common import tool

Params = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Statistics:
    """Of the entries of a parameter; `bad`: how many are infinite or NaN, which the others leave out."""

    mean: float
    std_dev: float
    min: float
    max: float
    norm: float
    bad: int

    @classmethod
    def of(cls, values: torch.Tensor) -> Statistics:
        """In double precision; of no entries all 0."""
        numbers = values.detach().double().flatten()
        good = numbers[numbers.isfinite()]
        bad = len(numbers) - len(good)
        if not len(good):
            return cls(0.0, 0.0, 0.0, 0.0, 0.0, bad)
        mean, std_dev = float(good.mean()), float(good.std(correction=0))
        return cls(mean, std_dev, float(good.min()), float(good.max()), float(good.norm()), bad)

    def __str__(self) -> str:
        text = f"mean {self.mean:.4g}  std dev {self.std_dev:.4g}  min {self.min:.4g}  max {self.max:.4g}"
        return f"{text}  norm {self.norm:.4g}" + (f"  NOT FINITE: {self.bad}" if self.bad else "")


def chosen(model: Params, patterns: Sequence[str]) -> dict[str, torch.Tensor]:
    """The entries whose name fits one of the patterns, in alphabetical order; ConfigError for a pattern without any."""
    for pattern in patterns:
        if not fnmatch.filter(model, pattern):
            hint = did_you_mean(pattern, list(model))
            raise ConfigError("--params", f'no entry is called "{pattern}"{hint}; the file has {len(model)} entries')
    names = [name for name in sorted(model) if not patterns or any(fnmatch.fnmatch(name, p) for p in patterns)]
    return {name: model[name] for name in names}


def lines(model: Params, *, stats: bool, values: bool) -> list[str]:
    """For each entry name, type and shape; its statistics; its values."""
    width = max(map(len, model), default=0)
    found = []
    for name, value in model.items():
        line = f"{name:{width}}  {str(value.dtype)[6:]:8} {tuple(value.shape)!s:16}"
        found.append((line + (f"  {Statistics.of(value)}" if stats else "")).rstrip())
        if values:
            found.append(np.array2string(value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()))
    return found


def differences(model: Params, other: Params) -> list[str]:
    """A line for each entry that only one has, whose shapes differ, or whose values do: by how much at most."""
    found = []
    for name in sorted({*model, *other}):
        if name not in model or name not in other:
            found.append(f"{name}  only in the {'first' if name in model else 'second'}")
        elif model[name].shape != other[name].shape:
            found.append(f"{name}  shape {tuple(model[name].shape)} and {tuple(other[name].shape)}")
        elif not torch.equal(model[name], other[name]):
            gap = (model[name].double() - other[name].double()).abs()
            scale = float(model[name].double().abs().max())
            found.append(f"{name}  differs by at most {float(gap.max()):.4g}, where the largest value is {scale:.4g}")
    return found


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(
        prog="inspect-checkpoint.py",
        description="Shows the entries of a model file (.pt, .npz, TensorFlow's format), or how two files differ.",
    )
    add = parser.add_argument
    add("model", help="a model file, with or without suffix")
    add("--params", nargs="+", default=[], metavar="NAME", help="only these entries; * stands for any text")
    add("--stats", action="store_true", help="with mean, standard deviation, extremes and norm of each")
    add("--values", action="store_true", help="with the values")
    add("--compare", metavar="MODEL", help="shows instead where another model file differs")
    args = parser.parse_args(argv)
    model = chosen(read_model(args.model, "model"), args.params)
    if args.compare is None:
        print("\n".join(lines(model, stats=args.stats, values=args.values)))
        total = sum(value.numel() for name, value in model.items() if name != "global_step")
        print(f"{len(model)} entries, {total} numbers")
        return
    other = read_model(args.compare, "--compare")
    found = differences(model, chosen(other, args.params))
    print("\n".join(found or [f"the {len(model)} entries are equal"]))
