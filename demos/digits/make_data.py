"""Concatenate scanned handwritten digits into numbers: `make_data.py FOLDER` writes train.hdf, dev.hdf, test.hdf.

The scans are scikit-learn's bundled ones (1,797 images of 8x8 grey values by 43 writers; nothing is downloaded). A line
is 3 to 6 of them side by side with random gaps, read from left to right: one frame is one column of 10 grey values in
0..1 (8 rows, and an empty one above and below, so that a digit can be moved up or down). Two targets over the same 11
labels (0 is `</s>`, 1 to 10 are "0" to "9"):

    classes      the digits of the line                          for CTC, and to count errors
    classes_eos  the same with the end label `</s>` behind them  for models that have to say when they are done

No image is in two of the three sets. The training lines are shifted, sheared and stretched image by image and made
noisy, at random; those of the other sets are left as they were scanned.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import h5py
import numpy as np
from sklearn.datasets import load_digits

ROWS, COLUMNS = 10, 8
LABELS = ["</s>", *"0123456789"]
NUM_IMAGES = {"train": 1297, "dev": 150, "test": 350}
NUM_LINES = {"train": 12000, "dev": 300, "test": 600}
MIN_DIGITS, MAX_DIGITS, MAX_GAP = 3, 6, 3


def split_images(rng: np.random.RandomState) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images (n, 8, 8) in 0..1 and their digits (n,) for each set; every image is in one set only."""
    scans = load_digits()
    order = rng.permutation(len(scans.target))
    parts = np.split(order, np.cumsum(list(NUM_IMAGES.values()))[:-1])
    return {name: (scans.images[part] / 16.0, scans.target[part]) for name, part in zip(NUM_IMAGES, parts, strict=True)}


def pad_rows(images: np.ndarray) -> np.ndarray:
    """(n, 8, 8) -> (n, 10, 8), the images in the middle."""
    return np.pad(images, [(0, 0), (1, 1), (0, 0)])


def distort(images: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Shift, shear and stretch every image at random. (n, 8, 8) -> (n, 10, 8)"""
    amount = len(images)
    shift = rng.uniform(-0.9, 0.9, (2, amount, 1, 1))
    shear = rng.uniform(-0.25, 0.25, (2, amount, 1, 1))
    stretch = rng.uniform(0.9, 1.15, (2, amount, 1, 1))
    y, x = np.meshgrid(np.arange(ROWS) - (ROWS - 1) / 2, np.arange(COLUMNS) - (COLUMNS - 1) / 2, indexing="ij")
    source_y = stretch[0] * y + shear[0] * x + shift[0] + (images.shape[1] - 1) / 2
    source_x = stretch[1] * x + shear[1] * y + shift[1] + (images.shape[2] - 1) / 2
    return read_between_pixels(images, source_y, source_x)


def read_between_pixels(images: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Image n at the real positions y[n], x[n] (bilinear; empty outside). (n, h, w) -> (n, *y.shape[1:])"""
    margin = 3
    padded = np.pad(images, [(0, 0), (margin, margin), (margin, margin)])
    y = np.clip(y + margin, 0, padded.shape[1] - 1.001)
    x = np.clip(x + margin, 0, padded.shape[2] - 1.001)
    top, left = y.astype(int), x.astype(int)
    down, right = y - top, x - left
    which = np.arange(len(images))[:, None, None]
    upper = padded[which, top, left] * (1 - right) + padded[which, top, left + 1] * right
    lower = padded[which, top + 1, left] * (1 - right) + padded[which, top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def write_lines(
    filename: Path,
    images: np.ndarray,
    digits: np.ndarray,
    *,
    name: str,
    amount: int,
    rng: np.random.RandomState,
) -> None:
    """Draw `amount` lines from these images and write them as one HDF file."""
    lines, classes, tags = [], [], []
    for number in range(amount):
        chosen = rng.randint(0, len(digits), rng.randint(MIN_DIGITS, MAX_DIGITS + 1))
        if name == "train":
            line = line_up(distort(images[chosen], rng), rng)
            line += rng.normal(0.0, 0.08, line.shape)
        else:
            line = line_up(pad_rows(images[chosen]), rng)
        lines.append(line.astype("float32"))
        classes.append(digits[chosen] + 1)
        tags.append(f"{name}-{number:05d}-{''.join(map(str, digits[chosen]))}")
    write_hdf(filename, lines, classes, tags)


def line_up(images: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Images side by side with random gaps, as a sequence of columns. (n, 10, 8) -> (time, 10)"""
    gaps = rng.randint(0, MAX_GAP + 1, len(images) + 1)
    pieces = [np.zeros((gaps[0], ROWS))]
    for image, gap in zip(images, gaps[1:], strict=True):
        pieces += [image.T, np.zeros((gap, ROWS))]
    return np.concatenate(pieces)


def write_hdf(filename: Path, lines: list[np.ndarray], classes: list[np.ndarray], tags: list[str]) -> None:
    """The layout that HDFDataset reads: everything concatenated over time, and the lengths beside it."""
    targets = {"classes": classes, "classes_eos": [np.append(labels, 0) for labels in classes]}
    lengths = [[len(line), len(labels), len(labels) + 1] for line, labels in zip(lines, classes, strict=True)]
    with h5py.File(filename, "w") as file:
        file.attrs.update({"inputPattSize": ROWS, "numDims": 1, "numLabels": len(LABELS)})
        file.attrs.update({"numSeqs": len(lines), "numTimesteps": sum(map(len, lines))})
        file["inputs"] = np.concatenate(lines)
        file["seqLengths"] = np.array(lengths, "int32")
        file.create_dataset("seqTags", data=tags, dtype=h5py.string_dtype())
        for key, labels in targets.items():
            file[f"targets/data/{key}"] = np.concatenate(labels).astype("int32")
            file.require_group("targets/size").attrs[key] = [len(LABELS), 1]
            file.create_dataset(f"targets/labels/{key}", data=LABELS, dtype=h5py.string_dtype())


def make_data(folder: Path, *, seed: int = 1, num_lines: dict[str, int] = NUM_LINES) -> None:
    """Write train.hdf, dev.hdf and test.hdf to `folder`; the same seed gives the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, (name, (images, digits)) in enumerate(split_images(np.random.RandomState(seed)).items()):
        rng = np.random.RandomState([seed, place])
        unfinished = folder / f"{name}.hdf.unfinished-{os.getpid()}"  # another run may make the same
        write_lines(unfinished, images, digits, name=name, amount=num_lines[name], rng=rng)
        unfinished.replace(folder / f"{name}.hdf")
        print(f"{folder / name}.hdf: {num_lines[name]} lines of {len(digits)} different images")


def main() -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description="Line up handwritten digits into written numbers, as HDF files.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    amounts = {"metavar": ("TRAIN", "DEV", "TEST"), "default": list(NUM_LINES.values())}
    parser.add_argument("--lines", type=int, nargs=3, **amounts)
    options = parser.parse_args()
    make_data(options.folder, seed=options.seed, num_lines=dict(zip(NUM_LINES, options.lines, strict=True)))


if __name__ == "__main__":
    main()
