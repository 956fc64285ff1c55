"""Converts model files between `.pt` and TensorFlow's format, or shows what is in one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from returnn_lite.compat import formats  # noqa: F401 - registers the formats
from returnn_lite.engine.checkpoints.checkpoint import as_arrays, read_model, save_model
from returnn_lite.engine.checkpoints.find import epoch_of_file, model_file, strip_suffix
from returnn_lite.engine.checkpoints.formats import FORMATS, format_of
from returnn_lite.files import write_atomically
from returnn_lite.tools.common import tool

SUFFIXES = {".pt": "pt", ".npz": "npz", **{form.suffix: name for name, form in FORMATS.items()}}


def suffix_format(name: str) -> str | None:
    """The format that a name's suffix says, if it has one."""
    return next((form for suffix, form in SUFFIXES.items() if name.endswith(suffix)), None)


def target_format(output: str, source: str) -> str:
    """The format to write: by the suffix of `output`; without one, TensorFlow's from `.pt` or `.npz`, `.pt` from it."""
    return suffix_format(output) or ("pt" if format_of(source) else "tf")


def write(output: str, model: Mapping[str, torch.Tensor], form: str, *, epoch: int) -> str:
    """Writes {name: tensor} under the base name of `output`; returns the name of the main file."""
    base = strip_suffix(output)
    if form == "npz":
        write_atomically(base + ".npz", lambda file: np.savez(file, **as_arrays(model)))  # type: ignore[arg-type]
    else:
        params = {name: value for name, value in model.items() if name != "global_step"}
        step = int(model.get("global_step", torch.tensor(0)))
        save_model(base, params, info={"epoch": epoch, "step": step}, formats=[form])
    return base + next(suffix for suffix, name in SUFFIXES.items() if name == form)


def describe(model: Mapping[str, torch.Tensor]) -> list[str]:
    """A line for each entry: name, type, shape."""
    width = max(map(len, model), default=0)
    return [f"{k:{width}}  {str(v.dtype)[6:]:8} {tuple(v.shape)}" for k, v in sorted(model.items())]


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(
        prog="convert_checkpoint.py",
        description="Converts model files between .pt (or .npz) and TensorFlow's format; without OUTPUT, shows what is"
        " in the file. Parameters keep their names and layouts; those that differ between LSTM variants and versions"
        " of batch normalisation are converted when a network loads the file.",
    )
    parser.add_argument("input", help="a model file, with or without .pt, .npz, .index")
    parser.add_argument("output", nargs="?", help="with .pt, .npz or .index; without: TensorFlow's from .pt, and back")
    args = parser.parse_args(argv)
    model = read_model(args.input)
    if args.output is None:
        print("\n".join(describe(model)))
        return
    form = target_format(args.output, model_file(args.input) or args.input)
    name = write(args.output, model, form, epoch=epoch_of_file(args.input) or 0)
    print(f"{name}: {len(model)} entries")
