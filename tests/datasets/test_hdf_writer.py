"""HDF files written: layout, and reading them again."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from returnn_lite.compat.modules.datasets import SimpleHDFWriter
from returnn_lite.datasets import init_dataset
from returnn_lite.datasets.hdf.dump import hdf_from_dataset
from returnn_lite.errors import ConfigError
from returnn_lite.hdf.writer import HDFWriter
from returnn_lite.tools.hdf_dump import main


def read(path):
    """{name: array} of everything in a file, and its attributes."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, node: found.update({name: node[()]} if isinstance(node, h5py.Dataset) else {}))
        return found, dict(file.attrs)


def seqs(path, **options):
    dataset = init_dataset({"class": "HDFDataset", "files": [str(path)], **options})
    dataset.init_seq_order(1)
    keys = dataset.get_data_keys()
    return dataset, [{key: dataset.get_data(i, key).tolist() for key in keys} for i in range(dataset.num_seqs)]


def test_dense_layout(tmp_path):
    path = tmp_path / "out.hdf"
    batch = np.arange(24, dtype="float32").reshape(2, 3, 4)
    with HDFWriter(path, dim=4, ndim=2) as writer:
        writer.insert_batch(batch, [3, 2], ["seq-1", "ü"])
        writer.insert_batch(batch[:1], np.array([1]), ["seq-0"])
        assert not path.exists()
    content, attrs = read(path)
    assert attrs == {"numTimesteps": 6, "inputPattSize": 4, "numDims": 1, "numLabels": 4, "numSeqs": 3}
    assert all(value.dtype == np.int64 for value in attrs.values())
    assert sorted(content) == ["inputs", "labels", "seqLengths", "seqTags"]
    assert content["inputs"].dtype == np.float32
    np.testing.assert_array_equal(content["inputs"], np.concatenate([batch[0], batch[1, :2], batch[0, :1]]))
    assert content["seqLengths"].dtype == np.int32 and content["seqLengths"].tolist() == [[3, 0], [2, 0], [1, 0]]
    assert [tag.decode() for tag in content["seqTags"]] == ["seq-1", "ü", "seq-0"]
    assert content["labels"].shape == (0,) and content["labels"].dtype == "S5"
    with h5py.File(path) as file:
        assert (
            file["inputs"].maxshape == (None, 4) and h5py.check_string_dtype(file["seqTags"].dtype).encoding == "utf-8"
        )
    assert os.listdir(tmp_path) == ["out.hdf"]


@pytest.mark.parametrize("ndim", [2, None])
def test_two_axes_without_features(tmp_path, ndim):
    x = np.arange(48, dtype="float32").reshape(2, 4, 6)
    for i, tag in enumerate("ab"):  # the second one extends the file
        writer = SimpleHDFWriter(tmp_path / "x.hdf", dim=None, ndim=ndim, extend_existing_file=bool(i))
        writer.insert_batch(x[i : i + 1], seq_len={0: [4 - 2 * i], 1: [6 - 3 * i]}, seq_tag=[tag])
        writer.close()
    content, _ = read(tmp_path / "x.hdf")
    np.testing.assert_array_equal(content["inputs"], np.concatenate([x[0].reshape(-1), x[1, :2, :3].reshape(-1)]))
    assert content["targets/data/sizes"].tolist() == [4, 6, 2, 3] and content["seqTags"].tolist() == [b"a", b"b"]


def test_sparse_with_labels_and_extra_keys(tmp_path):
    path = tmp_path / "out.hdf"
    with HDFWriter(path, dim=3, ndim=1, labels=["a", "bc", "d"], extra={"scores": (1, 1)}) as writer:
        writer.insert_batch(
            np.array([[0, 1, 2], [2, 2, 0]], "int32"), [3, 1], ["x", "y"],
            extra={"scores": np.array([0.5, 1.5]), "att": np.ones((2, 4, 2), "float32")}, extra_seq_len={"att": [4, 2]},
        )  # fmt: skip
    content, attrs = read(path)
    assert attrs["inputPattSize"] == 3 and content["labels"].tolist() == [b"a", b"bc", b"d"]
    assert content["seqLengths"].tolist() == [[3, 4, 1], [1, 2, 1]]  # inputs, att, scores
    assert content["targets/labels/att"].tolist() == [b"dummy-label"]
    with h5py.File(path) as file:
        assert {k: v.tolist() for k, v in file["targets/size"].attrs.items()} == {"att": [2, 2], "scores": [1, 1]}
    dataset, found = seqs(path)
    assert dataset.num_outputs == {"data": (3, 1), "att": (2, 2), "scores": (1, 1)}
    assert dataset.labels["data"] == ["a", "bc", "d"]
    assert [seq["data"] for seq in found] == [[0, 1, 2], [2]] and found[1]["scores"] == [1.5]


def test_labels_that_are_not_ascii(tmp_path):
    with HDFWriter(tmp_path / "o.hdf", dim=2, ndim=1, labels=["ä", "b"]) as writer:
        writer.insert(np.array([0, 1], "int32"), "s")
    assert seqs(tmp_path / "o.hdf")[0].labels["data"] == ["ä", "b"]


def test_several_axes_are_flattened(tmp_path):
    path = tmp_path / "out.hdf"
    data = np.arange(2 * 3 * 4 * 2, dtype="float32").reshape(2, 3, 4, 2)
    with HDFWriter(path, dim=2, ndim=3) as writer:
        writer.insert_batch(data, {0: [3, 2], 1: [2, 4]}, ["x", "y"])
    content, _ = read(path)
    expected = np.concatenate([data[0, :3, :2].reshape(-1, 2), data[1, :2].reshape(-1, 2)])
    np.testing.assert_array_equal(content["inputs"], expected)
    assert content["seqLengths"].tolist() == [[6, 2], [8, 2]]
    assert content["targets/data/sizes"].tolist() == [3, 2, 2, 4] and content["targets/data/sizes"].dtype == np.int32


def test_no_sequence_at_all(tmp_path):
    HDFWriter(tmp_path / "o.hdf", dim=4).close()
    content, attrs = read(tmp_path / "o.hdf")
    assert content["inputs"].shape == (0, 4) and content["seqLengths"].shape == (0, 2) and attrs["numSeqs"] == 0


def test_existing_files_are_refused(tmp_path):
    path = tmp_path / "out.hdf"
    writer = HDFWriter(path, dim=1)
    path.write_text("mine")
    writer.insert(np.zeros((1, 1), "float32"), "a")
    with pytest.raises(ConfigError, match="out.hdf: this file exists already$"):
        HDFWriter(path, dim=1)
    with pytest.raises(
        ConfigError, match=r"out.hdf: this file exists already; what was to be written is in .*\.writing"
    ):
        writer.close()
    assert path.read_text() == "mine"


def test_an_error_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), HDFWriter(tmp_path / "out.hdf", dim=1) as writer:
        writer.insert(np.zeros((1, 1), "float32"), "a")
        _ = 1 / 0
    assert os.listdir(tmp_path) == []


def test_what_does_not_fit(tmp_path):
    with pytest.raises(ConfigError, match="1 labels for 2 classes"):
        HDFWriter(tmp_path / "l.hdf", dim=2, labels=["a"])
    with pytest.raises(ConfigError, match='the directory ".*nowhere" does not exist'):
        HDFWriter(tmp_path / "nowhere" / "l.hdf", dim=2)
    writer = HDFWriter(tmp_path / "o.hdf", dim=2)
    with pytest.raises(ConfigError, match='sequence "a" must have frames of 2 numbers, but has 3'):
        writer.insert(np.zeros((1, 3)), "a")
    with pytest.raises(ConfigError, match="2 tags for 1 sequences"):
        writer.insert_batch(np.zeros((1, 3, 2)), [3], ["a", "b"])
    writer.insert(np.zeros((1, 2)), "a", {"x": np.zeros(2)})
    with pytest.raises(ConfigError, match="must have the extra keys of the first"):
        writer.insert(np.zeros((1, 2)), "b")
    writer.close()
    with pytest.raises(ConfigError, match="is closed already"):
        writer.insert(np.zeros((1, 2)), "b", {"x": np.zeros(2)})


# --- any dataset as a file ---

DATA = [
    {"data": np.ones((n, 2), "float32") * n, "classes": np.arange(n, dtype="int32"), "raw": np.array("text")}
    for n in (3, 1, 2)
]


def test_a_dataset_as_a_file(tmp_path):
    path = tmp_path / "out.hdf"
    options = {"output_dim": {"classes": (4, 1)}, "seq_ordering": "sorted"}
    dataset = init_dataset({"class": "StaticDataset", "data": DATA, **options})
    assert hdf_from_dataset(dataset, path) == 3
    content, attrs = read(path)
    assert content["seqTags"].tolist() == [b"seq-1", b"seq-2", b"seq-0"] and content["seqTags"].dtype == "S6"
    assert content["seqLengths"].tolist() == [[1, 1], [2, 2], [3, 3]] and content["seqLengths"].dtype == np.int32
    assert attrs == {"inputPattSize": 2} and sorted(content) == [
        "inputs", "seqLengths", "seqTags", "targets/data/classes", "targets/labels/classes",
    ]  # fmt: skip
    assert content["targets/labels/classes"].tolist() == [f"classes-class-{i}".encode() for i in range(4)]
    copy, found = seqs(path)
    assert copy.num_outputs == {"data": (2, 2), "classes": (4, 1)}
    assert found[2] == {"data": [[3, 3]] * 3, "classes": [0, 1, 2]}


def test_a_range_of_a_dataset_without_end(tmp_path):
    dataset = init_dataset({"class": "Task12AXDataset"})
    assert hdf_from_dataset(dataset, tmp_path / "o.hdf", epoch=2, start_seq=2, end_seq=5) == 3
    copy, _ = seqs(tmp_path / "o.hdf")
    dataset.init_seq_order(2)
    assert copy.get_tag(0) == "seq-2"
    np.testing.assert_array_equal(copy.get_data(1, "data"), dataset.get_data(3, "data"))


def test_a_target_called_data_and_no_targets(tmp_path):
    only = [{"data": np.arange(3, dtype="int32")}]
    hdf_from_dataset(
        init_dataset({"class": "StaticDataset", "data": only, "target_list": ["data"]}), tmp_path / "t.hdf"
    )
    assert seqs(tmp_path / "t.hdf")[1] == [{"classes": [0, 1, 2]}]
    hdf_from_dataset(init_dataset({"class": "StaticDataset", "data": [{"data": np.ones((3, 2))}]}), tmp_path / "i.hdf")
    assert seqs(tmp_path / "i.hdf")[1] == [{"data": [[1, 1]] * 3}]
    with h5py.File(tmp_path / "i.hdf") as file:  # no column for targets, and empty groups
        assert file["seqLengths"][()].tolist() == [[3]]
        assert [len(file[f"targets/{part}"]) for part in ("data", "size", "labels")] == [0, 0, 0]


def test_the_tool(tmp_path, capsys):
    out = tmp_path / "out.hdf"
    out.touch()  # an empty file may be there
    assert main(["{'class': 'Task12AXDataset', 'num_seqs': 3}", str(out)]) == 0
    assert "3 sequences" in capsys.readouterr().out
    config = tmp_path / "train.config"
    config.write_text("#!rnn.py\ntrain = {'class': 'Task12AXDataset', 'num_seqs': 3}\nbatching = 'reverse'\n")
    assert main([str(config), str(tmp_path / "two.hdf"), "--start_seq", "1"]) == 0
    assert [tag for tag in read(tmp_path / "two.hdf")[0]["seqTags"]] == [b"seq-1", b"seq-0"]
    assert main([str(out), str(tmp_path / "three.hdf")]) == 0
    assert main([str(out), str(out)]) == 1
    assert capsys.readouterr().err.endswith("out.hdf: this file exists already\n")
    config.write_text("#!rnn.py\ndev = None\n")
    assert main([str(config), str(tmp_path / "no.hdf")]) == 1
    assert "the config has no dataset `train`" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["out.hdf", "three.hdf", "train.config", "two.hdf"]


@pytest.mark.parametrize("options, expected", [
    (["--end_seq", "1"], [0, 1]),
    (["--start_seq", "1", "--end_seq", "1"], [1]),
    (["--start_seq", "1", "--end_seq", "inf"], [1, 2]),
    (["--end_seq", "-1"], [0, 1, 2]),
    (["--end_seq", "9"], [0, 1, 2]),
])  # fmt: skip
def test_the_tool_takes_a_range_with_its_last_sequence(tmp_path, options, expected):
    assert main(["{'class': 'Task12AXDataset', 'num_seqs': 3}", str(tmp_path / "out.hdf"), *options]) == 0
    assert read(tmp_path / "out.hdf")[0]["seqTags"].tolist() == [f"seq-{i}".encode() for i in expected]


def test_the_tool_refuses_a_range_without_sequences(tmp_path, capsys):
    out = str(tmp_path / "out.hdf")
    assert main(["{'class': 'Task12AXDataset', 'num_seqs': 3}", out, "--start_seq", "2", "--end_seq", "1"]) == 1
    assert capsys.readouterr().err == ("--end_seq: the sequences must go from 0 on to a later one, but are 2 to 1\n")
    assert not os.listdir(tmp_path)


# --- a disk without space: a limit on the size of files does the same ---

FULL = """
import resource, sys
import numpy as np
from returnn_lite.datasets import init_dataset
from returnn_lite.compat.modules.datasets import SimpleHDFWriter
from returnn_lite.datasets.hdf.dump import hdf_from_dataset
from returnn_lite.hdf.writer import HDFWriter
from returnn_lite.errors import ConfigError

name, frames, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    if how == "dataset":
        data = [{"data": np.random.randn(frames, 100).astype("float32")}] * 3
        hdf_from_dataset(init_dataset({"class": "StaticDataset", "data": data}), name)
    else:
        writer = HDFWriter(name, dim=100, extend_existing_file=how == "extend")
        for i in range(3):
            writer.insert(np.random.randn(frames, 100).astype("float32"), f"s{i}")
        writer.close()
except ConfigError as exc:
    sys.exit(str(exc))
"""


@pytest.mark.parametrize("frames", [300, 20_000])  # seen as the file is closed, or before
@pytest.mark.parametrize("how", ["writer", "extend", "dataset"])
def test_a_full_disk(tmp_path, frames, how):
    path = tmp_path / "out.hdf"
    if how == "extend":
        with HDFWriter(path, dim=100) as writer:
            writer.insert(np.zeros((1, 100), "float32"), "before")
    before = path.read_bytes() if path.exists() else None
    done = subprocess.run([sys.executable, "-c", FULL, str(path), str(frames), how], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"{path}: cannot be written: File too large\n")
    assert os.listdir(tmp_path) == ([] if before is None else ["out.hdf"])
    assert before is None or path.read_bytes() == before


def test_a_folder_that_must_not_be_written(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", "x")

    monkeypatch.setattr("returnn_lite.hdf.unfailing_file.open", refuse, raising=False)
    with pytest.raises(ConfigError, match="out.hdf: cannot be written: Permission denied"):
        HDFWriter(tmp_path / "out.hdf", dim=2)


# --- further sequences for a file that is there already ---


def test_a_file_is_extended(tmp_path):
    """It is as if all had been written at once."""
    batch = np.arange(24, dtype="float32").reshape(2, 3, 4)
    more = {"att": np.arange(6, dtype="int32").reshape(2, 3)}
    for path, extend in ((tmp_path / "whole.hdf", False), (tmp_path / "parts.hdf", True)):
        with HDFWriter(path, dim=4, extend_existing_file=extend) as writer:  # with `extend`, there is none yet
            writer.insert_batch(batch, [3, 2], ["ü", "b"], more, {"att": [1, 2]})
            if extend:
                writer.close()
                writer = HDFWriter(path, dim=4, extend_existing_file=True)
            writer.insert_batch(batch + 1, [1, 3], ["c", "d"], more, {"att": [3, 0]})
            writer.close()
    (whole, attrs), (parts, attrs_of_parts) = read(tmp_path / "whole.hdf"), read(tmp_path / "parts.hdf")
    assert attrs == attrs_of_parts and attrs["numSeqs"] == 4
    assert sorted(whole) == sorted(parts)
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name])
    assert seqs(tmp_path / "parts.hdf")[1] == seqs(tmp_path / "whole.hdf")[1]
    assert sorted(os.listdir(tmp_path)) == ["parts.hdf", "whole.hdf"]


def test_labels_stay_and_an_error_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "x.hdf"
    with HDFWriter(path, dim=2, ndim=1, labels=["a", "b"]) as writer:
        writer.insert(np.array([0, 1], "int32"), "one")
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), HDFWriter(path, dim=2, ndim=1, extend_existing_file=True) as writer:
        writer.insert(np.array([1], "int32"), "two")
        raise KeyboardInterrupt
    with pytest.raises(ConfigError, match=r"must hold data of \(dim, ndim\) \(3, 2\) .*, but holds \(2, 1\)"):
        HDFWriter(path, dim=3, extend_existing_file=True)
    with pytest.raises(ConfigError, match='sequence "two" must have the extra keys of the first'):
        with HDFWriter(path, dim=2, ndim=1, extend_existing_file=True) as writer:
            writer.insert(np.array([1], "int32"), "two", {"more": np.zeros(1)})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["x.hdf"]
    with HDFWriter(path, dim=2, ndim=1, extend_existing_file=True) as writer:
        writer.insert(np.array([1], "int32"), "two")
    dataset, found = seqs(path)
    assert found == [{"data": [0, 1]}, {"data": [1]}] and dataset.labels == {"data": ["a", "b"]}
    (tmp_path / "no.hdf").write_text("no")
    with pytest.raises(ConfigError, match="no.hdf: cannot be read as an HDF file"):
        HDFWriter(tmp_path / "no.hdf", dim=2, extend_existing_file=True)
    assert sorted(os.listdir(tmp_path)) == ["no.hdf", "x.hdf"]


def test_labels_and_dtypes_of_further_keys(tmp_path):
    options = {"extra_type": {"x": (3, 1, "uint8"), "y": (2, 2, "float32")}, "extra_labels": {"x": ["a", "b", "c"]}}
    for extend in (False, True):
        with SimpleHDFWriter(tmp_path / "x.hdf", dim=2, swmr=True, extend_existing_file=extend, **options) as writer:
            writer.insert(np.zeros((2, 2), "float32"), "s", {"x": [0, 2], "y": np.ones((1, 2))})
        options = {"extra_type": options["extra_type"]}  # what the file has stays
    with h5py.File(tmp_path / "x.hdf") as file:
        assert file["targets/labels/x"][:].tolist() == [b"a", b"b", b"c"]
        assert file["targets/labels/y"][:].tolist() == [b"dummy-label"]
        assert file["targets/data/x"].dtype == "uint8" and file["targets/data/y"].dtype == "float32"
        assert len(file["seqTags"]) == 2
    writer = SimpleHDFWriter(tmp_path / "y.hdf", dim=2, extra_type={"x": (3, 1, "int32")}, extra_labels={"x": ["a"]})
    writer.insert(np.zeros((2, 2), "float32"), "s", {"x": [0]})
    with pytest.raises(ConfigError, match='"x" has 1 labels for 3 classes'):
        writer.close()
