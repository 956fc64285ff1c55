"""Turn Python's standard library into training text: `make_data.py FOLDER` writes train.txt, dev.txt, test.txt.

A line of the text is a block of whole lines of one source file, at most 300 characters of printable ASCII, with `⏎` for
each line end: one sequence of LmDataset. The name of a source file decides which set it belongs to, so that the split
stays the same on every machine and with every version of Python.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path

NEWLINE = "⏎"
BLOCK = 300  # characters
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo"}
NUM_CHARACTERS = {"train": 1_500_000, "dev": 50_000, "test": 100_000}


def set_of(name: Path) -> str:
    """By the name alone: one of 20 files is for dev, two are for test."""
    return {0: "dev", 1: "test", 2: "test"}.get(zlib.crc32(name.as_posix().encode()) % 20, "train")


def source_files(folder: Path, part: str) -> list[Path]:
    """The source files of a set."""
    names = [path.relative_to(folder) for path in folder.rglob("*.py")]
    names = [name for name in names if set_of(name) == part and not LEFT_OUT & set(name.parts)]
    return [folder / name for name in sorted(names)]


def printable(line: str) -> str:
    """Tabs as spaces, "?" for what is not printable ASCII, nothing at the end."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in line.expandtabs().rstrip())


def blocks(text: str) -> Iterator[str]:
    """The lines of a file, as many at once as fit into a block; lines that do not are left out."""
    block = ""
    for line in text.splitlines():
        line = printable(line) + NEWLINE
        if len(block) + len(line) > BLOCK:
            if block:
                yield block
            block = ""
        if len(line) <= BLOCK:
            block += line
    if block:
        yield block


def write_text(filename: Path, files: list[Path], num_characters: int) -> None:
    """Blocks of all these files, well mixed, until there are enough of them."""
    found = [block for file in files for block in blocks(file.read_text("utf8", "replace"))]
    random.Random(1).shuffle(found)
    total, unfinished = 0, filename.with_suffix(f".unfinished-{os.getpid()}")
    with unfinished.open("w", encoding="utf8") as out:
        for block in found:
            out.write(block + "\n")
            total += len(block)
            if total >= num_characters:
                break
    unfinished.replace(filename)
    print(f"{filename}: {total} characters")


def make_data(folder: Path, *, source: Path | None = None, num_characters: dict[str, int] = NUM_CHARACTERS) -> None:
    """Write train.txt, dev.txt and test.txt to `folder`, from the files below `source` (the standard library)."""
    source = source or Path(sysconfig.get_paths()["stdlib"])
    folder.mkdir(parents=True, exist_ok=True)
    for name, wanted in num_characters.items():
        files = source_files(source, name)
        if not files:
            sys.exit(f"there are no source files for {name} in {source}")
        write_text(folder / f"{name}.txt", files, wanted)


def main() -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description="Turn Python's standard library into text to learn from.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", type=Path, help="another folder with source files of Python")
    parser.add_argument(
        "--characters", type=int, nargs=3, metavar=("TRAIN", "DEV", "TEST"), default=list(NUM_CHARACTERS.values())
    )
    options = parser.parse_args()
    num_characters = dict(zip(NUM_CHARACTERS, options.characters, strict=True))
    make_data(options.folder, source=options.source, num_characters=num_characters)


if __name__ == "__main__":
    main()
