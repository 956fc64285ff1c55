"""Orders within a window of a stream, in place of orders of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def shuffled(items: Iterable[T], size: int, rng: np.random.RandomState) -> Iterator[T]:
    """Each item that comes takes the place of a random one of the `size` kept, which goes on; in the end the rest.

    Up to 1: the items as they come.
    """
    source = iter(items)
    if size <= 1:
        yield from source
        return
    kept = list(islice(source, size))
    for item in source:
        place = rng.randint(len(kept))
        kept[place], item = item, kept[place]
        yield item
    rng.shuffle(kept)  # type: ignore[arg-type]  # a list is fine
    yield from kept


def sorted_in_windows(items: Iterable[T], size: int, length: Callable[[T], int]) -> Iterator[T]:
    """Windows of `size` items by length, upwards and downwards in turn: neighbours are alike at their seams, too."""
    source, downwards = iter(items), False
    while window := list(islice(source, size)):
        yield from sorted(window, key=length, reverse=downwards)
        downwards = not downwards
