"""Train, dev and test sets, and the folder that they are written to."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pprint import pformat
from typing import Any, Protocol, TypeVar

import numpy as np

from returnn_lite.errors import ConfigError, ConfigErrors
from returnn_lite.tools.common import output_file

SETS = ("train", "dev", "test")
MOST_SHOWN = 20  # of the things that are wrong


class HasSplit(Protocol):
    """What may say which set it belongs to."""

    @property
    def split(self) -> str: ...


S = TypeVar("S", bound=HasSplit)


def add_set_options(parser: argparse.ArgumentParser) -> None:
    """The options about sets and vocabulary."""
    add = parser.add_argument
    add("--dev", type=float, default=0.05, metavar="SHARE", help="a share below 1, or a number, for the dev set (0.05)")
    add("--test", type=float, default=0.05, metavar="SHARE", help="the same for the test set (0.05); 0 for none")
    add("--seed", type=int, default=1, help="of the random choice of these (1)")
    add("--skip", action="store_true", help="skips wrong entries and lists them, instead of stopping")


def new_folder(path: str) -> None:
    """Makes the folder; ConfigError if it is a file, or holds something."""
    if os.path.exists(path) and not os.path.isdir(path):
        raise ConfigError(path, "must be a folder to write to, but is a file")
    if os.path.isdir(path) and os.listdir(path):
        raise ConfigError(path, f"must be a new or empty folder, but holds {sorted(os.listdir(path))[0]}")
    os.makedirs(path, exist_ok=True)


def good_ones(found: Sequence[S | ConfigError], skip: bool) -> list[S]:
    """Those without errors. The errors are raised together, or listed where they are to be left out."""
    wrong = [one for one in found if isinstance(one, ConfigError)]
    tell(wrong, skip)
    good = [one for one in found if not isinstance(one, ConfigError)]
    if not good:
        raise ConfigError("--skip", f"nothing is left of {len(found)} sequences")
    return good


def tell(wrong: Sequence[ConfigError], skip: bool) -> None:
    """Raises the errors together, the first ones of many; or prints them."""
    if not wrong:
        return
    shown = list(wrong[:MOST_SHOWN])
    if len(wrong) > MOST_SHOWN:
        shown.append(ConfigError("", f"… and {len(wrong) - MOST_SHOWN} more"))
    if not skip:
        raise shown[0] if len(shown) == 1 else ConfigErrors(shown)
    for error in shown:
        print(f"left out: {error}", file=sys.stderr)


def split_sets(items: Sequence[S], args: argparse.Namespace) -> dict[str, list[S]]:
    """{set: its items, in order}: as the items say, else at random. ConfigError if nothing is left to train on."""
    shares = {"dev": args.dev, "test": args.test}
    for name, share in shares.items():
        if not 0 <= share or (share >= 1 and share != int(share)):
            raise ConfigError(f"--{name}", f"must be a share below 1 or a whole number, but is {share:g}")
    if any(item.split for item in items):
        found = {name: [item for item in items if (item.split or "train") == name] for name in SETS}
    else:
        counts = {
            n: int(share) if share >= 1 else round(share * len(items)) or int(share > 0) for n, share in shares.items()
        }
        order = np.random.RandomState(args.seed).permutation(len(items))
        of = np.full(len(items), 0)
        of[order[: counts["dev"]]] = 1
        of[order[counts["dev"] : counts["dev"] + counts["test"]]] = 2
        found = {name: [item for item, at in zip(items, of, strict=True) if at == i] for i, name in enumerate(SETS)}
    if not found["train"]:
        raise ConfigError(
            "--dev", f"nothing is left to train on: {len(items)} sequences, {len(found['dev'])} of them for dev"
        )
    return {name: part for name, part in found.items() if part}


def write_config(folder: str, values: Mapping[str, Any], argv: Sequence[str]) -> str:
    """`data.config` with these options; its lines are what is to be pasted into a config."""
    lines = [f"{name} = {pformat(value, width=110, sort_dicts=False)}\n" for name, value in values.items()]
    path = os.path.join(folder, "data.config")
    with output_file(path) as file:
        file.writelines(["#!rnn.py\n", f"# Written by: returnn-lite data {shlex.join(argv)}\n", *lines])
    return "".join(lines)


def write_references(folder: str, name: str, texts: Mapping[str, str]) -> None:
    """The texts of a set as a Python dict, for error rates."""
    with output_file(os.path.join(folder, f"{name}.refs.py")) as file:
        file.writelines(["{\n", *(f"{tag!r}: {text!r},\n" for tag, text in texts.items()), "}\n"])
