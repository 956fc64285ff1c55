"""What holds for every dataset class: the base contract, batches, copies in other processes."""

import math
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from returnn_lite.datasets import BatchingOptions, Loader, init_dataset
from returnn_lite.datasets.combined.sending import Receiver, Sender, constant_parts
from returnn_lite.datasets.options import NoSuchKey
from returnn_lite.datasets.registry import DATASETS
from returnn_lite.errors import ConfigError
from tests.datasets.examples import examples

REFUSED = {"TaskVariableAssignmentDataset"}
OPTIONAL = {"HuggingFaceDataset": "datasets"}  # by class: the package it needs
ENDLESS = 3  # sequences that are read of a dataset without end


@pytest.fixture(params=sorted(set(DATASETS) - REFUSED))
def dataset(request, tmp_path):
    """A dataset of each class."""
    if request.param in OPTIONAL:
        pytest.importorskip(OPTIONAL[request.param])
    return init_dataset({"class": request.param, **examples(tmp_path)[request.param]}, name="toy")


def read(dataset, epoch):
    """[(tag, {key: array})] of an epoch, which the lengths and the description must fit to."""
    dataset.init_seq_order(epoch)
    found, i = [], 0
    while dataset.is_less_than_num_seqs(i) and i < (ENDLESS if _endless(dataset) else 1000):
        lengths = dataset.get_seq_length(i)
        dataset.load_seqs(i, i + 1)
        seq = {key: dataset.get_data(i, key) for key in dataset.get_data_keys()}
        for key, array in seq.items():
            assert lengths[key] == (len(array) if array.ndim else 1), key
        found.append((dataset.get_tag(i), seq))
        i += 1
    if not _endless(dataset):
        assert dataset.num_seqs == len(found) and 0 < dataset.get_complete_frac(len(found) - 1) <= 1
    return found


def _endless(dataset):
    try:
        return math.isinf(dataset.num_seqs)
    except NotImplementedError:
        return False


def same(a, b):
    """Whether the same sequences were read twice."""
    return [tag for tag, _ in a] == [tag for tag, _ in b] and all(
        np.array_equal(x[key], y[key], equal_nan=x[key].dtype.kind == "f")
        for (_, x), (_, y) in zip(a, b, strict=True)
        for key in x
    )


def test_contract(dataset):
    assert dataset.num_seqs == 0 and not dataset.is_less_than_num_seqs(0)
    keys = dataset.get_data_keys()
    assert keys and set(dataset.get_target_list()) <= set(keys) and set(dataset.extern_data()) == set(keys)
    first = read(dataset, 1)
    assert first
    for _, seq in first:
        for key in keys:
            if dataset.get_data_dtype(key) == "object":
                with pytest.raises(NoSuchKey, match="objects, which have no dimension"):
                    dataset.is_data_sparse(key)
                continue
            assert seq[key].ndim == len(dataset.get_data_shape(key)) + dataset.has_time(key), key
            if not dataset.is_data_sparse(key) and seq[key].ndim > 1:
                assert seq[key].shape[-1] == dataset.get_data_dim(key), key
            if dataset.is_data_sparse(key) and dataset.get_data_dim(key) and seq[key].size:
                assert 0 <= seq[key].min() and seq[key].max() < dataset.get_data_dim(key)
    assert same(read(dataset, 1), first)
    dataset.finish_epoch(free_resources=True)
    assert same(read(dataset, 1), first)
    questions = (dataset.get_data_dtype, dataset.get_data_dim, dataset.get_data_shape, dataset.is_data_sparse)
    for question in questions:
        with pytest.raises(NoSuchKey, match="no-such-key"):
            question("no-such-key")


@pytest.fixture(scope="module")
def process():
    """A process that was started anew: it has nothing but what it is sent."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


def test_a_new_process_reads_the_same(dataset, process):
    expected = read(dataset, 2)
    assert same(process.submit(read, dataset, 2).result(60), expected)


def test_constant_parts_are_there_and_stay(dataset):
    """A copy with the parts of an earlier epoch reads what the dataset reads."""
    sender, receiver = Sender(), Receiver()
    read(dataset, 1)
    assert set(dataset.constant_parts) <= set(vars(dataset))
    before = {id(part): (part, pickle.dumps(part)) for part in constant_parts(dataset)}
    copy = receiver.unpack(sender.pack(dataset))
    read(copy, 1)
    expected = read(dataset, 2)
    after = {id(part): pickle.dumps(part) for part in constant_parts(dataset)}
    assert all(content == before[number][1] for number, content in after.items() if number in before)
    sent = sender.pack(dataset)
    assert (sent.parts is None) == (set(after) == set(before)) and same(read(receiver.unpack(sent), 2), expected)


def test_batches(dataset):
    dataset.init_seq_order(1)
    options = BatchingOptions(batch_size=1000, max_seqs=2, max_total_num_seqs=ENDLESS)
    batches = list(Loader(dataset, options, keys=dataset.get_data_keys(), workers=0))
    alone = read(dataset, 1)
    assert batches and sum(len(batch.tags) for batch in batches) >= min(len(alone), ENDLESS)
    for batch in batches:
        for row, (i, tag) in enumerate(zip(batch.seq_idx, batch.tags, strict=True)):
            if i < len(alone):
                assert tag == alone[i][0]
                for key, lengths in batch.lengths.items():
                    assert np.allclose(batch.data[key][row, : lengths[row]], alone[i][1][key], equal_nan=True)


def test_unknown_options_are_refused(tmp_path):
    for name, options in examples(tmp_path).items():
        with pytest.raises(ConfigError, match=f"unknown option of {name}"):
            init_dataset({"class": name, **options, "no_such_option": 1})
