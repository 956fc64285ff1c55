"""Averages the parameters of several epochs: `avg_checkpoints.py OUT.pt model.010 model.011 …`.

The same under the names and with the options that other programs use: `torch_avg_checkpoints.py`,
`tf_avg_checkpoints.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from returnn_lite.engine.checkpoints.checkpoint import read_model
from returnn_lite.engine.checkpoints.find import epoch_base, epoch_of_file, model_file, strip_suffix
from returnn_lite.engine.checkpoints.formats import format_of
from returnn_lite.errors import ConfigError
from returnn_lite.tools.common import tool
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
    for part in args.epochs.split(",") if args.epochs else []:
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            raise ConfigError("--epochs", f"must be numbers and ranges such as 10-12,15, but has {part!r} instead")
        names += [epoch_base(args.model or "", epoch) for epoch in range(int(first), int(last or first) + 1)]
    return names


def write_average(output: str, names: Sequence[str]) -> None:
    """Reads the models, writes their average; the format is by the suffix of `output`, else that of the first."""
    if not names:
        raise ConfigError("models", "there must be at least one model file")
    models: list[dict[str, Any]] = [read_model(name) for name in names]
    averaged = average(models, names)
    form = suffix_format(output) or ("tf" if format_of(model_file(names[0]) or "") else "pt")
    name = write(output, averaged, form, epoch=epoch_of_file(names[-1]) or 0)
    print(f"{name}: average of {len(names)} models, {len(averaged)} entries")


@tool
def main(argv: Sequence[str]) -> None:
    """Runs `avg_checkpoints.py`."""
    parser = argparse.ArgumentParser(
        prog="avg_checkpoints.py", description="Averages the parameters of several epochs (also of TensorFlow's files)."
    )
    parser.add_argument("output", help="the model file to write, such as out/model.avg.pt; without suffix as the first")
    parser.add_argument("models", nargs="*", help="model files, with or without suffix")
    parser.add_argument("--model", help="the config's `model`, for --epochs")
    parser.add_argument("--epochs", help="epochs and ranges of epochs: 10-12,15")
    args = parser.parse_args(argv)
    write_average(args.output, filenames(args))


@tool
def torch_main(argv: Sequence[str]) -> None:
    """Runs `torch_avg_checkpoints.py`, with the options that other programs call it with."""
    parser = argparse.ArgumentParser(
        prog="torch_avg_checkpoints.py", description="Averages the parameters in .pt files; of integers the last."
    )
    parser.add_argument("--checkpoints", required=True, nargs="+", help="files, or what --prefix makes files of")
    parser.add_argument("--prefix", default="", help="prepended to each of them: out/model.")
    parser.add_argument("--postfix", default="", help="appended to each of them: .pt")
    parser.add_argument("--output_path", required=True, help="the file to write")
    args = parser.parse_args(argv)
    names = [name for text in args.checkpoints for name in text.split(",") if name]
    write_average(args.output_path, [f"{args.prefix}{name}{args.postfix}" for name in names])


@tool
def tf_main(argv: Sequence[str]) -> None:
    """Runs `tf_avg_checkpoints.py`, with the options that other programs call it with."""
    parser = argparse.ArgumentParser(
        prog="tf_avg_checkpoints.py",
        description="Averages the parameters in files of TensorFlow's format; of integers (counters) the last.",
    )
    parser.add_argument("--checkpoints", required=True, help="comma-separated names without suffix: 010,011,012")
    parser.add_argument("--prefix", default="", help="prepended to each of them: out/model.")
    parser.add_argument("--output_path", required=True, help="the name to write, without suffix")
    args = parser.parse_args(argv)
    names = [f"{strip_suffix(args.prefix + name)}.index" for name in args.checkpoints.split(",") if name]
    write_average(f"{strip_suffix(args.output_path)}.index", names)
