"""Attention weights as pictures: `get-attention-weights.py my.config --layers output/att_weights --out pictures`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial

import numpy as np

from returnn_lite.datasets import Dataset
from returnn_lite.engine.attention_maps import attention_maps, draw, of_queries, plain, require_matplotlib
from returnn_lite.tools.common import tool
from returnn_lite.tools.dump_forward import add_network_options, network_outputs
from returnn_lite.tools.networks import SeqOutputs


def labels_of(dataset: Dataset, seq: SeqOutputs, key: str, length: int) -> list[str] | None:
    """The names of a sequence's classes, where there are so many of them, or one less (the end)."""
    names, classes = dataset.labels.get(key), seq.data.get(key)
    if not names or classes is None or classes.ndim != 1:
        return None
    return of_queries([names[int(i)] for i in classes], length)


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(
        prog="get-attention-weights.py",
        description="Plots attention weights of layers for the sequences of a dataset, one picture each; the decoder"
        " follows the reference.",
    )
    add_network_options(parser, layers='layers with attention weights, those in a loop as "output/att_weights"')
    parser.add_argument("--out", required=True, metavar="FOLDER", help="the folder for the pictures, <tag>.<layer>.png")
    parser.add_argument("--numpy", action="store_true", help="also writes <tag>.<layer>.npy (heads, queries, keys)")
    parser.add_argument("--key", default="classes", help="the data key whose labels are shown at the queries (classes)")
    args = parser.parse_args(argv)
    require_matplotlib("")
    os.makedirs(args.out, exist_ok=True)
    dataset, found = network_outputs(args, partial(attention_maps, option="--layers"))
    count = 0
    for seq in found:
        for layer, maps in seq.layers.items():
            base = os.path.join(args.out, f"{plain(seq.tag)}.{plain(layer)}")
            labels = labels_of(dataset, seq, args.key, maps.shape[1])
            draw(maps, f"{seq.tag}  {layer}", labels, f"{base}.png", option="--out")
            if args.numpy:
                np.save(f"{base}.npy", maps)
            count += 1
    print(f"{args.out}: {count} pictures")
