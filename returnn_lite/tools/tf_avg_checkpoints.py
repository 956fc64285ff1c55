"""Averages TensorFlow's files with the options that other programs call this tool with."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from returnn_lite.engine.find import strip_suffix
from returnn_lite.tools import avg_checkpoints


def main(argv: Sequence[str]) -> int:
    """Runs the tool; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="tf_avg_checkpoints.py",
        description="Averages the parameters in files of TensorFlow's format; of integers (counters) the last.",
    )
    parser.add_argument("--checkpoints", required=True, help="names without suffix, divided by commas: 010,011,012")
    parser.add_argument("--prefix", default="", help="what to put before each of them: out/model.")
    parser.add_argument("--output_path", required=True, help="the name to write, without suffix")
    args = parser.parse_args(argv)
    names = [f"{strip_suffix(args.prefix + name)}.index" for name in args.checkpoints.split(",") if name]
    return avg_checkpoints.main([f"{strip_suffix(args.output_path)}.index", *names])
