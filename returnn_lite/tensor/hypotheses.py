"""Computing with what all hypotheses of a sequence share (`Tensor.single`) without reading it once for each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from returnn_lite.ops.product import product
from returnn_lite.tensor.align import first_beam, place
from returnn_lite.tensor.spec import Spec
from returnn_lite.tensor.tensor import Tensor

_HYPOTHESIS = "_"  # the letter of the axis of hypotheses


def hypotheses(sources: Sequence[Tensor]) -> int:
    """The number of hypotheses of each sequence if only some of the sources are the same for all of them, else 0."""
    shared = [x.single is not None for x in sources if x.spec.batch is not None]
    beam = first_beam(sources)
    return beam.size if beam is not None and any(shared) and not all(shared) else 0


def place_apart(x: Tensor, target: Spec, behavior: int, size: int) -> torch.Tensor:
    """As `place`, with an axis of the `size` hypotheses, or of size 1, behind the batch axis."""
    at = target.batch or 0
    if x.single is not None:
        return place(x.single, target, behavior).unsqueeze(at + 1)
    data = place(x, target, behavior)
    return data.unsqueeze(at + 1) if x.spec.batch is None else _split(data, at, size)


def product_of(equation: str, a: Tensor, b: Tensor) -> torch.Tensor:
    """`product` of two tensors with a batch axis."""
    size = hypotheses((a, b))
    if not size:
        return product(equation, a.data, b.data)
    apart, at = _apart(equation, a.spec.batch or 0, a.single is None)
    pair = (x.single.data if x.single is not None else _split(x.data, x.spec.batch or 0, size) for x in (a, b))
    return product(apart, *pair).flatten(at, at + 1)


def _split(data: torch.Tensor, at: int, size: int) -> torch.Tensor:
    """The batch axis as one of sequences and one of hypotheses."""
    return data.reshape(*data.shape[:at], -1, size, *data.shape[at + 1 :])


@lru_cache(maxsize=1024)
def _apart(equation: str, batch: int, first: bool) -> tuple[str, int]:
    """The equation with an axis of hypotheses behind the batch axis (axis `batch` of the first operand) of the first or
    else the second operand, and of the result; and the position of the batch axis in the result."""
    inputs, out = equation.split("->")
    a, b = inputs.split(",")
    letter = a[batch]
    both = f"{letter}{_HYPOTHESIS}"
    a, b = (a.replace(letter, both), b) if first else (a, b.replace(letter, both))
    return f"{a},{b}->{out.replace(letter, both)}", out.index(letter)
