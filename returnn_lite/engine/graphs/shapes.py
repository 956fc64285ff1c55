"""Batches of few shapes: time and batch axes padded up to the next of some sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from returnn_lite.layers.core.node import Node
from returnn_lite.network import Network
from returnn_lite.tensor import Spec

STEPS = 8  # sizes an octave: at most an eighth of a padded axis is padding, a sixteenth on average


def padded_size(size: int) -> int:
    """The next of the sizes that axes are padded to: n 2^k with n from 8 to 15.

    >>> [padded_size(n) for n in (7, 16, 17, 100, 500)]
    [7, 16, 18, 104, 512]
    """
    step = 1 << max(0, size.bit_length() - STEPS.bit_length())
    return -(-size // step) * step


@dataclass(frozen=True)
class BatchShape:
    """What batches that share a recorded step have in common: shape and dtype of each data key, the keys of lengths."""

    data: tuple[tuple[str, tuple[int, ...], torch.dtype], ...]
    lengths: tuple[str, ...]


def batch_shape(data: Mapping[str, torch.Tensor], lengths: Mapping[str, torch.Tensor]) -> BatchShape:
    """The shape of a batch-first batch."""
    found = tuple((key, tuple(data[key].shape), data[key].dtype) for key in sorted(data))
    return BatchShape(found, tuple(sorted(lengths)))


def padded_shape(shape: BatchShape, specs: Mapping[str, Spec], padding: Padding) -> BatchShape:
    """The shape of the batches that share a step with batches of this shape."""
    found = []
    for key, sizes, dtype in shape.data:
        padded = {i for i in _dynamic(specs[key]) if padding.frames} | ({0} if padding.sequences else set())
        found.append((key, tuple(padded_size(n) if i in padded else n for i, n in enumerate(sizes)), dtype))
    return replace(shape, data=tuple(found))


def _dynamic(spec: Spec) -> tuple[int, ...]:
    """The positions of dynamic axes in the batch-first data of a key."""
    dims = [d for d in spec.dims if not d.is_batch]
    return tuple(i + (spec.batch is not None) for i, d in enumerate(dims) if d.dynamic)


@dataclass(frozen=True)
class Padding:
    """Which axes of batches may be padded: whether layers do without looking at more `frames` behind the ends of all
    sequences, and whether each of the `sequences` is computed by itself, so that there may be more of them."""

    frames: bool
    sequences: bool

    @classmethod
    def of(cls, net: Network) -> Padding:
        """As the layers of a network say."""
        layers, program = net.program.layers, net.program
        alone = not any(layer.sees_batch or layer.options.batch_norm for layer in layers)
        kept = all(node.spec is not None and node.spec.batch is not None for node in program.evaluated)
        keys = all(net.extern_data.spec(key).batch is not None for key in program.data_keys)
        sequences = alone and kept and keys and not program.output_constraints and not any(map(_merges, program.nodes))
        return cls(alone and not any(layer.lets_padding_through for layer in layers), sequences)


def _merges(node: Node) -> bool:
    """Whether the layer makes of all sequences one thing."""
    spec = node.spec
    of_batch = any(n.spec is not None and n.spec.batch is not None for n in node.inputs)
    return of_batch and (spec is None or spec.batch is None)


def fill(target: torch.Tensor, x: torch.Tensor) -> None:
    """Copies `x` to the front of `target`, zeros behind; more rows are copies of the first one."""
    rows = len(x)
    if target.shape != x.shape:
        target.zero_()
    target[tuple(slice(n) for n in x.shape)].copy_(x, non_blocking=True)
    if rows < len(target):
        target[rows:].copy_(target[:1].expand(len(target) - rows, *target.shape[1:]))
