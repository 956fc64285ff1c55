"""Limits that make no sense, and keys that there are not."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from returnn_lite.config import Config
from returnn_lite.datasets import BatchingOptions, init_dataset
from returnn_lite.datasets.batches.chunking import Chunking, context_frames
from returnn_lite.datasets.batches.epoch_batches import epoch_batches
from returnn_lite.datasets.numbers_dict import NumbersDict
from returnn_lite.engine.data import forward_batching
from returnn_lite.errors import ConfigError
from tests.datasets.examples import static

NAN = float("nan")


@pytest.mark.parametrize("option, value, message", [
    ("batch_size", NAN, "batch_size: must be a number of frames or a dict of them, but is nan instead"),
    ("batch_size", -5, "batch_size: must be greater than 0, but is -5 instead"),
    ("batch_size", "30", "batch_size: must be a number of frames or a dict of them, but is '30' instead"),
    ("batch_size", True, "but is True instead"),
    ("batch_size", [30], "but is [30] instead"),
    ("batch_size", {"data": NAN}, 'batch_size["data"]: must be a number of frames'),
    ("batch_size", {"data": 0}, 'batch_size["data"]: must be greater than 0, but is 0 instead'),
    ("max_seq_length", NAN, "max_seq_length: must be a number of frames"),
    ("max_seq_length", -1.5, "max_seq_length: must be >= 0, but is -1.5 instead"),
    ("max_seq_length", {"classes": -5}, 'max_seq_length["classes"]: must be >= 0, but is -5 instead'),
    ("max_seq_length", "75", "but is '75' instead"),
    ("min_seq_length", -1, "min_seq_length: must be >= 0, but is -1 instead"),
    ("min_seq_length", {"data": NAN}, 'min_seq_length["data"]: must be a number'),
    ("max_pad_size", -1, "max_pad_size: must be >= 0"),
    ("packed_batch_size", NAN, "packed_batch_size: must be a number"),
    ("max_seqs", -2, "max_seqs: must be greater than 0 or -1 (no limit), but is -2 instead"),
    ("max_seqs", 1.5, "max_seqs: must be greater than 0"),
    ("seq_drop", NAN, "seq_drop: must be a number >= 0 and <= 1, but is nan instead"),
    ("seq_drop", 1.5, "but is 1.5 instead"),
    ("seq_drop_freq", 0, "seq_drop_freq: must be greater than 0, but is 0 instead"),
])  # fmt: skip
def test_limits(option, value, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        BatchingOptions(**{"batch_size": 100, option: value})


@pytest.mark.parametrize("value", [10, 10.5, {"data": 10, "classes": None}, float("inf"), NumbersDict({"data": 3})])
def test_limits_that_are_fine(value):
    assert BatchingOptions(batch_size=value, max_seq_length=value, min_seq_length=value).batch_size is value
    assert BatchingOptions(batch_size=1, max_seq_length=-75).longest == {"classes": 75}


@pytest.mark.parametrize("value", [NAN, -3, 0])
def test_the_size_of_forward_batches(value):
    with pytest.raises(ConfigError, match="^forward_batch_size: must be"):
        forward_batching(Config({"forward_batch_size": value}), None)


@pytest.mark.parametrize("options, option", [
    ({"forward_batch_size": {"dta": 10}, "batch_size": 5}, "forward_batch_size"),
    ({"get_model": print, "batch_size": {"dta": 10}}, "batch_size"),
    ({"get_model": print, "batch_size": 5, "forward_batch_size": {"dta": 10}}, "forward_batch_size"),
])  # fmt: skip
def test_a_wrong_key_of_the_size_of_forward_batches(options, option):
    batching = forward_batching(Config(options), SimpleNamespace(used_data_keys=["data"]))
    assert batching.batch_size == {"dta": 10}
    with pytest.raises(ConfigError, match=rf'^{option}\["dta"\]: unknown data key; did you mean "data"\?'):
        batching.check_keys(["data", "classes"], print)


def test_keys():
    known, warnings = ["classes", "data"], []

    def check(**options):
        BatchingOptions(**{"batch_size": 100, **options}).check_keys(known, warnings.append)

    with pytest.raises(ConfigError, match=r'batch_size\["dta"\]: unknown data key; did you mean "data"\?'):
        check(batch_size={"dta": 30})
    with pytest.raises(ConfigError, match=r'max_seq_length\["bpe"\]: unknown data key; known: \[.classes., .data'):
        check(max_seq_length={"bpe": 75})
    check(batch_size={"data": 30, "bpe": 75}, max_seq_length={"classes": 3})
    assert warnings == ["warning: batch_size[\"bpe\"]: unknown data key; known: ['classes', 'data']"]


@pytest.mark.parametrize("options, message", [
    ({"chunking": NAN}, "chunking: must be whole numbers of frames, but is nan instead"),
    ({"chunking": float("inf")}, "but is inf instead"),
    ({"chunking": 5.5}, "but is 5.5 instead"),
    ({"chunking": (5, True)}, "but is True instead"),
    ({"chunking": "50:x"}, "but is 'x' instead"),
    ({"chunking": -5}, "size must be > 0"),
    ({"chunking": 3, "min_chunk_size": NAN}, "min_chunk_size: must be a number"),
    ({"chunking": 3, "min_chunk_size": -1}, "min_chunk_size: must be >= 0"),
    ({"chunking": 3, "chunking_variance": 1.0}, "chunking_variance: must be a number >= 0 and < 1"),
    ({"chunking": 3, "chunking_variance": NAN}, "chunking_variance: must be"),
    ({"chunking": {"dta": 5}}, 'chunking["dta"]: unknown data key; did you mean "data"'),
    ({"chunking": {"data": 2}}, "must have a size for ['classes'], which the network uses"),
    ({"context_window": -2}, 'context_window["data"]: must be >= 0'),
    ({"context_window": {"data": NAN}}, 'context_window["data"]: must be a number'),
])  # fmt: skip
def test_chunking(options, message):
    dataset = init_dataset(static(**options), name="toy")
    dataset.init_seq_order(1)
    with pytest.raises(ConfigError, match=re.escape(message)):
        list(epoch_batches(dataset, BatchingOptions(batch_size=100)))


def test_texts_and_whole_floats_are_numbers_of_frames():
    assert Chunking.parse("50:25") == Chunking.parse((50.0, np.int64(25))) == Chunking(50, 25)
    assert [part.tolist() for part in context_frames(({"data": 2}, None), ("data", "classes"))] == [[2, 0], [0, 0]]


# --- a function for chunks, as configs write them ---


def halves(dataset, seq_idx_start, recurrent_net, used_data_keys, **_kwargs):
    """Two slices of each sequence, by the lengths that the dataset gives."""
    seq_idx = seq_idx_start
    while dataset.is_less_than_num_seqs(seq_idx):
        length = dataset.get_seq_length(seq_idx)
        assert isinstance(length, NumbersDict) and length.max_value() == length["data"]
        middle = NumbersDict.max([length // 2, 1])
        yield seq_idx, NumbersDict(0), middle
        if middle.any_compare(length, lambda a, b: a < b):
            yield seq_idx, middle, length
        seq_idx += 1


@pytest.mark.parametrize("wrap", [
    lambda inner: inner,
    lambda inner: {"class": "MetaDataset", "datasets": {"a": inner}, "data_map": {"data": ("a", "data")}},
    lambda inner: {"class": "ConcatDataset", "datasets": [inner]},
    lambda inner: {"class": "PostprocessingDataset", "dataset": inner, "map_seq": lambda tensor_dict, **_: tensor_dict},
    lambda inner: {"class": "CombinedDataset", "datasets": {"a": inner}, "data_map": {("a", "data"): "data"}},
    lambda inner: {"class": "MultiEpochDataset", "dataset": inner, "multi_epoch": 1},
])  # fmt: skip
def test_a_function(wrap):
    dataset = init_dataset({**wrap(static((4, 1, 3))), "chunking": halves}, name="toy")
    dataset.init_seq_order(1)
    batches = epoch_batches(dataset, BatchingOptions(batch_size=100, max_seqs=1, used_data_keys=frozenset({"data"})))
    found = [(int(b.slices.seq_idx[0]), int(b.slices.start[0, 0]), int(b.slices.end[0, 0])) for b in batches]
    assert found == [(0, 0, 2), (0, 2, 4), (1, 0, 1), (2, 0, 1), (2, 1, 3)]


@pytest.mark.parametrize("slices, message", [
    (None, "the function must yield (seq_idx, start, end), but returned None instead"),
    ([3], "the function must yield (seq_idx, start, end), but yields 3 instead"),
    ([(9, 0, 1)], "the function's sequence 9 is not in the epoch"),
    ([(0, 3, 1)], "the function's slice of sequence 0 ends before it starts"),
    ([(0, 0, 1.5)], "must be whole numbers of frames, but is 1.5 instead"),
    ([(0, {"data": 0}, 1)], "slice of sequence 0 lacks the keys ['classes']"),
])  # fmt: skip
def test_a_function_that_gives_nonsense(slices, message):
    dataset = init_dataset(static(chunking=lambda **_: slices), name="toy")
    dataset.init_seq_order(1)
    with pytest.raises(ConfigError, match=re.escape(message)):
        list(epoch_batches(dataset, BatchingOptions(batch_size=100)))
