"""Tensors: new data with derived lengths, axis orders, and the bookkeeping of beams."""

import pytest
import torch

from returnn_lite.tensor import Beam, Dim, Lengths, PreActivation, Spec, Tensor, batch_dim, latest_beam, to_beam
from returnn_lite.tensor.tensor import ancestor_index, is_successor

TIME, FEAT = Dim(None, "time"), Dim(2, "feat")
BTF = Spec((batch_dim, TIME, FEAT))


def tensor(**more):
    data = torch.arange(12.0).reshape(2, 3, 2)
    return Tensor(data, BTF, {TIME: Lengths.of(torch.tensor([3, 2]))}, **more)


def beam(size, source, parent=None):
    source = torch.tensor(source)
    return Beam(size, torch.zeros(len(source) // size, size), source, parent)


def test_new_data_gets_the_lengths_of_derived_axes_and_loses_side_entries():
    x = tensor(pre=PreActivation("relu", torch.zeros(1)), state={"h": torch.zeros(2, 1)}, zero_padded=True)
    y = x.with_data(x.data[:, ::2], BTF.with_dims((batch_dim, TIME.ceildiv(2), FEAT)))
    assert y.length(TIME.ceildiv(2)).values.tolist() == [2, 1] and TIME.ceildiv(2) in y.lengths
    assert (y.pre, y.state, y.zero_padded, y.parts) == (None, None, False, None)
    assert x.with_data(x.data + 1).spec is BTF and x.with_data(x.data, zero_padded=True).zero_padded


def test_lengths_can_be_added_and_asked_for():
    other = Dim(None, "other")
    x = tensor().with_lengths({other: Lengths.of(torch.tensor([1, 1]))})
    assert x.length(other).max == 1 and x.length(TIME + 1).values.tolist() == [4, 3] and x.size(TIME) == 3
    with pytest.raises(KeyError):
        tensor().length(other)


def test_axis_orders():
    x = tensor(pre=PreActivation("relu", torch.arange(12.0).reshape(2, 3, 2)))
    t = x.permuted((1, 0, 2))
    assert t.spec.dims == (TIME, batch_dim, FEAT) and t.shape == (3, 2, 2) and t.pre.data.shape == (3, 2, 2)
    assert x.permuted((0, 1, 2)) is x and x.batch_major() is x
    back = t.batch_major()
    assert back.spec == BTF and torch.equal(back.data, x.data)
    last = x.axis_last(1)
    assert last.spec.dims == (batch_dim, FEAT, TIME) and torch.equal(last.data, x.data.transpose(1, 2))
    assert Tensor(torch.ones(2), Spec((FEAT,)), {}).batch_major().spec.dims == (FEAT,)


# --- beams: hypotheses stand in the batch axis, beam index fastest --------------------------------------------------


def test_tile_repeats_sequences_for_their_hypotheses():
    pre = PreActivation("tanh", torch.arange(12.0).reshape(2, 3, 2))
    x = tensor(pre=pre, state={"h": torch.tensor([[1.0], [2.0]])})
    tiled = x.tile(beam(2, [0, 0, 1, 1]))
    assert tiled.data[:, 0, 0].tolist() == [0, 0, 6, 6] and tiled.lengths[TIME].values.tolist() == [3, 3, 2, 2]
    assert tiled.state["h"].flatten().tolist() == [1, 1, 2, 2] and tiled.pre.data.shape == (4, 3, 2)
    assert x.beam is None and tiled.beam.size == 2


def test_gather_takes_rows_of_everything():
    x = tensor(state={"h": torch.tensor([[1.0], [2.0]])})
    new = beam(1, [1])
    taken = x.gather_batch(torch.tensor([1]), new)
    assert torch.equal(taken.data, x.data[1:]) and taken.lengths[TIME].values.tolist() == [2]
    assert taken.state["h"].tolist() == [[2.0]] and taken.beam is new


def test_ancestors_over_several_choices():
    first = beam(2, [0, 0, 1, 1])  # 2 sequences, 2 hypotheses each
    second = beam(2, [1, 0, 3, 3], first)
    third = beam(2, [1, 1, 2, 3], second)
    assert ancestor_index(third, third) is None
    assert ancestor_index(third, second).tolist() == [1, 1, 2, 3]
    assert ancestor_index(third, first).tolist() == [0, 0, 3, 3]
    assert ancestor_index(third, None).tolist() == [0, 0, 1, 1]
    assert is_successor(third, first) and is_successor(third, None) and not is_successor(first, third)
    with pytest.raises(ValueError, match="not a successor"):
        ancestor_index(first, third)


def test_to_beam_reorders_what_stems_from_an_older_beam():
    first = beam(2, [0, 0, 1, 1])
    second = beam(2, [1, 0, 3, 3], first)
    x = Tensor(torch.tensor([10, 11, 12, 13]), Spec((batch_dim,)), {}, first)
    assert to_beam(x, second).data.tolist() == [11, 10, 13, 13] and to_beam(x, second).beam is second
    assert to_beam(x, first) is x and to_beam(x, None) is x
    plain = Tensor(torch.tensor([1, 2]), Spec((batch_dim,)), {})
    assert to_beam(plain, second).data.tolist() == [1, 1, 2, 2]
    scalar = Tensor(torch.tensor(3), Spec(()), {})
    assert to_beam(scalar, second) is scalar


def test_the_newest_beam():
    first = beam(2, [0, 0])
    second = beam(2, [1, 0], first)
    make = lambda b: Tensor(torch.zeros(2), Spec((batch_dim,)), {}, b)  # noqa: E731
    assert latest_beam([make(first), make(None), make(second), make(first)]) is second
    assert latest_beam([make(None)]) is None and latest_beam([]) is None
