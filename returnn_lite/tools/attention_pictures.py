"""Attention weights as pictures: `get-attention-weights.py my.config --layers output/att_weights --out pictures`."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from returnn_lite.datasets import Dataset
from returnn_lite.errors import ConfigError
from returnn_lite.tools.common import tool
from returnn_lite.tools.dump_forward import add_network_options, network_outputs
from returnn_lite.tools.networks import SeqOutputs

MAX_LABELS = 60  # on an axis


def as_maps(array: np.ndarray, layer: str) -> np.ndarray:
    """The weights (heads, queries, keys) of an output with two axes, or three of which the smallest are the heads.

    Axes of size 1 are left out. ConfigError for any other output.
    """
    squeezed = array.reshape([size for size in array.shape if size != 1] or [1])
    if squeezed.ndim == 1:
        squeezed = squeezed[None]
    if squeezed.ndim == 2:
        return squeezed[None]
    if squeezed.ndim == 3:
        return np.moveaxis(squeezed, int(np.argmin(squeezed.shape)), 0)
    raise ConfigError("--layers", f"{layer} must have two axes, or three with heads, but has the shape {array.shape}")


def labels_of(dataset: Dataset, seq: SeqOutputs, key: str, length: int) -> list[str] | None:
    """The names of a sequence's classes, where there are so many of them, or one less (the end)."""
    names, classes = dataset.labels.get(key), seq.data.get(key)
    if not names or classes is None or classes.ndim != 1 or not length - 1 <= len(classes) <= length:
        return None
    return [names[int(i)] for i in classes] + ["</s>"] * (length - len(classes))


def draw(pyplot: Any, maps: np.ndarray, title: str, labels: list[str] | None, filename: str) -> None:
    """One picture with a part for each head: queries from top to bottom, keys from left to right."""
    heads = len(maps)
    figure, parts = pyplot.subplots(1, heads, figsize=(2 + 6 * heads, 5), squeeze=False, layout="constrained")
    for head, part in enumerate(parts[0]):
        image = part.imshow(maps[head], aspect="auto", interpolation="nearest", vmin=0)
        part.set_xlabel("key frame")
        part.set_ylabel("query" if head == 0 else "")
        if heads > 1:
            part.set_title(f"head {head}", fontsize="small")
        if labels is not None and len(labels) <= MAX_LABELS:
            part.set_yticks(range(len(labels)), labels, fontsize="small")
    figure.colorbar(image, ax=parts[0].tolist())
    figure.suptitle(title, fontsize="small")
    figure.savefig(filename, dpi=100)
    pyplot.close(figure)


def load_pyplot() -> Any:
    """matplotlib without a window; ConfigError where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("", 'pictures need matplotlib: pip install "returnn-lite[plot]"') from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def plain(text: str) -> str:
    """The text as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", text)


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(
        prog="get-attention-weights.py",
        description="Draws the attention weights of layers for the sequences of a dataset, a picture each; the decoder"
        " follows the reference.",
    )
    add_network_options(parser, layers='layers with attention weights, those in a loop as "output/att_weights"')
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the pictures go: <tag>.<layer>.png")
    parser.add_argument("--numpy", action="store_true", help="writes <tag>.<layer>.npy (heads, queries, keys), too")
    parser.add_argument("--key", default="classes", help="the data key whose labels stand beside the queries (classes)")
    args = parser.parse_args(argv)
    pyplot = load_pyplot()
    os.makedirs(args.out, exist_ok=True)
    dataset, found = network_outputs(args)
    count = 0
    for seq in found:
        for layer, array in seq.layers.items():
            maps = as_maps(array, layer)
            base = os.path.join(args.out, f"{plain(seq.tag)}.{plain(layer)}")
            labels = labels_of(dataset, seq, args.key, maps.shape[1])
            draw(pyplot, maps, f"{seq.tag}  {layer}", labels, f"{base}.png")
            if args.numpy:
                np.save(f"{base}.npy", maps)
            count += 1
    print(f"{args.out}: {count} pictures")
