"""Masks of valid frames, in whatever axis order a tensor has."""

import pytest
import torch

from returnn_lite.tensor import Dim, Lengths, Spec, Tensor, batch_dim
from returnn_lite.tensor.masked import fill_padding, mask, mask_all

TIME, OTHER, FEAT = Dim(None, "time"), Dim(None, "other"), Dim(2, "feat")
LENGTHS = {TIME: Lengths.of(torch.tensor([1, 3])), OTHER: Lengths.of(torch.tensor([2, 1]))}
SIZES = {batch_dim: 2, TIME: 3, OTHER: 2, FEAT: 2}


def tensor(*dims):
    return Tensor(torch.ones([SIZES[d] for d in dims]), Spec(dims), LENGTHS)


ORDERS = [(batch_dim, TIME, FEAT), (TIME, batch_dim, FEAT), (FEAT, TIME, batch_dim), (batch_dim, FEAT, OTHER, TIME)]


@pytest.mark.parametrize("dims", ORDERS)
def test_mask_of_one_axis_broadcasts(dims):
    x = tensor(*dims)
    valid = mask(x, dims.index(TIME))
    assert valid.dim() == x.spec.rank
    expanded = valid.expand(x.data.shape).movedim(dims.index(batch_dim), 0)
    rest = [d for d in dims if not d.is_batch]
    by_time = expanded.movedim(rest.index(TIME) + 1, 1).flatten(2)[..., 0]
    assert by_time.int().tolist() == [[1, 0, 0], [1, 1, 1]]


def test_static_axes_need_no_mask():
    assert mask(tensor(batch_dim, TIME, FEAT), 2) is None and mask(tensor(batch_dim, TIME, FEAT), 0) is None
    assert mask_all(tensor(batch_dim, FEAT)) is None and mask_all(tensor(batch_dim, TIME, FEAT), [2]) is None


def test_several_dynamic_axes_are_all_masked():
    x = tensor(batch_dim, TIME, OTHER)
    assert mask_all(x).int().tolist() == [[[1, 1], [0, 0], [0, 0]], [[1, 0], [1, 0], [1, 0]]]
    assert mask_all(x, [2]).int().tolist() == [[[1, 1]], [[1, 0]]]


def test_fill_padding():
    filled = fill_padding(tensor(TIME, batch_dim, FEAT), -5.0)
    assert filled[..., 0].tolist() == [[1.0, 1.0], [-5.0, 1.0], [-5.0, 1.0]]
    x = tensor(batch_dim, FEAT)
    assert fill_padding(x, 7.0) is x.data
    assert fill_padding(tensor(batch_dim, TIME, OTHER), 0.0, [1]).sum() == 2 * 4


def test_the_padded_size_may_be_larger_than_the_longest_sequence():
    x = Tensor(torch.ones(2, 5, 2), Spec((batch_dim, TIME, FEAT)), LENGTHS)
    assert mask(x, 1).flatten(1).int().tolist() == [[1, 0, 0, 0, 0], [1, 1, 1, 0, 0]]


def test_lengths_that_differ_per_frame_of_another_axis():
    lengths = Lengths(torch.tensor([1, 2, 3]), 3, (TIME,))
    x = Tensor(torch.ones(2, 3, 3), Spec((batch_dim, TIME, OTHER)), {**LENGTHS, OTHER: lengths})
    assert mask(x, 2).int().tolist() == [[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]


def test_without_a_batch_axis_every_position_is_valid_for_some_sequence():
    assert mask(Tensor(torch.ones(3, 2), Spec((TIME, FEAT)), LENGTHS), 0) is None


def test_lengths_with_another_axis_that_the_tensor_lacks_are_an_error():
    lengths = Lengths(torch.tensor([1, 2, 3]), 3, (TIME,))
    with pytest.raises(KeyError, match="that the tensor lacks"):
        mask(Tensor(torch.ones(2, 3), Spec((batch_dim, OTHER)), {OTHER: lengths}), 1)
