"""Slices gathered in mini-batches."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from returnn_lite.datasets.batches.batching import (
    BatchingOptions,
    first_seqs,
    framewise_batches,
    padded_batches,
    select,
)
from returnn_lite.datasets.batches.chunking import whole_seqs
from returnn_lite.errors import ConfigError


def blocks(lengths, block=3):
    lengths = np.array(lengths, np.int64).reshape(len(lengths), -1)
    return [(i, lengths[i : i + block]) for i in range(0, len(lengths), block)]


def seqs_in_batches(lengths, keys=("data",), seed=1, warn=lambda text: None, draw=False, **options):
    """The indices of the sequences per batch, each with its whole length."""
    made = BatchingOptions(**options)
    slices = select(whole_seqs(blocks(lengths), keys), made, random.Random(seed), draw, warn)
    return [b.slices.seq_idx.tolist() for b in padded_batches(first_seqs(slices, made.max_total_num_seqs), made)]


LENGTHS = [3, 4, 5, 10, 2, 7, 1, 1]


@pytest.mark.parametrize("options, expected", [
    ({"batch_size": 10}, [[0, 1], [2], [3], [4], [5], [6, 7]]),
    ({"batch_size": 20, "max_seq_length": 5}, [[0, 1, 2, 4], [6, 7]]),
    ({"batch_size": 20, "min_seq_length": 3}, [[0, 1, 2], [3, 5]]),
    ({"batch_size": 1000, "max_seqs": 3}, [[0, 1, 2], [3, 4, 5], [6, 7]]),
    ({"batch_size": 1}, [[i] for i in range(8)]),
    ({"batch_size": 1000, "max_pad_size": 3}, [[0, 1, 2], [3], [4], [5], [6, 7]]),
    ({"packed_batch_size": 12}, [[0, 1, 2], [3, 4], [5, 6, 7]]),
    ({"batch_size": 15, "packed_batch_size": 12, "as_torch": True}, [[0, 1, 2], [3], [4, 5], [6, 7]]),
    ({"batch_size": 1000, "packed_batch_size": 12, "as_torch": True}, [[0, 1, 2], [3, 4], [5, 6, 7]]),
    ({"batch_size": 1000, "max_total_num_seqs": 2}, [[0, 1, 2]]),
])  # fmt: skip
def test_limits(options, expected):
    assert seqs_in_batches(LENGTHS, **options) == expected


def test_limits_per_key():
    lengths = [[n, 5 if i == 3 else 1] for i, n in enumerate(LENGTHS)]
    keys = ("data", "classes")
    assert seqs_in_batches(lengths, keys, batch_size={"data": 20, "classes": 3}) == [[0, 1, 2], [3], [4, 5], [6, 7]]
    assert seqs_in_batches(lengths, keys, batch_size=100, max_seq_length=-4) == [[0, 1, 2, 4, 5, 6, 7]]
    # A number counts for every key, a key that no slice has for none.
    assert seqs_in_batches(lengths, keys, batch_size=100, max_seq_length={"classes": 1, "x": 0}) == [
        [0, 1, 2, 4, 5, 6, 7]
    ]
    assert seqs_in_batches(lengths, keys, batch_size=100, min_seq_length=2) == [[3]]


def test_empty_sequences_are_kept_but_not_as_a_last_batch():
    assert seqs_in_batches([0, 2, 0, 0], batch_size=4, max_seqs=2) == [[0, 1]]
    assert seqs_in_batches([0, 0, 2], batch_size=10, max_seqs=2) == [[0, 1], [2]]
    assert seqs_in_batches([0, 0], batch_size=10) == []
    assert seqs_in_batches([0, 2, 0, 0], batch_size=4, max_seqs=2, as_torch=True) == [[0, 1], [2, 3]]


def test_a_long_sequence_is_kept_with_a_warning():
    said = []
    assert seqs_in_batches([3, 30], batch_size=10, warn=said.append) == [[0], [1]]
    assert said == ["warning: sequence length ({'data': 30}) larger than limit (10)"]


def test_seq_drop_draws_once_per_slice():
    rng = random.Random(1)
    kept = [i for i in range(8) if rng.random() >= 0.5]
    assert sum(seqs_in_batches(LENGTHS, batch_size=10, seq_drop=0.5), []) == kept
    # Slices that are too long draw nothing.
    rng = random.Random(1)
    kept = [i for i, n in enumerate(LENGTHS) if n <= 5 and rng.random() >= 0.5]
    assert sum(seqs_in_batches(LENGTHS, batch_size=10, seq_drop=0.5, max_seq_length=5), []) == kept


def naive(lengths, batch_size, max_seqs, max_pad):
    found, batch = [], []
    for i, row in enumerate(lengths):
        rows = [lengths[j] for j in batch] + [row]
        count, longest = len(rows), [max(column) for column in zip(*rows, strict=True)]
        padding = [m * count - sum(column) for m, column in zip(longest, zip(*rows, strict=True), strict=True)]
        too_large = any(m * count > batch_size for m in longest) or count > max_seqs or max(padding) > max_pad
        if batch and too_large:
            found.append(batch)
            batch = []
        batch.append(i)
    return found + ([batch] if any(any(lengths[i]) for i in batch) else [])


@given(
    lengths=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), min_size=1, max_size=60),
    batch_size=st.integers(1, 100), max_seqs=st.integers(1, 20), max_pad=st.integers(0, 40),
)  # fmt: skip
def test_as_a_loop_would_do_it(lengths, batch_size, max_seqs, max_pad):
    found = seqs_in_batches(
        lengths, ("data", "classes"), batch_size=batch_size, max_seqs=max_seqs, max_pad_size=max_pad
    )
    assert found == naive(lengths, batch_size, max_seqs, max_pad)


@pytest.mark.parametrize("options, message", [
    ({}, "batch_size must be set and be greater than 0"),
    ({"batch_size": 0}, "batch_size must be set"),
    ({"batch_size": -1}, "must be greater than 0, but is -1"),
    ({"batch_size": {"data": 0}}, "must be greater than 0"),
    ({"batch_size": "100"}, "must be a number of frames or a dict of them, but is '100'"),
    ({"batch_size": 1, "max_seqs": 0}, "max_seqs: must be greater than 0 or -1"),
    ({"batch_size": 1, "max_seqs": 2.5}, "max_seqs: must be"),
    ({"packed_batch_size": -5}, "packed_batch_size: must be"),
])  # fmt: skip
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        BatchingOptions(**options)


# --- end to end ---


def rows(lengths, keys=("data",), block=3, **options):
    """Per batch [(seq_idx, start, end, offset)] with the bounds of the first key."""
    made = BatchingOptions(recurrent_net=False, **options)
    found = []
    for b in framewise_batches(whole_seqs(blocks(lengths, block), keys), made):
        columns = (b.slices.seq_idx, b.slices.start[:, 0], b.slices.end[:, 0], b.offset)
        found.append(list(zip(*(c.tolist() for c in columns), strict=True)))
        assert b.num_rows == 1
    return found


def test_frames_end_to_end():
    assert rows([3, 4, 5, 10], batch_size=10) == [
        [(0, 0, 3, 0), (1, 0, 4, 3), (2, 0, 3, 7)],
        [(2, 3, 5, 0), (3, 0, 8, 2)],
        [(3, 8, 10, 0)],
    ]


def test_rows_of_many_sequences_end_after_more_than_max_seqs():
    assert [len(row) for row in rows([1] * 8, batch_size=100, max_seqs=2)] == [3, 3, 2]


def test_one_sequence_over_many_rows_and_empty_ones():
    assert rows([0, 25, 0], batch_size=10) == [[(1, 0, 10, 0)], [(1, 10, 20, 0)], [(1, 20, 25, 0)]]
    assert rows([0, 0], batch_size=10) == []


def test_keys_start_together():
    found = rows([[4, 1], [3, 1]], ("data", "classes"), batch_size=10)
    assert found == [[(0, 0, 4, 0), (1, 0, 3, 4)]]


def test_rows_without_a_limit_of_frames_have_every_sequence_once():
    lengths, keys = [[2, 2], [1, 3], [2, 2], [3, 1], [2, 2]], ("x", "classes")
    row = [(0, 0, 2, 0), (1, 0, 1, 2), (2, 0, 2, 5), (3, 0, 3, 7), (4, 0, 2, 10)]
    assert rows(lengths, keys, block=5, batch_size={"data": 9}) == [row]


def test_keys_of_different_length_and_limit_come_to_an_end():
    batches = list(framewise_batches(
        whole_seqs(blocks([[3, 9], [9, 2], [0, 4]]), ("data", "classes")),
        BatchingOptions(batch_size={"data": 4, "classes": 7}, recurrent_net=False),
    ))  # fmt: skip
    frames = sum((b.slices.lengths.sum(0) for b in batches), np.zeros(2, int))
    assert frames.tolist() == [12, 15]
