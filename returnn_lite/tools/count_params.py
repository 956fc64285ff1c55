"""How many parameters a model has, and where: `count-params.py MODEL_OR_CONFIG [--depth 1]`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence

from returnn_lite.compat import formats  # noqa: F401 - registers the formats
from returnn_lite.engine.checkpoints.checkpoint import read_model
from returnn_lite.errors import ConfigError
from returnn_lite.tools.common import stderr_log, tool
from returnn_lite.tools.networks import config_of_files, untrained_network

MODEL_SUFFIXES = (".pt", ".npz", ".index")


def is_config(name: str) -> bool:
    """Whether this is a config file, and no model file."""
    if name.endswith(MODEL_SUFFIXES) or not os.path.isfile(name):
        return False
    with open(name, "rb") as file:
        start = file.read(512)
    return b"\0" not in start and not start.startswith((b"PK\x03\x04", b"\x80"))


def counts_of_config(name: str, epoch: int) -> tuple[dict[str, int], int]:
    """({parameter: its size}, the number of numbers that are trained) of the network of an epoch."""
    net = untrained_network(config_of_files([name]), stderr_log(1), epoch)
    trained = sum(param.numel() for param in net.params.values() if param.requires_grad)
    return {name: param.numel() for name, param in net.params.items()}, trained


def by_part(counts: Mapping[str, int], depth: int) -> dict[str, int]:
    """The sums over all parameters whose names begin with the same `depth` parts, the largest first."""
    found: dict[str, int] = {}
    for name, count in counts.items():
        parts = name.replace("/", ".").split(".")
        part = name[: len(".".join(parts[:depth]))]
        found[part] = found.get(part, 0) + count
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def table(counts: Mapping[str, int], depth: int) -> list[str]:
    """A line for each part: name, number, share."""
    total = sum(counts.values())
    parts = by_part(counts, depth)
    width = max(map(len, parts), default=0)
    return [f"{name:{width}} {count:12,} {count / max(total, 1):6.1%}" for name, count in parts.items()]


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(
        prog="count-params.py",
        description="Counts the numbers in a model file, or in the network of a config: by parts, and in all.",
    )
    parser.add_argument("model", help="a model file, or a config file")
    parser.add_argument("--depth", type=int, default=1, help="parts of names that are counted apart (1); 0: the sum")
    parser.add_argument("--epoch", type=int, default=1, help="whose network the config means (1)")
    args = parser.parse_args(argv)
    if args.depth < 0:
        raise ConfigError("--depth", f"must be at least 0, but is {args.depth} instead")
    if is_config(args.model):
        counts, trained = counts_of_config(args.model, args.epoch)
        note = f", {trained:,} of them trained"
    else:
        model = read_model(args.model, "model")
        counts, note = {name: value.numel() for name, value in model.items() if name != "global_step"}, ""
    if args.depth:
        print("\n".join(table(counts, args.depth)))
    print(f"{sum(counts.values()):,} numbers in {len(counts)} parameters{note}")
