"""Lengths: masks, lengths of derived axes, repeating and gathering for beams."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from returnn_lite.tensor import Dim, Lengths
from returnn_lite.tensor.lengths import derive

TIME = Dim(None, "time")
OTHER = Dim(None, "other")


def of(*values):
    return Lengths.of(torch.tensor(values, dtype=torch.int32))


def test_the_largest_is_read_once():
    assert of(2, 5, 3).max == 5
    assert Lengths.of(torch.zeros(0, dtype=torch.int32)).max == 0


def test_mask_is_true_at_valid_positions_and_made_once_per_size():
    lengths = of(2, 0, 3)
    assert lengths.mask().int().tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1]]
    assert lengths.mask(2).int().tolist() == [[1, 1], [0, 0], [1, 1]]
    assert lengths.mask(with_first=True).int().tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1]]
    assert lengths.mask() is lengths.mask(3) and lengths.mask(2) is not lengths.mask(3)


def test_tile_repeats_every_sequence_in_place():
    lengths = of(2, 5)
    assert lengths.tile(3).values.tolist() == [2, 2, 2, 5, 5, 5] and lengths.tile(3).max == 5
    assert lengths.tile(3) is lengths.tile(3)


def test_gather_takes_rows_and_keeps_the_padded_size():
    assert of(2, 5, 3).gather(torch.tensor([2, 0])).values.tolist() == [3, 2]
    assert of(2, 5, 3).gather(torch.tensor([0])).max == 5


def test_lengths_without_batch_axis_are_the_same_for_all():
    lengths = Lengths(torch.tensor([1, 2, 3]), 3, (OTHER,))
    assert lengths.tile(2) is lengths and lengths.gather(torch.tensor([0])) is lengths


MAKERS = {
    "ceildiv": lambda d: d.ceildiv(2),
    "window": lambda d: d.window(3, 2),
    "plus": lambda d: d + 2,
    "minus": lambda d: d - 2,
    "times": lambda d: d * 3,
    "floordiv": lambda d: d // 2,
    "clipped": lambda d: d.clipped(3),
    "renamed": lambda d: d.named("x").ceildiv(3),
    "chain": lambda d: ((d + 1).ceildiv(2) - 1) * 2,
}


def number(dim, n):
    return n if dim == TIME else dim.combine(lambda d: number(d, n))


@pytest.mark.parametrize("name", MAKERS)
@settings(deadline=None, max_examples=20, derandomize=True)
@given(values=st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_derived_lengths_are_the_arithmetic_per_sequence(name, values):
    dim = MAKERS[name](TIME)
    found = derive(dim, {TIME: of(*values)})
    assert found.values.tolist() == [number(dim, n) for n in values]
    assert found.max == max(found.values.tolist())


def test_sums_and_products_of_two_axes():
    known = {TIME: of(1, 4), OTHER: of(3, 2)}
    assert derive(TIME + OTHER, known).values.tolist() == [4, 6]
    assert derive(TIME * OTHER, known).values.tolist() == [3, 8]
    assert derive(TIME + Dim(2, "two"), known).values.tolist() == [3, 6]


def test_known_lengths_come_first():
    assert derive(TIME + 1, {TIME: of(1), TIME + 1: of(7)}).values.tolist() == [7]


def test_unknown_axis_is_an_error():
    with pytest.raises(KeyError, match="no lengths known for axis other"):
        derive(OTHER + 1, {TIME: of(1)})
