"""Sequences cut into slices."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from returnn_lite.datasets.batches.chunking import (
    Chunking,
    add_context,
    chunks,
    context_frames,
    custom_chunks,
    whole_seqs,
)
from returnn_lite.errors import ConfigError


def cut(value, lengths, keys=("data",), min_chunk_size=0, variance=0.0, seed=1):
    """[(seq_idx, [start per key], [end per key])] of all slices."""
    chunking = Chunking.parse(value, min_chunk_size, variance)
    blocks = [(0, np.array(lengths, np.int64).reshape(len(lengths), len(keys)))]
    found = []
    for part in chunks(blocks, keys, chunking, random.Random(seed)):
        found += zip(part.seq_idx.tolist(), part.start.tolist(), part.end.tolist(), strict=True)
    return found


def spans(*args, **kwargs):
    """ "0:4 2:6" of the first key."""
    return " ".join(f"{start[0]}:{end[0]}" for _, start, end in cut(*args, **kwargs))


@pytest.mark.parametrize("value, length, expected", [
    ("4:2", 10, "0:4 2:6 4:8 6:10 8:10"),
    ("4:2", 3, "0:3 2:3"),
    (4, 10, "0:4 4:8 8:10"),
    ("4", 10, "0:4 4:8 8:10"),
    ((5, 3), 10, "0:5 3:8 6:10 9:10"),
    ([5, None], 10, "0:5 5:10"),
    ("5:0", 10, "0:5 5:10"),
    ("4:2", 0, ""),
])  # fmt: skip
def test_forms(value, length, expected):
    assert spans(value, [length]) == expected


@pytest.mark.parametrize("min_size, length, expected", [
    (2, 10, "0:4 4:8"),
    (2, 9, "0:4 4:8"),
    (2, 3, "0:3"),
    (3, 11, "0:4 4:8"),
    (3, 12, "0:4 4:8 8:12"),
    (20, 3, "0:3"),
])  # fmt: skip
def test_short_rests_are_left_out(min_size, length, expected):
    assert spans("4:4", [length], min_chunk_size=min_size) == expected


@pytest.mark.parametrize("value", [None, 0, "0", "", ({}, {}), "0:5"])
def test_off(value):
    assert Chunking.parse(value) is None


@pytest.mark.parametrize("value, message", [
    ("a:b", "must be whole numbers of frames"),
    (-3, "must be > 0"),
    ((4, -1), "must be > 0"),
    (({"data": 4}, {"classes": 4}), "the same keys"),
    (({"data": 4}, 2), "the same keys"),
    (({"data": 4}, {"data": 0}), "must be > 0"),
    ((1, 2, 3), "a pair of size and step"),
])  # fmt: skip
def test_bad_values(value, message):
    with pytest.raises(ConfigError, match=message):
        Chunking.parse(value)


def test_keys_with_sizes_of_their_own():
    sizes = ({"data": 6, "classes": 3}, {"data": 4, "classes": 2})
    found = cut(sizes, [[12, 6]], ("data", "classes"))
    assert found == [(0, [0, 0], [6, 3]), (0, [4, 2], [10, 5]), (0, [8, 4], [12, 6])]


def test_main_key_is_data_else_the_first_by_name():
    # "b" has step 0, so it is taken as a whole.
    sizes = ({"b": 6, "c": 3}, {"b": 0, "c": 2})
    assert cut(sizes, [[1, 4]], ("b", "c")) == [(0, [0, 0], [1, 3]), (0, [0, 2], [1, 4])]


def test_keys_of_one_frame_are_taken_whole_and_end_the_sequence():
    assert cut("20:10", [[37, 1]], ("data", "classes")) == [(0, [0, 0], [20, 1])]


@pytest.mark.parametrize("value, lengths, message", [
    ("4:2", [8, 7], "multiple data keys of different length"),
    (({"data": 60, "classes": 10}, {"data": 30, "classes": 5}), [64, 3], "a different number of chunks"),
    (({"data": 60, "classes": 10}, {"data": 30, "classes": 0}), [64, 3], "has no step"),
])  # fmt: skip
def test_lengths_that_do_not_fit_together(value, lengths, message):
    with pytest.raises(ConfigError, match=f"sequence 1 of the epoch: .*{message}"):
        cut(value, [[4, 1] if isinstance(value, tuple) else [8, 8], lengths], ("data", "classes"))


def test_no_step_for_the_used_keys():
    with pytest.raises(ConfigError, match="no step > 0 for any of the used keys"):
        cut(({"data": 4, "x": 4}, {"data": 0, "x": 2}), [[3]], ("data",))


def test_variance_shrinks_size_and_step_per_sequence():
    u = random.Random(1).random()
    size, step = int(50 * (1 - u * 0.3)), int(25 * (1 - u * 0.3))
    assert cut("50:25", [[100]], variance=0.3)[1] == (0, [step], [step + size])


def test_variance_keeps_ratios():
    sizes = ({"data": 60, "classes": 10}, {"data": 30, "classes": 5})
    for _, start, end in cut(sizes, [[120, 20], [240, 40]], ("data", "classes"), variance=0.5):
        assert start[0] == 6 * start[1] and end[0] == 6 * end[1]


@given(
    size=st.integers(1, 9), step=st.integers(1, 9), min_size=st.integers(0, 5),
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6),
)  # fmt: skip
def test_as_a_loop_would_do_it(size, step, min_size, lengths):
    expected = []
    for i, length in enumerate(lengths):
        t = 0
        while t < length:
            expected.append((i, [t], [min(t + size, length)]))
            t += step
            if length - t <= min_size:
                break
    assert cut((size, step), [[n] for n in lengths], min_chunk_size=min_size) == expected


def test_whole_sequences():
    (part,) = whole_seqs([(7, np.array([[3, 1], [0, 2]]))], ("data", "classes"))
    assert part.seq_idx.tolist() == [7, 8] and part.end.tolist() == [[3, 1], [0, 2]]


@pytest.mark.parametrize("value, left, right", [
    (5, [2, 0], [2, 0]),
    (4, [1, 0], [2, 0]),
    ({"classes": 3}, [0, 1], [0, 1]),
    (({"data": 1}, {"classes": 2}), [1, 0], [0, 2]),
    (0, [0, 0], [0, 0]),
])  # fmt: skip
def test_context(value, left, right):
    keys = ("data", "classes")
    found = context_frames(value, keys)
    assert found[0].tolist() == left and found[1].tolist() == right
    (part,) = add_context(whole_seqs([(0, np.array([[3, 3]]))], keys), *found)
    assert part.start.tolist() == [[-n for n in left]] and part.end.tolist() == [[3 + n for n in right]]


def test_bad_context():
    with pytest.raises(ConfigError, match="context_window: must be a number"):
        context_frames("3", ("data",))


def test_a_users_function():
    given_slices = [(0, {"data": 1, "classes": 2}, {"data": 4, "classes": 5}), (3, 0, 2)]
    first, second = custom_chunks(given_slices, ("data", "classes"))
    assert (first.seq_idx.tolist(), first.start.tolist(), first.end.tolist()) == ([0], [[1, 2]], [[4, 5]])
    assert (second.seq_idx.tolist(), second.end.tolist()) == ([3], [[2, 2]])
    with pytest.raises(ConfigError, match=r"sequence 1 lacks the keys \['classes'\]"):
        list(custom_chunks([(1, {"data": 0}, {"data": 3})], ("data", "classes")))
