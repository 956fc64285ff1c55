"""Numbers that cannot be right are found when batches are made, with the tag and the key."""

import os
import re
import threading

import h5py
import numpy as np
import pytest

from returnn_lite.datasets import BatchingOptions, DataError, Loader, init_dataset
from returnn_lite.datasets.casting import class_indices
from returnn_lite.errors import ConfigError
from returnn_lite.tools.hdf_dump import main as hdf_dump
from tests.datasets.examples import ogg_zip
from tests.datasets.hdf_files import write

GOOD = {"data": np.ones((2, 3), "float32"), "classes": np.array([0, 4])}


def batches(seq, workers=0, dtypes=None):
    dataset = init_dataset({"class": "StaticDataset", "data": [GOOD, seq]}, name="toy")
    dataset.init_seq_order(1)
    options = BatchingOptions(batch_size=100)
    return list(
        Loader(dataset, options, keys=["data", "classes"], dtypes=dtypes, classes={"classes": 5}, workers=workers)
    )


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("change, message", [
    ({"classes": np.array([1, 5])}, '"classes" must be class indices from 0 to 4, but holds 5'),
    ({"classes": np.array([-1, 1])}, "but holds -1"),
    ({"data": np.array([[1, np.nan, 1], [1, 1, 1]])}, '"data" holds NaN'),
])  # fmt: skip
def test_bad_values(change, message, workers):
    with pytest.raises(ConfigError, match=f'toy: sequence "seq-1": .*{message}'):
        batches({**GOOD, **change}, workers)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("labels, message", [
    (np.array([1, 2**40]), "must be class indices from 0 to 4, but holds 1099511627776"),
    (np.array([1, 2**32 + 1]), "must be class indices from 0 to 4, but holds 4294967297"),
    (np.array([1, 2**64 - 1], "uint64"), "but holds 18446744073709551615"),
    (np.array([1.0, 1.5]), "must be class indices from 0 to 4, but holds 1.5"),
    (np.array([1.0, np.nan]), "but holds NaN"),
    (np.array([1.0, np.inf]), "but holds inf"),
    (np.array(["1", "2"]), "must be numbers, but holds '1' instead"),
])  # fmt: skip
def test_labels_are_looked_at_before_they_are_cast(labels, message, workers):
    with pytest.raises(ConfigError, match=f'toy: sequence "seq-1": "classes" .*{message}'):
        batches({**GOOD, "classes": labels}, workers, dtypes={"classes": "int32"})


def test_whole_numbers_in_other_dtypes_are_labels():
    (batch,) = batches({**GOOD, "classes": np.array([2.0, 4.0])}, dtypes={"classes": "int32"})
    assert batch.data["classes"].dtype == np.int32 and batch.data["classes"].tolist() == [[0, 4], [2, 4]]


@pytest.mark.parametrize("array, dtype, message", [
    (np.array([300]), "uint8", "must be whole numbers from 0 to 255 (uint8), but holds 300"),
    (np.array([2.5]), "int64", "must be whole numbers .*, but holds 2.5"),
    (np.array([2.0**63]), "int64", "must be whole numbers .*, but holds 9.223372036854776e+18"),
    (np.array([1e300]), "float32", "must be numbers that float32 can hold, but holds 1e+300"),
    (np.array([1 + 1j]), "float32", "must be numbers, but holds (1+1j) instead"),
])  # fmt: skip
def test_inputs_are_looked_at_before_they_are_cast(array, dtype, message):
    dataset = init_dataset({"class": "StaticDataset", "data": [{"data": array}]}, name="toy")
    dataset.init_seq_order(1)
    loader = Loader(dataset, BatchingOptions(batch_size=100), keys=["data"], dtypes={"data": dtype})
    pattern = re.escape(f'toy: sequence "seq-0": "data" {message}').replace(r"\.\*", ".*")
    with pytest.raises(DataError, match=pattern):
        list(loader)


@pytest.mark.parametrize("label", ["1.5", "nan", "1099511627776"])
def test_labels_in_numpy_dumps(tmp_path, label):
    (tmp_path / "0.data.txt").write_text("1 2\n3 4\n")
    (tmp_path / "0.targets.txt").write_text(f"1\n{label}\n")
    options = {"class": "NumpyDumpDataset", "prefix": f"{tmp_path}/", "postfix": ".txt"}
    dataset = init_dataset({**options, "num_inputs": 2, "num_outputs": 3}, name="toy")
    dataset.init_seq_order(1)
    with pytest.raises(DataError, match='toy: sequence "seq-0": .*0.targets.txt must be whole numbers'):
        dataset.load_seqs(0, 1)


def test_a_vocabulary_that_gives_no_indices():
    with pytest.raises(
        ConfigError, match=r"classes that the vocabulary gives must be whole numbers .*, but holds 0\.5"
    ):
        class_indices([0.5])


def test_infinite_numbers_and_empty_sequences_are_data():
    odd = {"data": np.array([[np.inf, -np.inf, 0]]), "classes": np.array([1])}
    empty = {"data": np.zeros((0, 3)), "classes": np.zeros(0, "int64")}
    assert batches(odd)[0].data["data"][1, 0, 0] == np.inf
    assert batches(empty)[0].lengths["classes"].tolist() == [2, 0]


# --- in files: the message says which, whatever stands around them ---

FRAMES = (3, 2, 4)
NAN = np.ones((9, 2), "float32")
NAN[4, 1] = np.nan
BAD_FILES = {
    "classes": ({"targets/data/classes": np.array([0, 1, 2, 4, 9, 0, 0, 0, 0])}, "classes", "but holds 9"),
    "negative": ({"targets/data/classes": np.array([0, 1, 2, -1, 4, 0, 0, 0, 0])}, "classes", "but holds -1"),
    "nan": ({"inputs": NAN}, "data", "holds NaN"),
}


def around(kind, path):
    """The HDF file's dataset inside of others."""
    inner = {"class": "HDFDataset", "files": [path]}
    maps = {"data": ("a", "data"), "classes": ("a", "classes")}
    mixed = {("a", "data"): "data", ("a", "classes"): "classes", ("b", "x"): "x"}
    other = {"class": "StaticDataset", "data": [{"x": np.zeros((1, 1))}]}
    return {
        "alone": inner,
        "meta": {"class": "MetaDataset", "datasets": {"a": inner}, "data_map": maps},
        "combined": {"class": "CombinedDataset", "datasets": {"a": inner, "b": other}, "data_map": mixed},
        "concat": {"class": "ConcatDataset", "datasets": [inner]},
        "processes": {"class": "MultiProcDataset", "dataset": inner, "num_workers": 1, "buffer_size": 2},
    }[kind]


@pytest.mark.parametrize("kind", ["alone", "meta", "combined", "concat", "processes"])
@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_values_in_files(tmp_path, name, kind):
    change, key, problem = BAD_FILES[name]
    path = write(tmp_path / "bad.hdf", FRAMES, classes=5, **change)
    dataset = init_dataset(around(kind, path), name="toy")
    dataset.init_seq_order(1)
    loader = Loader(dataset, BatchingOptions(batch_size=100), keys=["data", "classes"], classes={"classes": 5})
    with pytest.raises(DataError, match=f'sequence "t1" of {path}: "{key}" .*{problem}'):
        list(loader)
    dataset.finish_epoch()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]
    assert os.listdir(tmp_path) == ["bad.hdf"]


def test_the_right_one_of_several_files_is_named(tmp_path):
    good = write(tmp_path / "good.hdf", FRAMES, classes=5, tags=list("abc"))
    bad = write(tmp_path / "bad.hdf", FRAMES, classes=5, **BAD_FILES["nan"][0])
    dataset = init_dataset({"class": "HDFDataset", "files": [good, bad], "seq_ordering": "reverse"}, name="toy")
    dataset.init_seq_order(1)
    with pytest.raises(DataError, match=f'toy: sequence "t1" of {bad}: "data" holds NaN'):
        list(Loader(dataset, BatchingOptions(batch_size=100), keys=["data"]))


def test_labels_of_a_zip_file(tmp_path):
    path = ogg_zip(tmp_path / "x.zip")
    vocab = {"class": "CharacterTargets", "labels": ["a", "b", "@"]}
    dataset = init_dataset({"class": "OggZipDataset", "path": path, "audio": None, "targets": vocab}, name="toy")
    dataset.init_seq_order(1)
    with pytest.raises(DataError, match=f'toy: sequence "s0" of {path}: "classes" must be .*, but holds 1'):
        list(Loader(dataset, BatchingOptions(batch_size=100), keys=["classes"], classes={"classes": 1}))


def test_a_missing_key(tmp_path):
    dataset = init_dataset(around("alone", write(tmp_path / "x.hdf", FRAMES, classes=5)), name="toy")
    with pytest.raises(ConfigError, match='toy: unknown data key "clases"; did you mean "classes"'):
        Loader(dataset, BatchingOptions(batch_size=100), keys=["data", "clases"])


def test_sequences_without_frames_are_batched_as_the_others(tmp_path):
    path = write(tmp_path / "x.hdf", (0, 3, 0, 0), classes=5)
    dataset = init_dataset(around("alone", path), name="toy")
    dataset.init_seq_order(1)
    made = list(Loader(dataset, BatchingOptions(batch_size=100, max_seqs=1), keys=["data", "classes"]))
    assert [(b.tags, b.data["data"].shape) for b in made] == [
        (["t0"], (1, 0, 2)),
        (["t1"], (1, 3, 2)),
        (["t2"], (1, 0, 2)),
    ]  # fmt: skip (a last batch of nothing is left out)


def test_a_dump_of_bad_data_leaves_no_file(tmp_path, capsys):
    """A chunk of the file is damaged."""
    path = tmp_path / "bad.hdf"
    with h5py.File(write(path, inputs=None), "a") as file:
        made = file.create_dataset("inputs", data=np.ones((9, 2)), chunks=(3, 2), fletcher32=True)
        place = made.id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    assert hdf_dump([str(path), str(tmp_path / "out.hdf")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and 'sequence "t1"' in error and f"{path}: inputs: cannot be read" in error
    assert os.listdir(tmp_path) == ["bad.hdf"]
