"""Attention weights of sequences as arrays (heads, queries, keys), and pictures of them by matplotlib."""

from __future__ import annotations

import os
import re

import numpy as np

from returnn_lite.engine.tasks.hypotheses import unpadded
from returnn_lite.errors import ConfigError
from returnn_lite.tensor import Tensor

MAX_LABELS = 60  # on an axis


def attention_maps(output: Tensor, layer: str, *, option: str) -> list[np.ndarray]:
    """The weights (heads, queries, keys) of each sequence, without padding.

    Of two axes the first one are the queries, as it is in a loop; of more, the two whose sizes differ between sequences
    are queries and keys, and all others heads; a single one are the keys of one query. ConfigError, with the name of
    the option that asked for the layer, for any other output.
    """
    if output.spec.batch is None or output.spec.sparse:
        raise _no_weights(output, layer, option)
    output = output.batch_major()
    dims = [(axis, dim) for axis, dim in enumerate(output.spec.dims[1:]) if dim.dynamic or dim.size != 1]
    frames = [axis for axis, dim in dims if dim.dynamic] if len(dims) > 2 else [axis for axis, _ in dims]
    if not dims or (len(dims) > 2 and len(frames) != 2):
        raise _no_weights(output, layer, option)
    heads = [axis for axis in range(output.spec.rank - 1) if axis not in frames]
    return [_heads_first(array, heads, frames) for array in unpadded(output)]


def _no_weights(output: Tensor, layer: str, option: str) -> ConfigError:
    return ConfigError(
        option, f"{layer!r} must have the axes of queries and keys, and maybe heads, but is {output.spec}"
    )


def _heads_first(array: np.ndarray, heads: list[int], frames: list[int]) -> np.ndarray:
    """(heads, queries, keys), whatever the order of the axes is."""
    queries, keys = ([1] + [array.shape[axis] for axis in frames])[-2:]
    count = int(np.prod([array.shape[axis] for axis in heads]))
    return array.transpose([*heads, *frames]).reshape(count, queries, keys)


def of_queries(labels: list[str], length: int) -> list[str] | None:
    """The labels as those of `length` queries, if there are as many of them, or one less: then the last is the end."""
    return labels + ["</s>"] * (length - len(labels)) if length - 1 <= len(labels) <= length else None


def require_matplotlib(option: str) -> None:
    """ConfigError, with the name of the option that needs it, where matplotlib is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ConfigError(option, 'pictures need matplotlib: pip install "returnn-lite[plot]"') from None


def draw(maps: np.ndarray, title: str, labels: list[str] | None, filename: str, *, option: str) -> None:
    """Writes one picture with a part for each head: queries from top to bottom, keys from left to right.

    ConfigError, with the name of the option that gave the filename, where it cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 + 6 * len(maps), 5), layout="constrained")
    parts = figure.subplots(1, len(maps), squeeze=False)[0]
    for head, part in enumerate(parts):
        image = part.imshow(maps[head], aspect="auto", interpolation="nearest", vmin=0)
        part.set_xlabel("key frame")
        part.set_ylabel("query" if head == 0 else "")
        if len(maps) > 1:
            part.set_title(f"head {head}", fontsize="small")
        if labels is not None and len(labels) <= MAX_LABELS:
            part.set_yticks(range(len(labels)), labels, fontsize="small", parse_math=False)
    figure.colorbar(image, ax=parts.tolist())
    figure.suptitle(title, fontsize="small", parse_math=False)
    try:
        os.makedirs(os.path.dirname(filename) or ".", exist_ok=True)
        figure.savefig(filename, dpi=100)
    except OSError as error:
        raise ConfigError(option, f"cannot write {filename!r}: {error.strerror or error}") from None


def plain(text: str) -> str:
    """The text as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", text)
