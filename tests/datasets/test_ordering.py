"""Orders of sequences: modes, seeds, partitions, repetition, filters; and the files that come with them."""

import gzip
import pickle

import numpy as np
import pytest

from returnn_lite.datasets.order.ordering import ORDERINGS, OrderOptions, epoch_seed, parse_ordering, seq_order
from returnn_lite.datasets.order.seq_list import read_seq_lens, read_seq_list
from returnn_lite.errors import ConfigError

LENGTHS = np.array([5, 3, 9, 3, 7, 1, 9, 4, 6, 2, 8, 3])
TAGS = [f"u/{i}" for i in range(len(LENGTHS))]


def order(seq_ordering="default", epoch=1, lengths=LENGTHS, tags=TAGS, **options):
    made = OrderOptions(seq_ordering=seq_ordering, **options)
    return seq_order(made, epoch, len(TAGS), lambda: lengths, lambda: tags).tolist()


def test_simple_orders():
    assert order() == list(range(12))
    assert order("reverse") == list(range(11, -1, -1))
    assert order("sorted") == [5, 9, 1, 3, 11, 7, 0, 8, 4, 10, 2, 6]
    assert order("sorted_reverse") == [2, 6, 10, 4, 8, 0, 7, 1, 3, 11, 9, 5]
    assert order("default_every_n:5") == [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]
    assert order("default_every_n:13") == []


def test_no_epoch_is_an_empty_order():
    assert order("nonsense", epoch=None) == []


@pytest.mark.parametrize("name", ["random", "laplace:3", "laplace:.4", "sort_bin_shuffle:4", "sort_bin_shuffle_x2:.3"])
def test_random_orders_hold_every_sequence_once_and_depend_on_the_epoch(name):
    orders = [order(name, epoch) for epoch in (1, 2, 3)]
    assert all(sorted(o) == list(range(12)) for o in orders)
    assert orders[0] != orders[1] != orders[2]
    assert order(name, 2) == orders[1]


def test_laplace_goes_up_and_down():
    found = LENGTHS[order("laplace:3")]
    assert np.all(np.diff(found[:4]) >= 0)
    assert np.all(np.diff(found[4:8]) <= 0)
    assert np.all(np.diff(found[8:]) >= 0)


def test_more_bins_than_sequences():
    assert sorted(order("laplace:50")) == list(range(12))
    assert sorted(order("sort_bin_shuffle_x2:50")) == list(range(12))


def test_seed_counts_full_passes():
    assert [epoch_seed(e, partition_epoch=3) for e in (1, 3, 4, 7)] == [1, 1, 2, 3]
    assert [epoch_seed(e, nth=2) for e in (1, 2, 3)] == [1, 1, 2]
    assert epoch_seed(None, offset=100) == 101
    assert OrderOptions(fixed_random_seed=0, random_seed_offset=5).seed(9) == 0
    assert order("random:5", 1) == order("random:5", 5) != order("random:5", 6)


def test_partitions_cover_the_corpus_once():
    parts = [order("random", e, partition_epoch=5) for e in range(1, 6)]
    assert [len(p) for p in parts] == [3, 3, 2, 2, 2]
    assert sorted(sum(parts, [])) == list(range(12))
    assert sum(parts, []) == order("random", 1)


def test_shards_are_parts_of_a_partition():
    parts = [order(epoch=e, partition_epoch=2, num_shards=2, shard_index=s) for e in (1, 2) for s in (0, 1)]
    assert sum(parts, []) == list(range(12))


def test_more_partitions_than_sequences_gives_empty_epochs():
    assert order(epoch=13, partition_epoch=20) == []


def test_repeat_unique_and_filter():
    assert order(repeat_epoch=2) == list(range(12)) * 2
    tags = [f"t{i % 4}" for i in range(12)]
    assert order("reverse", tags=tags, unique_seq_tags=True) == [11, 10, 9, 8]
    # The filter comes after the partition.
    wanted = frozenset(["u/7", "u/6", "u/0", "other"])
    assert order(epoch=2, partition_epoch=2, seq_list_filter=wanted) == [6, 7]


def test_an_empty_filter_result_is_an_error_with_examples():
    with pytest.raises(ConfigError, match="empty after applying seq_list_filter_file.*'u/0'.*'x'"):
        order(seq_list_filter=frozenset(["x"]))


def test_ordering_function_is_asked_per_epoch():
    assert order(lambda epoch, **_: "reverse" if epoch == 2 else "default", epoch=2)[0] == 11
    with pytest.raises(ConfigError, match="must be a string or a function that returns one"):
        order(lambda **_: 3)


@pytest.mark.parametrize("text", ["laplaze", "random:1:2", "random:x", "laplace:0", "default_every_n", "sorted:3", ""])
def test_bad_orderings(text):
    with pytest.raises(ConfigError, match="invalid seq_ordering"):
        order(text)


def test_did_you_mean():
    with pytest.raises(ConfigError, match='did you mean "laplace"'):
        parse_ordering("laplase:3", 10)


@pytest.mark.parametrize("name", ["sorted", "laplace", "sort_bin_shuffle"])
def test_orders_by_length_need_lengths(name):
    with pytest.raises(ConfigError, match="needs sequence lengths"):
        order(name, lengths=None)


@pytest.mark.parametrize("name", ORDERINGS)
def test_unsigned_lengths_sort_like_signed_ones(name):
    text = name + (":3" if name == "default_every_n" else "")
    assert order(text, lengths=LENGTHS.astype(np.uint8)) == order(text)


def test_an_empty_corpus_is_an_error():
    with pytest.raises(ConfigError, match="num_seqs: must be a positive whole number"):
        seq_order(OrderOptions(), 1, 0, lambda: None, lambda: [])


def test_ten_million_sequences_take_arrays_only():
    lengths = np.arange(1_000_000) % 977
    found = seq_order(OrderOptions(seq_ordering="laplace:.1000"), 3, len(lengths), lambda: lengths, lambda: [])
    assert found.dtype == np.int64 and len(found) == len(lengths)


# --- files ---


def test_seq_list_files(tmp_path):
    tags = ["a", " b", "ü"]
    (tmp_path / "l.txt").write_text("a\n b\nü\n", "utf8")
    (tmp_path / "l.gz").write_bytes(gzip.compress("a\n b\nü".encode()))
    (tmp_path / "l.pkl").write_bytes(pickle.dumps(tags))
    (tmp_path / "l.pkl.gz").write_bytes(gzip.compress(pickle.dumps(tags)))
    for name in ("l.txt", "l.gz", "l.pkl", "l.pkl.gz"):
        assert read_seq_list(str(tmp_path / name)) == tags


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    (tmp_path / "l.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ConfigError, match="but holds os.system"):
        read_seq_list(str(tmp_path / "l.pkl"))


def test_seq_lens_file(tmp_path):
    path = tmp_path / "lens.gz"
    path.write_bytes(gzip.compress(b"{'a': 3, 'b': 1.5}"))
    assert read_seq_lens(str(path), ["b", "a"]).tolist() == [1.5, 3]
    with pytest.raises(ConfigError, match="has no length of sequence 'c'"):
        read_seq_lens(str(path), ["c"])
    with pytest.raises(ConfigError, match="does not exist"):
        read_seq_lens(str(tmp_path / "no"), [])
    path.write_bytes(gzip.compress(b"[1, 2]"))
    with pytest.raises(ConfigError, match="must hold a dict"):
        read_seq_lens(str(path), [])
    path.write_bytes(gzip.compress(b"{'a': open('x')}"))
    with pytest.raises(ConfigError, match="must hold a Python dict"):
        read_seq_lens(str(path), [])


@pytest.mark.parametrize("length", ["'x'", "None", "-1", "float('nan')"])
def test_lengths_that_are_no_numbers(tmp_path, length):
    length = "1e400 - 1e400" if "nan" in length else length
    (tmp_path / "lens.txt").write_text(f"{{'a': 1, 'b': {length}}}")
    with pytest.raises(ConfigError, match="lens.txt"):
        read_seq_lens(str(tmp_path / "lens.txt"), ["a", "b"])
