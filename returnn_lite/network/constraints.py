"""Terms that options of layers add to the objective for their outputs: `darc1`, `spatial_smoothing`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.node import Node
from returnn_lite.tensor import Tensor
from returnn_lite.tensor.masked import mask_all

Term = Callable[[Tensor], torch.Tensor]
SMALLEST_IMAGE = 3


def output_constraints(nodes: Iterable[tuple[Node, Callable[[], Node]]]) -> list[tuple[Node, Term]]:
    """(node, function of its output) of every layer with `darc1` or `spatial_smoothing`.

    `nodes`: each with what gives the node that holds its whole output (a loop has its frames stacked).
    """
    found: list[tuple[Node, Term]] = []
    for node, outside in nodes:
        options = node.layer.options
        if options.darc1:
            found.append((outside(), partial(_scaled, float(options.darc1), largest_activation)))
        if options.spatial_smoothing:
            term = partial(roughness, size=image_size(node))
            found.append((outside(), partial(_scaled, float(options.spatial_smoothing), term)))
    return found


def _scaled(factor: float, term: Term, x: Tensor) -> torch.Tensor:
    return factor * term(x)


def _valid(x: Tensor) -> torch.Tensor:
    """The data, features last, with 0 in frames after the sequence ends."""
    data, valid = x.data, mask_all(x)
    if valid is not None:
        data = torch.where(valid, data, torch.zeros((), dtype=data.dtype, device=data.device))
    return data if x.spec.feature is None else data.movedim(x.spec.feature, -1)


def largest_activation(x: Tensor) -> torch.Tensor:
    """max over features of sum over valid frames of |pre-activation| (DARC1, Kawaguchi et al. 2017)."""
    if x.pre is not None and x.pre.data.shape == x.data.shape:
        x = x.with_data(x.pre.data)
    return _valid(x).abs().flatten(0, -2).sum(0).max()


def image_size(node: Node) -> tuple[int, int]:
    """Height and width that make a feature vector an image: the width is the largest divisor up to the square root."""
    size = node.spec.dim if node.spec is not None else None
    if not size:
        raise ConfigError(
            node.layer.path, f"`spatial_smoothing` needs a feature axis of known size, but gets {node.spec}"
        )
    width = max(w for w in range(1, math.isqrt(size) + 1) if size % w == 0)
    if width < SMALLEST_IMAGE:
        text = f"`spatial_smoothing` sees {size} features as an image {size // width} x {width}, which is too small"
        raise ConfigError(node.layer.path, text)
    return size // width, width


def roughness(x: Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Sum over valid frames of the squares of a circular 3 x 3 high-pass filter over the features as an image of
    `size`.
    """
    images = _valid(x).reshape(-1, 1, *size)
    kernel = torch.full((1, 1, 3, 3), -1.0 / 8.0, dtype=images.dtype, device=images.device)
    kernel[0, 0, 1, 1] = 1.0
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="circular"), kernel).square().sum()
