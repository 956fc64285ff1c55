"""HDFDataset: what it reads, and what it says about files that are wrong."""

import multiprocessing
import pickle

import h5py
import numpy as np
import pytest

from returnn_lite.datasets import BatchingOptions, Loader, init_dataset
from returnn_lite.datasets.batches.epoch_batches import epoch_batches
from returnn_lite.errors import ConfigError
from returnn_lite.hdf.file import MAX_OPEN_FILES, Handles
from tests.datasets.hdf_files import write


def hdf(*files, **options):
    return init_dataset({"class": "HDFDataset", "files": list(files), **options}, name="train")


def seqs(dataset, epoch=1, **kwargs):
    """[(tag, {key: array})] of an epoch, loaded two at a time."""
    dataset.init_seq_order(epoch, **kwargs)
    found = []
    for start in range(0, dataset.num_seqs, 2):
        dataset.load_seqs(start, start + 2)
        for i in range(start, min(start + 2, dataset.num_seqs)):
            found.append((dataset.get_tag(i), {key: dataset.get_data(i, key) for key in dataset.get_data_keys()}))
    return found


def test_inputs_and_targets(tmp_path):
    dataset = hdf(write(tmp_path / "a.hdf", classes=3))
    assert dataset.num_outputs == {"data": (2, 2), "classes": (3, 1)}
    assert dataset.labels == {"classes": ["l0", "l1", "l2"]}
    assert dataset.get_data_keys() == ["data", "classes"] and dataset.get_target_list() == ["classes"]
    assert dataset.extern_data() == {
        "data": {"dim": 2, "shape": (None, 2), "sparse": False, "dtype": "float32", "available_for_inference": True},
        "classes": {"dim": 3, "shape": (None,), "sparse": True, "dtype": "int32", "available_for_inference": False},
    }
    first, second, _ = seqs(dataset)
    assert first[0] == "t0" and first[1]["data"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert second[1]["classes"].tolist() == [0, 1]
    assert dataset.get_seq_length(2) == {"data": 4, "classes": 4}
    assert dataset.get_complete_frac(0) == pytest.approx(1 / 3)


@pytest.mark.parametrize("empty_groups", [False, True])
def test_one_stream(tmp_path, empty_groups):
    """With or without groups for targets, and with or without a column for them; such files go together."""
    for name, lengths in (("a", [[3], [2]]), ("b", [[3, 0], [2, 0]])):
        with h5py.File(tmp_path / f"{name}.hdf", "w") as file:
            file["inputs"], file["seqTags"] = np.arange(10.0).reshape(5, 2), [f"{name}0".encode(), f"{name}1".encode()]
            file["seqLengths"] = np.array(lengths, np.int32)
            for part in ("data", "size", "labels") if empty_groups else ():
                file.create_group(f"targets/{part}")
    for order in ("ab", "ba"):
        dataset = hdf(*(tmp_path / f"{name}.hdf" for name in order))
        found = seqs(dataset)
        assert [(tag, len(seq["data"])) for tag, seq in found] == [(f"{n}{i}", 3 - i) for n in order for i in (0, 1)]
        assert dataset.get_data_keys() == ["data"] and dataset.num_outputs == {"data": (2, 2)}


def test_several_files_in_any_order(tmp_path):
    files = [write(tmp_path / f"{i}.hdf", lens, tags=[f"{i}/{j}" for j in range(len(lens))])
             for i, lens in enumerate([(3, 1), (2, 5), (4,)])]  # fmt: skip
    dataset = hdf(*files, seq_ordering="sorted")
    found = seqs(dataset)
    assert [tag for tag, _ in found] == ["0/1", "1/0", "0/0", "2/0", "1/1"]
    assert [len(seq["data"]) for _, seq in found] == [1, 2, 3, 4, 5]
    assert found[-1][1]["data"][0].tolist() == [4, 5]
    assert list(dataset.get_all_tags()) == ["0/0", "0/1", "1/0", "1/1", "2/0"]
    assert dataset.get_current_seq_order().tolist() == [1, 2, 0, 4, 3]
    tags = [tag for tag, _ in seqs(dataset, seq_list=["1/1", "0/0", "1/1"])]
    assert tags == ["1/1", "0/0", "1/1"] and dataset.get_corpus_seq_idx(0) == 3


def test_tags_of_all_kinds_end_at_nul(tmp_path):
    fixed = np.array([b"a/1", b"\xc3\xbc", b"long tag"], "S12")
    assert [tag for tag, _ in seqs(hdf(write(tmp_path / "f.hdf", seqTags=fixed)))] == ["a/1", "ü", "long tag"]
    padded = np.array(["x\0\0\0", "y", "ü\0zz"], object)
    with h5py.File(write(tmp_path / "v.hdf", seqTags=None), "a") as file:
        file.create_dataset("seqTags", data=[t.encode() for t in padded], dtype="S6")
    assert [tag for tag, _ in seqs(hdf(str(tmp_path / "v.hdf")))] == ["x", "y", "ü"]


def test_the_last_of_equal_tags_is_found(tmp_path):
    dataset = hdf(write(tmp_path / "a.hdf", tags=["a", "b", "a"]))
    dataset.init_seq_order(1, seq_list=["a"])
    assert dataset.get_corpus_seq_idx(0) == 2
    with pytest.raises(ConfigError, match='train: no sequence has the tag "c"'):
        dataset.init_seq_order(1, seq_list=["c"])


def test_sparse_inputs_and_only_targets(tmp_path):
    dataset = hdf(write(tmp_path / "s.hdf", inputs=np.arange(9, dtype="uint8"), attrs={"inputPattSize": 9}))
    assert dataset.num_outputs == {"data": (9, 1)} and dataset.get_data_dtype("data") == "uint8"
    assert dataset.is_data_sparse("data") and dataset.get_data_shape("data") == []
    dataset = hdf(write(
        tmp_path / "t.hdf", inputs=None, seqLengths=np.array([[3, 1], [2, 1], [4, 1]]),
        **{"targets/data/align": np.arange(9), "targets/data/img": np.zeros((3, 2, 5))},
    ))  # fmt: skip
    assert dataset.get_data_keys() == ["align", "img"] and dataset.num_inputs == 0
    assert dataset.num_outputs == {"align": (1, 1), "img": (5, 3)}
    assert [seq["align"].tolist() for _, seq in seqs(dataset)] == [[0, 1, 2], [3, 4], [5, 6, 7, 8]]


def test_window_stacks_neighbours(tmp_path):
    path = write(tmp_path / "a.hdf", (3, 1), dim=1, inputs=np.array([[1], [2], [3], [9]], "float32"))
    dataset = hdf(path, window=2)  # an even window becomes odd
    assert dataset.get_data_dim("data") == 3 and dataset.get_data_shape("data") == [3]
    assert dataset.num_outputs == {"data": (1, 2)}
    assert seqs(dataset)[0][1]["data"].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 0]]
    assert seqs(dataset)[1][1]["data"].tolist() == [[0, 9, 0]]


def test_only_the_keys_asked_for_are_read(tmp_path):
    dataset = hdf(write(tmp_path / "a.hdf", classes=3))
    dataset.init_seq_order(1)
    dataset.limit_keys(["classes"])
    dataset.load_seqs(0, 1)
    assert dataset.get_data(0, "classes").tolist() == [0, 1, 2]
    with pytest.raises(ConfigError, match='train: unknown key "data"'):
        dataset.get_data(0, "data")


def test_neighbours_are_read_at_once(tmp_path, monkeypatch):
    dataset = hdf(write(tmp_path / "a.hdf", (1,) * 20))
    reads = []
    file = dataset.files[0]
    monkeypatch.setattr(file, "read", lambda *a, read=file.read: reads.append(a) or read(*a))
    dataset.init_seq_order(1, seq_order=[3, 2, 4, 9, 3])
    dataset.load_seqs(0, 5)
    assert reads == [("data", 2, 2), ("data", 3, 2), ("data", 9, 1)]
    assert [int(dataset.get_data(i, "data")[0, 0]) // 2 for i in range(5)] == [3, 2, 4, 9, 3]


# --- files that are wrong ---


@pytest.mark.parametrize("change, message", [
    ({"seqLengths": None}, "a.hdf: seqLengths: missing"),
    ({"seqTags": None}, "a.hdf: seqTags: missing"),
    ({"inputs": None}, "a.hdf: inputs: this file has neither inputs nor targets"),
    ({"inputs": np.zeros((4, 2))}, "a.hdf: inputs: has 4 frames, but the lengths of the sequences add up to 9"),
    ({"inputs": np.zeros(9), "attrs": {"x": 1}}, 'a.hdf: inputs: is 1-D, so the file needs .* "inputPattSize"'),
    ({"inputs": np.float32(3)}, "a.hdf: inputs: must have an axis for the frames"),
    ({"seqLengths": np.array([3, 2, 4])}, r"a.hdf: seqLengths: must have the shape \(sequences, 2\)"),
    ({"seqLengths": np.zeros((3, 3), int)}, "a.hdf: seqLengths: must have the shape"),
    ({"seqLengths": np.array([[3, 0], [-2, 0], [4, 0]])}, "a.hdf: seqLengths: must be whole numbers >= 0"),
    ({"seqLengths": np.array([[3.0, 0], [2, 0], [4, 0]])}, "a.hdf: seqLengths: must be whole numbers"),
    ({"seqTags": np.array([b"a", b"b"])}, "a.hdf: seqTags: must have one tag for each of 3"),
    ({"targets/data/data": np.zeros(9)}, 'a.hdf: targets/data/data: a target must not be called "data"'),
    ({"targets/data/x/y": np.zeros(9)}, "a.hdf: targets/data/x: must be an array, but is a group"),
])  # fmt: skip
def test_wrong_content(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        hdf(write(tmp_path / "a.hdf", **change))


def test_a_target_with_a_size_but_no_data(tmp_path):
    path = write(tmp_path / "a.hdf", classes=3)
    with h5py.File(path, "a") as file:
        file["targets/size"].attrs["other"] = 3
    with pytest.raises(ConfigError, match="targets/data/other: missing"):
        hdf(path)


def test_files_that_are_no_hdf(tmp_path):
    path = write(tmp_path / "a.hdf", (500,) * 20)
    whole = (tmp_path / "a.hdf").read_bytes()
    (tmp_path / "cut.hdf").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.hdf").write_text("no")
    for name in ("cut.hdf", "text.hdf"):
        with pytest.raises(ConfigError, match=f"{name}: cannot be read as an HDF file"):
            hdf(str(tmp_path / name))
    with pytest.raises(ConfigError, match="none.hdf: no such file"):
        hdf(path, str(tmp_path / "none.hdf"))


def test_damage_inside_names_file_and_key(tmp_path):
    path = tmp_path / "a.hdf"
    with h5py.File(write(path, inputs=None, **{"seqLengths": np.array([[9, 0]] * 1), "seqTags": [b"a"]}), "a") as file:
        made = file.create_dataset("inputs", data=np.arange(18.0).reshape(9, 2), chunks=(9, 2), fletcher32=True)
        place = made.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    dataset = hdf(str(path))
    dataset.init_seq_order(1)
    with pytest.raises(ConfigError, match=r"a.hdf: inputs: cannot be read \(sequences 0 to 0\)"):
        dataset.load_seqs(0, 1)
    with pytest.raises(ConfigError, match='sequence "a": .*a.hdf: inputs: cannot be read'):
        list(Loader(dataset, BatchingOptions(batch_size=100), keys=["data"]))


def test_files_that_do_not_fit_together(tmp_path, capsys):
    first = write(tmp_path / "1.hdf", classes=3)
    with pytest.raises(ConfigError, match=r"wrong input dimension in file .*2.hdf \(expected 2 got 5\)"):
        hdf(first, write(tmp_path / "2.hdf", dim=5, classes=3))
    with pytest.raises(ConfigError, match=r'wrong dimensions of "classes" in file .*3.hdf'):
        hdf(first, write(tmp_path / "3.hdf", classes=4))
    with pytest.raises(ConfigError, match='the key "classes" is missing in file .*4.hdf'):
        hdf(first, write(tmp_path / "4.hdf"))
    more = hdf(write(tmp_path / "5.hdf"), first)
    assert more.get_data_keys() == ["data"] and len(seqs(more)) == 6


@pytest.mark.parametrize("options, message", [
    ({"files": []}, "train: files: must be a list of HDF files"),
    ({"files": "a.hdf"}, "must be a list of HDF files, but is 'a.hdf'"),
    ({"files": [None]}, "must be a list of HDF files"),
    ({"partition_epoch": 2, "cache_byte_size": 100}, "set cache_byte_size = 0"),
    ({"window": 0.5}, "window: must be a whole number"),
    ({"fils": 3}, r'train\["fils"\]: unknown option of HDFDataset; did you mean "files"\?; its options are: files, '),
])  # fmt: skip
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        init_dataset({"class": "HDFDataset", "files": [write(tmp_path / "a.hdf")], **options}, name="train")


def test_window_needs_frames(tmp_path):
    with pytest.raises(ConfigError, match="train: window: is possible only where"):
        hdf(write(tmp_path / "s.hdf", inputs=np.arange(9), attrs={"inputPattSize": 9}), window=3)


# --- processes ---


def tags_of(dataset):
    return [tag for tag, _ in seqs(dataset)]


def test_goes_to_other_processes(tmp_path):
    dataset = hdf(write(tmp_path / "a.hdf"))
    assert tags_of(dataset) == tags_of(pickle.loads(pickle.dumps(dataset)))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(tags_of, (dataset,)) == ["t0", "t1", "t2"]


def test_few_files_stay_open(tmp_path):
    count = MAX_OPEN_FILES + 6
    files = [write(tmp_path / f"{i}.hdf", (1,), tags=[f"{i}"]) for i in range(count)]
    dataset = hdf(*files)
    assert len(tags_of(dataset)) == count
    assert len(dataset.handles.files) == MAX_OPEN_FILES
    dataset.finish_epoch(free_resources=True)
    assert not dataset.handles.files
    assert len(tags_of(dataset)) == count


def test_a_copy_after_a_fork_leaves_the_handles_alone(tmp_path):
    handles = Handles()
    with handles.open(write(tmp_path / "a.hdf")) as file:
        handles.pid = -1  # as seen in a child process
        with handles.open(str(tmp_path / "a.hdf")) as other:
            assert other is not file
        assert file["seqTags"].shape == (3,)


# --- batches kept over epochs ---


def batches(dataset, epoch, **options):
    changed = dataset.init_seq_order(epoch)
    made = BatchingOptions(**{"batch_size": 4, **options})
    return changed, [b.slices.seq_idx.tolist() for b in epoch_batches(dataset, made)]


def test_batches_are_replayed_while_the_order_stays(tmp_path):
    dataset = hdf(write(tmp_path / "a.hdf", (2,) * 40))
    changed, first = batches(dataset, 1, seq_drop=0.5)
    assert changed and len(first) < 20
    assert batches(dataset, 2, seq_drop=0.5) == (False, first)  # the same ones are dropped
    assert batches(dataset, 10, seq_drop=0.5)[1] != first  # every seq_drop_freq epochs others are
    assert len(batches(dataset, 11)[1]) == 20  # other options


def test_replayed_batches_are_shuffled(tmp_path):
    dataset = hdf(write(tmp_path / "a.hdf", (2,) * 40))
    _, first = batches(dataset, 1, shuffle_batches=True)
    _, second = batches(dataset, 2, shuffle_batches=True)
    _, third = batches(dataset, 3, shuffle_batches=True)
    assert first == sorted(first) != second != third
    assert first == sorted(second) == sorted(third)
    fracs = [b.complete for b in epoch_batches(dataset, BatchingOptions(batch_size=4, shuffle_batches=True))]
    assert fracs == [pytest.approx((i + 1) / 20) for i in range(20)]
    loaded = list(Loader(dataset, BatchingOptions(batch_size=4, shuffle_batches=True), keys=["data"]))
    assert sorted(tag for batch in loaded for tag in batch.tags) == sorted(f"t{i}" for i in range(40))


@pytest.mark.parametrize("options", [{"seq_ordering": "random"}, {"partition_epoch": 2}])
def test_orders_that_change_are_not_kept(tmp_path, options):
    dataset = hdf(write(tmp_path / "a.hdf", (2,) * 40), **options)
    batches(dataset, 1)
    assert not dataset.batch_cache.batches
    changed, _ = batches(dataset, 2, shuffle_batches=True)
    assert changed


def test_a_fixed_seed_keeps_a_random_order(tmp_path):
    dataset = hdf(write(tmp_path / "a.hdf", (2,) * 40), seq_ordering="random", fixed_random_seed=3)
    _, first = batches(dataset, 1)
    assert batches(dataset, 2) == (False, first)


def test_data_may_be_a_target_where_there_are_no_inputs(tmp_path):
    more = {"targets/data/data": np.arange(18.0).reshape(9, 2)}
    path = write(tmp_path / "x.hdf", (3, 2, 4), classes=5, inputs=None, **more)
    dataset = init_dataset({"class": "HDFDataset", "files": [path]}, name="toy")
    assert dataset.get_data_keys() == ["classes", "data"] and dataset.num_outputs["data"] == (2, 2)
    dataset.init_seq_order(1)
    dataset.load_seqs(0, 2)
    assert dataset.get_data(1, "data").tolist() == [[6, 7], [8, 9]]
    with_inputs = write(tmp_path / "y.hdf", (3, 2, 4), classes=5, **more)
    with pytest.raises(ConfigError, match='a target must not be called "data" where there are inputs'):
        init_dataset({"class": "HDFDataset", "files": [with_inputs]}, name="toy")
