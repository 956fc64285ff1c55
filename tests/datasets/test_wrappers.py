"""Datasets made of others: orders, mixtures, and what they refuse."""

import json
import pickle

import numpy as np
import pytest

from returnn_lite import frontend as rf
from returnn_lite.datasets import BatchingOptions, Loader, init_dataset
from returnn_lite.datasets.combined.epoch_filter import EpochFilter
from returnn_lite.datasets.combined.joined import interleaved, within_each
from returnn_lite.datasets.combined.map_wrapper import MapDatasetBase
from returnn_lite.datasets.combined.postprocessing import LaplaceOrdering, Sequential
from returnn_lite.datasets.order.tags import NumberedTags, TagTable, TagView
from returnn_lite.errors import ConfigError
from returnn_lite.frontend import Dim, Tensor, TensorDict
from returnn_lite.log import Log
from tests.datasets.examples import FRAMES, double, of_epoch, static, wrappers
from tests.datasets.hdf_files import write


def made(name, **options):
    return init_dataset({"class": name, **options}, name="toy")


def tags(dataset, epoch=1, **given):
    dataset.init_seq_order(epoch, **given)
    found = []
    while dataset.is_less_than_num_seqs(len(found)):
        dataset.load_seqs(len(found), len(found) + 1)
        found.append(dataset.get_tag(len(found)))
    return found


# --- tables of tags ---


def test_tag_tables():
    table = TagTable.of(["b", "ä", "", "b"])
    assert list(table) == ["b", "ä", "", "b"] == table and table[-1] == "b" and table[1:3] == ["ä", ""]
    assert table.find("b") == 3 and table.find("ä") == 1 and table.find("x") == -1 and "" in table and 3 not in table
    assert table.find_all(["ä", "x", "b"]).tolist() == [1, -1, 3] and TagTable(()).find_all(["x"]).tolist() == [-1]
    assert table.take(np.array([1, 0])) == ["ä", "b"] == TagView(table, np.array([1, 0]))
    assert pickle.loads(pickle.dumps(table)) == table != TagTable.of(["b", "ä", "", "c"])
    assert TagTable.of_lines(b"a\r\n\nb") == ["a", "", "b"] and TagTable.of_lines(b"") == []
    numbers = NumberedTags(3)
    assert numbers == ["seq-0", "seq-1", "seq-2"] and [numbers.find(t) for t in ("seq-2", "seq-3", "seq-02", "x")] == [
        2, -1, -1, -1,
    ]  # fmt: skip


def test_a_hash_that_two_tags_share(monkeypatch):
    monkeypatch.setattr("returnn_lite.datasets.order.tags._hashes", lambda texts: np.array([7 for _ in texts]))
    monkeypatch.setattr("returnn_lite.datasets.order.tags.hash", lambda text: 7, raising=False)
    assert TagTable.of(["a", "b", "c"]).find_all(["b", "a", "x"]).tolist() == [1, 0, -1]


# --- MetaDataset ---

MAPS = {"data": ("a", "data"), "classes": ("b", "classes")}


def meta(tmp_path, **options):
    files = {name: tmp_path / f"{name}.hdf" for name in "ab"}
    if not files["a"].exists():
        write(files["a"], FRAMES, tags=list("0123"))
        write(files["b"], FRAMES[::-1], classes=5, tags=list("3210"))
    datasets = {name: {"class": "HDFDataset", "files": [str(file)]} for name, file in files.items()}
    return made("MetaDataset", **{"datasets": datasets, "data_map": MAPS, **options})


def test_meta_goes_by_tags(tmp_path):
    dataset = meta(tmp_path, seq_ordering="sorted_reverse")
    assert tags(dataset) == ["2", "0", "3", "1"] and not dataset.have_corpus_seq_idx
    dataset.init_seq_order(1)
    assert [dataset.get_seq_length(i) for i in range(2)] == [{"data": 4, "classes": 4}, {"data": 3, "classes": 3}]
    assert dataset.epoch_lengths(0, 9).tolist() == [[4, 4], [3, 3], [2, 2], [1, 1]]
    assert dataset.num_outputs == {"data": (2, 2), "classes": (5, 1)} and len(dataset.labels["classes"]) == 5
    assert tags(dataset, seq_list=["1", "1", "2"]) == ["1", "1", "2"]


def test_meta_sorts_by_frames_whatever_its_dataset_sorts_by(tmp_path):
    (tmp_path / "text").write_text("aaaaaa\na a a\na a\n")  # 6, 5, 3 bytes, but 1, 3, 2 words
    lm = {"class": "LmDataset", "corpus_file": str(tmp_path / "text"),
          "orth_vocab": {"labels": ["a", "UNK"], "unknown_label": "UNK"}}  # fmt: skip
    options = {"datasets": {"a": lm}, "data_map": {"data": ("a", "data")}}
    assert tags(made("LmDataset", **{**lm, "seq_ordering": "sorted"})) == ["line-2", "line-1", "line-0"]
    dataset = made("MetaDataset", **options, seq_ordering="sorted")
    assert [tags(dataset, epoch) for epoch in (1, 2)] == [["line-0", "line-2", "line-1"]] * 2
    dataset = made("MetaDataset", **options)
    dataset.sort_longest_first()  # for speed: nothing is read for it
    assert tags(dataset) == ["line-0", "line-1", "line-2"]
    (tmp_path / "lens").write_text(repr({"line-0": 2, "line-1": 1, "line-2": 3}))
    dataset = made("MetaDataset", **options, seq_ordering="sorted", seq_order_seq_lens_file=str(tmp_path / "lens"))
    assert tags(dataset) == ["line-1", "line-0", "line-2"]


def test_meta_of_a_controlling_dataset(tmp_path):
    datasets = {
        "a": {
            "class": "HDFDataset",
            "files": [str(tmp_path / "a.hdf")],
            "seq_ordering": "reverse",
            "partition_epoch": 2,
        },
        "b": {"class": "HDFDataset", "files": [str(tmp_path / "b.hdf")]},
    }
    meta(tmp_path)
    dataset = meta(tmp_path, datasets=datasets, seq_order_control_dataset="a", seq_ordering="random")
    assert [tags(dataset, epoch) for epoch in (1, 2)] == [["3", "2"], ["1", "0"]]
    assert dataset.init_seq_order(3) and not dataset.init_seq_order(3)  # nothing was read in between
    dataset.load_seqs(0, 1)
    assert dataset.init_seq_order(3) in (True, False) and dataset.num_seqs == 2


def test_meta_with_lists_and_lengths_from_files(tmp_path):
    (tmp_path / "tags.txt").write_text("2\n0\n")
    (tmp_path / "other.txt").write_text("1\n3\n")
    (tmp_path / "lens.json").write_text(json.dumps({"2": {"data": 1, "classes": 1}, "0": {"data": 9, "classes": 9}}))
    dataset = meta(tmp_path, seq_list_file=str(tmp_path / "tags.txt"), seq_ordering="sorted",
                   seq_lens_file=str(tmp_path / "lens.json"))  # fmt: skip
    assert tags(dataset) == ["2", "0"] and dataset.get_seq_length(1) == {"data": 9, "classes": 9}
    both = {"a": str(tmp_path / "tags.txt"), "b": str(tmp_path / "other.txt")}
    dataset = meta(tmp_path, seq_list_file=both)
    assert (
        tags(dataset) == ["2", "0"]
        and len(dataset.get_data(0, "data")) == 4
        and len(dataset.get_data(0, "classes")) == 1
    )


@pytest.mark.parametrize("options, message", [
    ({"data_map": {"x": ("a", "data")}}, 'toy: data_map: must have the key "data"'),
    ({"data_map": {"data": ("aa", "data")}}, 'data_map."data".: unknown dataset "aa"; did you mean "a"'),
    ({"data_map": {"data": ("a", "dat")}}, 'toy_a has no key "dat"; did you mean "data"'),
    ({"data_map": {"data": "a"}}, "must be .dataset, its key., but is 'a'"),
    ({"data_map": {}}, "data_map: must be a dict from key"),
    ({"datasets": []}, "toy: datasets: must be a dict from name to dataset"),
    ({"seq_order_control_dataset": "c"}, '"c" is not a dataset of data_map'),
    ({"window": 3}, "toy: window: must be 1"),
    ({"seq_list_file": {"a": "x"}}, "has no list for b|file x does not exist"),
    ({"datasets": {"a": static(), "b": static((1,))}}, 'dataset "b" is missing seqs: it has 1, "a" has 4; missing are'),
])  # fmt: skip
def test_what_meta_refuses(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        tags(meta(tmp_path, **options))


def test_meta_notices_a_missing_sequence(tmp_path):
    (tmp_path / "tags.txt").write_text("2\n9\n")
    with pytest.raises(ConfigError, match='dataset "a" is missing seqs: it has no sequence with tag "9"'):
        tags(meta(tmp_path, seq_list_file=str(tmp_path / "tags.txt")))


# --- joined ---

MIXED = {("a", "data"): "data", ("a", "classes"): "classes", ("b", "data"): "data", ("b", "classes"): "other"}


def combined(**options):
    return made("CombinedDataset", datasets={"a": static(), "b": static((2, 5))}, data_map=MIXED, **options)


def test_combined_orders():
    assert sorted(tags(combined(seq_ordering="random"))) == sorted(tags(combined()))
    dataset = combined(seq_ordering="sorted", partition_epoch=2)
    frames = []
    for epoch in (1, 2):
        tags(dataset, epoch)
        frames += [len(dataset.get_data(i, "data")) for i in range(dataset.num_seqs)]
    assert frames == sorted((*FRAMES, 2, 5))
    assert dataset.get_data(2, "classes").shape == (0,) and len(dataset.get_data(2, "other")) == 5
    assert tags(combined(seq_ordering="interleave")) == ["seq-0", "seq-1", "seq-0", "seq-2", "seq-3", "seq-1"]
    counts = np.bincount(list(interleaved([50, 50], 1, "remaining"))[:50])
    assert counts.min() > 10 and within_each(np.array([1, 0, 1])).tolist() == [0, 0, 1]


def test_samples_go_round():
    dataset = combined(sampling_sizes={"a": 3, "b": 1})
    assert tags(dataset, 1) == ["seq-0", "seq-1", "seq-2", "seq-0"]
    assert tags(dataset, 2) == ["seq-3", "seq-0", "seq-1", "seq-1"]


@pytest.mark.parametrize("options, message", [
    ({"data_map": {("c", "data"): "data"}}, 'unknown dataset "c"'),
    ({"data_map": {("a", "x"): "data"}}, 'toy_a has no key "x"'),
    ({"data_map": {"a": "data"}}, "must have entries"),
    ({"data_map": {("a", "data"): "data", ("b", "classes"): "data"}}, '"data" has the dims'),
    ({"data_map": None}, "must be a dict"),
    ({"sampling_sizes": {"a": 3}}, "sampling_sizes: must have the datasets"),
    ({"seq_ordering": "interleave", "partition_epoch": 2}, '"interleave" is not possible with partitions'),
    ({"datasets": {"a": {"class": "AnythingDataset", "data_keys": {"data": {"dim": 1}}}},
      "data_map": {("a", "data"): "data"}}, "toy_a is endless"),
])  # fmt: skip
def test_what_combined_refuses(options, message):
    base = {"datasets": {"a": static(), "b": static((2, 5))}, "data_map": MIXED}
    with pytest.raises(ConfigError, match=message):
        tags(made("CombinedDataset", **{**base, **options}))


def test_concat():
    dataset = made("ConcatDataset", datasets=[static(seq_ordering="reverse"), static((2, 5))])
    assert tags(dataset) == ["seq-3", "seq-2", "seq-1", "seq-0", "seq-0", "seq-1"]
    assert tags(dataset, seq_list=["seq-2"]) == ["seq-2"] and dataset.get_total_num_seqs() == 6
    for options, message in [
        ({"datasets": [static(), static(), {**static(), "output_dim": {"classes": 9}}]}, "must have the same dims"),
        ({"datasets": [static()], "seq_ordering": "random"}, "must be set in the inner dataset"),
        ({"datasets": []}, "must be a list of datasets"),
    ]:
        with pytest.raises(ConfigError, match=message):
            made("ConcatDataset", **options)
    with pytest.raises(ConfigError, match="seq_list and seq_order are not supported"):
        dataset.init_seq_order(1, seq_order=[1])


def test_concatenated_seqs(tmp_path):
    options = wrappers(tmp_path)["ConcatSeqsDataset"]
    repeat = {"repeat_in_between_last_frame_up_to_multiple_of": {"data": 2}}
    dataset = made("ConcatSeqsDataset", **options, **repeat, remove_in_between_postfix={"classes": 2})
    with pytest.raises(ConfigError, match='"seq-3;seq-3": the last "classes" of each part but the last must be 2'):
        tags(dataset)
    dataset = made("ConcatSeqsDataset", **options, seq_ordering="sorted_reverse",
                   repeat_in_between_last_frame_up_to_multiple_of={"data": 2})  # fmt: skip
    assert tags(dataset) == ["seq-0;seq-1", "seq-2", "seq-3;seq-3"]
    assert dataset.get_seq_length(0) == {"data": 5, "classes": 4}
    dataset = made("ConcatSeqsDataset", **options, epoch_wise_filter={(1, 1): {"max_mean_len": 3.9}})
    assert (len(tags(dataset, 1)), len(tags(dataset, 2))) == (1, 3)
    (tmp_path / "list.txt").write_text("seq-0;seq-9\n")
    with pytest.raises(ConfigError, match='toy_inner has no sequence with tag "seq-9"'):
        made("ConcatSeqsDataset", **options)
    (tmp_path / "list.txt").write_text("seq-0\n")
    (tmp_path / "lens.txt").write_text("{}")
    with pytest.raises(ConfigError, match="has no length of sequence 'seq-0'"):
        made("ConcatSeqsDataset", **options)
    with pytest.raises(ConfigError, match='has no key "dat"; did you mean "data"'):
        made("ConcatSeqsDataset", **options, remove_in_between_postfix={"dat": 1})


def test_epoch_filters():
    lengths = np.array([5, 1, 4, 2, 3])
    filters = EpochFilter.parse({(1, 2): {"max_mean_len": 2}, (3, None): {}}, "x")
    assert filters.apply(np.arange(5), lengths, 1, Log.silent()).tolist() == [1, 3, 4]
    assert len(filters.apply(np.arange(5), lengths, 3, Log.silent())) == 5
    for value in ([], {1: {}}, {(1, 2): {"max_meen_len": 2}}):
        with pytest.raises(ConfigError, match="x"):
            EpochFilter.parse(value, "x")


# --- epochs ---


def test_multi_epoch():
    dataset = made("MultiEpochDataset", dataset=static(partition_epoch=2, seq_ordering="random"), multi_epoch=2)
    assert sorted(tags(dataset)) == ["seq-0", "seq-1", "seq-2", "seq-3"] and dataset.num_seqs == 4
    dataset.init_seq_order(1)
    with pytest.raises(NotImplementedError):
        dataset.num_seqs  # noqa: B018 - the access is what fails
    loader = Loader(dataset, BatchingOptions(batch_size=1000), keys=["data"])
    assert [len(batch.tags) for batch in loader] == [4]
    with pytest.raises(ConfigError, match="multi_epoch: must be a whole number"):
        made("MultiEpochDataset", dataset=static(), multi_epoch=0)


@pytest.mark.parametrize("options", [
    {"class": "MultiEpochDataset", "dataset": static(), "multi_epoch": 1},
    {"class": "VariableDataset", "get_dataset": of_epoch},
])  # fmt: skip
def test_the_order_of_the_inner_dataset_counts(options):
    roles = {"defaults": {"seq_ordering": "sorted"}}  # of `dev`
    assert tags(init_dataset(dict(options), name="dev", **roles)) == tags(init_dataset(dict(options), name="dev"))
    with pytest.raises(ConfigError, match="seq_ordering: must be set in the inner dataset of"):
        init_dataset({**options, "seq_ordering": "sorted"}, name="dev")


def test_variable():
    dataset = made("VariableDataset", get_dataset=of_epoch)
    lengths = []
    for epoch in (1, 2):
        tags(dataset, epoch)
        lengths.append(len(dataset.get_data(0, "data")))
    assert lengths == [FRAMES[0], FRAMES[-1]]
    with pytest.raises(NotImplementedError):
        dataset.get_all_tags()
    with pytest.raises(ConfigError, match="must be a function that returns a dataset dict"):
        made("VariableDataset", get_dataset=static())
    with pytest.raises(ConfigError, match="must return datasets with the same keys and dims"):
        made(
            "VariableDataset", get_dataset=lambda epoch, **_: static(output_dim={"classes": 4 + epoch})
        ).init_seq_order(2)


# --- functions of the config ---


def test_map_seq():
    dataset = made("PostprocessingDataset", dataset=static(), map_seq=double)
    dataset.init_seq_order(1)
    dataset.load_seqs(0, 2)
    assert dataset.get_data(0, "data").tolist() == [[6, 6]] * 3 and dataset.get_corpus_seq_idx(1) == 1
    dataset.load_seqs(2, 3)
    with pytest.raises(ConfigError, match="sequence 0 is no longer available: sequences can only be read in order"):
        dataset.get_data(0, "data")


def _arithmetic(tensor_dict, **_):
    data, classes = tensor_dict["data"], tensor_dict["classes"]
    assert data.dims[0].is_dynamic() and data.feature_dim.dimension == 2 and classes.sparse_dim.dimension == 5
    assert tensor_dict["seq_idx"].dims == () and tensor_dict["complete_frac"].dtype == "float32"
    data = -(2.0 - data) + rf.abs(data) * (data > 0) / 4 + abs(data) + rf.cast(~(data == data), "float32")
    return TensorDict({**tensor_dict.data, "data": data, "classes": classes})


def test_arithmetic_in_map_seq():
    dataset = made("PostprocessingDataset", dataset=static(), map_seq=_arithmetic)
    dataset.init_seq_order(1)
    dataset.load_seqs(0, 1)
    given = static()["data"][0]["data"]
    expected = -(2 - given) + np.abs(given) * (given > 0) / 4 + np.abs(given)
    np.testing.assert_allclose(dataset.get_data(0, "data"), expected, rtol=1e-6)
    assert isinstance(dataset.get_data(0, "data"), np.ndarray) and dataset.get_data(0, "data").dtype == "float32"


def _wrong_shape(tensor_dict, **_):
    tensor_dict["data"].raw_tensor = np.zeros((2, 3), "float32")


def test_what_does_not_fit_the_axes_is_told_with_the_sequence():
    dataset = made("PostprocessingDataset", dataset=static(), map_seq=_wrong_shape)
    with pytest.raises(ConfigError, match='sequence "seq-0": .* cannot have the size 3 in data of shape'):
        tags(dataset)


def _twice(tensors, **_):
    for one in tensors:
        yield one
        yield {"data": np.zeros((1, 2)), "classes": np.zeros(1), "seq_tag": "more"}


def _random(tensor_dict, rng, **_):
    x = Tensor("x", [Dim(2, name="time"), Dim(3, name="feature")], "float64", raw_tensor=rng.rand(2, 3))
    return TensorDict({**tensor_dict.data, "x": x})


def test_map_seq_stream_and_outputs():
    dataset = made("PostprocessingDataset", dataset=static(), map_seq_stream=_twice)
    assert tags(dataset) == ["seq-0", "more", "seq-1", "more", "seq-2", "more", "seq-3", "more"]
    dataset.init_seq_order(1)
    with pytest.raises(NotImplementedError):
        dataset.num_seqs  # noqa: B018
    outputs = {"x": {"shape": (None, 3), "dtype": "float64"}}
    draws = []
    for workers in (0, 2):
        dataset = made(
            "PostprocessingDataset", dataset=static(), map_seq=_random, map_outputs=outputs, num_workers=workers
        )
        assert dataset.num_outputs == {"x": (3, 2)} and dataset.get_data_dtype("x") == "float64"
        assert tags(dataset) == [f"seq-{i}" for i in range(4)]
        draws.append(dataset.get_data(3, "x"))
    assert not np.array_equal(*draws)


def test_orders_for_streams():
    def stream():
        for i, n in enumerate((3, 1, 2, 5, 4)):
            yield {"data": Tensor("data", [Dim(n)], "float64", raw_tensor=np.zeros(n)), "complete_frac": i}

    ordered = list(Sequential(LaplaceOrdering(3), lambda tensors, **_: tensors)(stream(), epoch=1))
    assert [len(one["data"].raw_tensor) for one in ordered] == [1, 2, 3, 5, 4]
    assert [one["complete_frac"] for one in ordered] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("options, message", [
    ({}, "needs exactly one of map_seq and map_seq_stream"),
    ({"map_seq": double, "seq_ordering": "random"}, "must be set in the inner dataset"),
    ({"map_seq": lambda tensor_dict, **_: {"data": tensor_dict["data"]}}, "must return .'classes'."),
    ({"map_seq": double, "map_outputs": {"data": {"shape": (None, 2, 2)}}}, '"data" must have 3 axes'),
])  # fmt: skip
def test_what_postprocessing_refuses(options, message):
    with pytest.raises(ConfigError, match=message):
        tags(made("PostprocessingDataset", dataset=static(), **options))


class OwnBase(MapDatasetBase):
    """Derived from the base class."""

    def __init__(self):
        super().__init__(data_types={"data": {"dim": 2, "shape": (None, 2)}})

    def __len__(self):
        return 3

    def __getitem__(self, seq_idx):
        return {"data": np.full((3 - seq_idx, 2), seq_idx, "float32")}


class OwnSorted(OwnBase):
    """Knows lengths."""

    def get_seq_len(self, seq_idx):
        return 3 - seq_idx


class OwnOrder(OwnBase):
    """Knows tags and the order."""

    def get_seq_tag(self, seq_idx):
        return f"own-{seq_idx}"

    def get_seq_order(self, epoch=None):
        return [epoch, 0]


@pytest.mark.parametrize("make", [lambda cls: cls(), lambda cls: cls, lambda cls: lambda: cls()])
def test_map_wrapper_takes_objects_classes_and_functions(make):
    assert tags(made("MapDatasetWrapper", map_dataset=make(OwnBase))) == ["seq-0", "seq-1", "seq-2"]
    by_length = made("MapDatasetWrapper", map_dataset=make(OwnSorted), seq_ordering="sorted")
    assert tags(by_length) == ["seq-2", "seq-1", "seq-0"]
    assert tags(made("MapDatasetWrapper", map_dataset=make(OwnOrder), partition_epoch=2)) == ["own-1", "own-0"]
    with pytest.raises(ConfigError, match="sorted"):
        tags(made("MapDatasetWrapper", map_dataset=make(OwnBase), seq_ordering="sorted"))


def test_map_wrapper_refuses():
    for value, message in [
        ("text", "must have `__len__` and `__getitem__`"),
        ([1, 2], "must be a dict from key to the options of a tensor"),
    ]:
        with pytest.raises(ConfigError, match=message):
            made("MapDatasetWrapper", map_dataset=value)
    dataset = made("FromListDataset", data_list=[{"x": [1]}, {"y": 2}], data_types={"x": {"dim": 2, "sparse": True}})
    with pytest.raises(ConfigError, match='sequence "seq-1": has no .*x'):
        tags(dataset)


def test_numpy_dumps_refuse_bad_files(tmp_path):
    options = {"prefix": str(tmp_path / "np."), "postfix": ".txt", "num_inputs": 2, "num_outputs": 3}
    with pytest.raises(ConfigError, match="file .*np.0.data.txt does not exist"):
        made("NumpyDumpDataset", **options)
    for text, message in (
        ("1 2 3\n", "must have 2 numbers a line"),
        ("a b\n", "np.0.data.txt"),
        ("", "must have 2 num"),
    ):
        (tmp_path / "np.0.data.txt").write_text(text)
        (tmp_path / "np.0.targets.txt").write_text("1\n")
        with pytest.raises(ConfigError, match=f'sequence "seq-0": .*{message}'):
            tags(made("NumpyDumpDataset", **options))
