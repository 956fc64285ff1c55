"""HDF files of other layouts, many files, many processes, recordings, tables: details and damaged files."""

import glob
import os

import h5py
import numpy as np
import pytest

from returnn_lite.datasets import BatchingOptions, Loader, init_dataset
from returnn_lite.datasets.audio.timit import PHONES_61, phone_of
from returnn_lite.datasets.combined.distribute_files import distribute, read_files, size_of_files
from returnn_lite.datasets.hdf.nextgen import aligned
from returnn_lite.errors import ConfigError
from tests.datasets.examples import FRAMES, double, examples, hdf_of, recordings, static, streams, tables, wav
from tests.datasets.hdf_files import write


def made(name, **options):
    return init_dataset({"class": name, **options}, name="toy")


def read(dataset, key="data", epoch=1):
    dataset.init_seq_order(epoch)
    found = {}
    while dataset.is_less_than_num_seqs(len(found)):
        i = len(found)
        dataset.load_seqs(i, i + 1)
        found[dataset.get_tag(i)] = dataset.get_data(i, key).tolist()
    return found


# --- HDF of other layouts ---


def test_streams_of_a_file(tmp_path):
    dataset = made("NextGenHDFDataset", **streams(tmp_path)["NextGenHDFDataset"], seq_ordering="sorted")
    assert list(read(dataset)) == ["c/1", "c/3", "c/0", "c/2"] and dataset.num_outputs["align"] == (3, 1)
    assert read(dataset, "align")["c/3"] == [1, 1, 2, 0, 2, 1] and dataset.labels["words"] == ["x", "y", "z"]
    assert aligned(np.array([[4, 0], [5, 2]])).tolist() == [5, 0, 5, 1]


def test_triplets(tmp_path):
    options = streams(tmp_path)["SiameseHDFDataset"]
    dataset = made("SiameseHDFDataset", **options)
    words = read(dataset, "words_all")
    assert all(a == b != c for a, b, c in words.values())
    assert read(dataset, "frames_1")["c/0"] == [[2, 2]] * FRAMES[2] and read(dataset, "words_all") == words
    np.savez(tmp_path / "other.npz", np.array([[0, 1.0], [1, 0]]))
    options = {**options, "class_distribution": str(tmp_path / "other.npz")}
    assert set(read(made("SiameseHDFDataset", **options))) == set(words)
    with pytest.raises(ConfigError, match='seq_label_stream: unknown stream "word"; did you mean "words"'):
        made("SiameseHDFDataset", **{**options, "seq_label_stream": "word"})
    with pytest.raises(ConfigError, match="class_distribution: .* cannot be read"):
        made("SiameseHDFDataset", **{**options, "class_distribution": str(tmp_path / "none.npz")})


def _without(name):
    def change(file):
        del file[name]

    return change


def _parser(file):
    file["streams/words"].attrs["parser"] = "x"


@pytest.mark.parametrize("change, message", [
    (_without("seq_names"), "next.hdf: seq_names: missing"),
    (_without("streams/words/feature_names"), 'must have the list "feature_names"'),
    (_without("streams/align/data"), 'must have a group "data"'),
    (_parser, 'the attribute "parser" must be one of'),
    (_without("streams/frames/data/c\\1"), 'sequence "c/1": .*has no stream "frames" of it'),
])  # fmt: skip
def test_damaged_streams(tmp_path, change, message):
    options = streams(tmp_path)["NextGenHDFDataset"]
    with h5py.File(options["files"][0], "a") as file:
        change(file)
    with pytest.raises(ConfigError, match=message):
        read(made("NextGenHDFDataset", **options))


def test_stereo(tmp_path):
    options = streams(tmp_path)["StereoHdfDataset"]
    with h5py.File(options["hdfFile"]) as file, h5py.File(tmp_path / "norm.hdf", "w") as norm:
        for group in ("inputs", "outputs"):
            file.copy(f"norm/{group}", norm)
    dataset = made("StereoHdfDataset", **options, normalizationFile=str(tmp_path / "norm.hdf"), partition_epoch=3)
    parts = [read(dataset, epoch=epoch) for epoch in (1, 2, 3)]
    assert [list(part) for part in parts] == [["seq-0"], ["seq-1"], ["seq-2", "seq-3"]]
    assert parts[1]["seq-1"] == [[0.5, 0.5]] and read(dataset, "classes")["seq-0"] == [[-0.5] * 3] * 3
    (tmp_path / "all.bundle").write_text(f"{options['hdfFile']}\n" * 2)
    assert made("StereoHdfDataset", hdfFile=str(tmp_path / "all.bundle")).get_total_num_seqs() == 8
    stacked = made("DatasetWithTimeContext", **options, tau=1)
    assert read(stacked)["seq-3"] == [[0, 0, 4, 4, 4, 4], [4, 4, 4, 4, 0, 0]] and stacked.num_inputs == 6
    for changes, message in [
        ({"hdfFile": "none.hdf"}, "no such file"),
        ({"hdfFile": "none.bundle"}, "file none.bundle does not exist"),
        ({"normalizationFile": options["hdfFile"]}, "must have the arrays mean"),
    ]:
        with pytest.raises(ConfigError, match=message):
            made("StereoHdfDataset", **{**options, **changes})


# --- many files ---


def test_files_are_dealt_out(tmp_path):
    options = streams(tmp_path)["DistributeFilesDataset"]
    dataset = made("DistributeFilesDataset", **options)
    epochs = [list(read(dataset, epoch=epoch)) for epoch in (1, 2, 3)]
    assert sorted(epochs[0] + epochs[1]) == ["0a", "0b", "1a", "1b", "2a", "2b"] and epochs[2] == epochs[0]
    shuffled = made("DistributeFilesDataset", **options, seq_ordering="random")
    assert sorted(tag for epoch in (1, 2) for tag in read(shuffled, epoch=epoch)) == sorted(epochs[0] + epochs[1])
    with pytest.raises(NotImplementedError):
        dataset.get_all_tags()
    assert distribute([1, 1, 1, 9], 2) == [[0, 1, 2], [3]] and distribute([9, 1, 1], 3) == [[0], [1], [2]]


def test_processes_share_files(tmp_path, monkeypatch):
    files = [write(tmp_path / f"{i}.hdf", (1, 2), tags=[f"{i}a", f"{i}b"]) for i in range(5)]
    options = {"files": files, "get_sub_epoch_dataset": hdf_of, "partition_epoch": 2, "seq_ordering": "random"}
    nested = {"dataset": {"class": "DistributeFilesDataset", **options, "distrib_shard_files": True}, "map_seq": double}
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        dataset = made("DistributeFilesDataset", **options, distrib_shard_files=True)
        found += [tag for epoch in (3, 4) for tag in read(dataset, epoch=epoch)]
        inner = made("PostprocessingDataset", **nested, random_seed_offset=16127 * int(rank)).inner
        assert inner.files_of(3) == dataset.files_of(3)
    assert sorted(found) == [f"{i}{x}" for i in range(5) for x in "ab"]
    with pytest.raises(ConfigError, match="partition_epoch = 3 times 2 processes, but are 5"):
        made("DistributeFilesDataset", **{**options, "partition_epoch": 3}, distrib_shard_files=True)


def test_lists_of_files(tmp_path):
    (tmp_path / "a.txt").write_text("x\ny\n")
    (tmp_path / "a.json").write_text('[["x", "y"]]')
    (tmp_path / "a.py").write_text("[{'a': 'x'}]")
    found = [read_files(str(tmp_path / f"a.{ending}"), "f") for ending in ("txt", "json", "py")]
    assert found == [["x", "y"], [["x", "y"]], [{"a": "x"}]] and read_files(lambda: ["x"], "f") == ["x"]
    assert size_of_files([{"a": str(tmp_path / "a.txt")}, [str(tmp_path / "a.txt")]], "f") == 8
    (tmp_path / "a.json").write_text("[")
    for value in ([], 3, str(tmp_path / "a.json"), str(tmp_path / "none.txt"), "files.zip"):
        with pytest.raises(ConfigError, match="f: "):
            read_files(value, "f")


@pytest.mark.parametrize("options, message", [
    ({"partition_epoch": 4}, "files: must be at least partition_epoch = 4, but are 3"),
    ({"seq_ordering": "sorted"}, 'seq_ordering: must be "default" or "random"'),
    ({"get_sub_epoch_dataset": 3}, "must be a function that returns a dataset dict"),
    ({"get_sub_epoch_dataset": lambda files: {**hdf_of(files), "partition_epoch": 2}}, "without partition_epoch"),
    ({"get_sub_epoch_dataset": lambda files: {"class": "HDFDataset", "files": files}}, "so that its order is clear"),
    ({"files": ["none.hdf", "b", "c"]}, "none.hdf: no such file"),
])  # fmt: skip
def test_what_distribution_refuses(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        read(made("DistributeFilesDataset", **{**streams(tmp_path)["DistributeFilesDataset"], **options}))


# --- many processes ---


def test_processes_give_the_same(tmp_path):
    inner = hdf_of([write(tmp_path / "x.hdf", (3, 1, 2, 5, 4))])
    base = {"num_workers": 2, "buffer_size": 1, "seq_ordering": "random"}
    inner.pop("seq_ordering")
    plain, parallel = made(**{"name": "HDFDataset", **_options(inner)}, seq_ordering="random"), None
    parallel = made("MultiProcDataset", dataset=inner, **base)
    assert read(parallel) == read(plain) and parallel.num_seqs == 5
    parallel.init_seq_order(1)
    loader = Loader(parallel, BatchingOptions(batch_size=100, max_seqs=2), keys=["data"], workers=0)
    assert [tag for batch in loader for tag in batch.tags] == list(read(plain))
    parallel.finish_epoch()
    shards = made("MultiProcDataset", dataset=inner, **base, sharding_method="dedicated")
    assert sorted(read(shards)) == sorted(read(plain)) and shards.num_seqs == 5


def _options(inner):
    return {key: value for key, value in inner.items() if key != "class"}


def test_what_cannot_be_sent_is_read_here():
    inner = {"class": "PostprocessingDataset", "dataset": static(), "map_seq": lambda tensor_dict, **_: tensor_dict}
    dataset = made("MultiProcDataset", dataset=inner, num_workers=2, buffer_size=2)
    assert list(read(dataset)) == ["seq-0", "seq-1", "seq-2", "seq-3"]


def test_errors_of_processes_arrive_with_the_tag(tmp_path):
    path = write(tmp_path / "x.hdf", (3, 1, 2))
    dataset = made("MultiProcDataset", dataset=hdf_of([path]), num_workers=1, buffer_size=1)
    dataset.init_seq_order(1)
    (tmp_path / "x.hdf").write_bytes(b"no more")
    with pytest.raises(ConfigError, match="x.hdf"):
        dataset.get_data(0, "data")
    dataset.finish_epoch()
    for options, message in [
        ({"num_workers": 0}, "num_workers: must be"),
        ({"sharding_method": "x"}, "sharding_method"),
    ]:
        with pytest.raises(ConfigError, match=message):
            made("MultiProcDataset", **{"dataset": static(), "num_workers": 1, "buffer_size": 1, **options})


# --- recordings ---


def test_raw_wav(tmp_path):
    options = recordings(tmp_path)["RawWavDataset"]
    (tmp_path / "train" / "0.wav").write_bytes(wav(np.arange(700) / 32767))
    frames = np.array(read(made("RawWavDataset", **options))["seq-0"])
    assert (
        frames.shape == (3, 300)
        and frames[1, 0] == pytest.approx(200, abs=1)
        and frames[2, -1] == pytest.approx(699, abs=1)
    )
    (tmp_path / "train" / "0.wav").write_bytes(wav(np.arange(710) / 32767))
    assert np.array(read(made("RawWavDataset", **options))["seq-0"]).shape == (4, 300)
    for content, message in (
        (b"x", 'sequence "seq-1": .*1.wav: cannot be read as WAV'),
        (wav(np.zeros((4, 2)), channels=2), "one channel"),
    ):
        (tmp_path / "train" / "1.wav").write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            read(made("RawWavDataset", **options))
    (tmp_path / "train" / "2.wav").unlink()
    with pytest.raises(ConfigError, match="file .*2.wav does not exist"):
        made("RawWavDataset", **options)


def test_timit(tmp_path):
    options = recordings(tmp_path)["TimitDataset"]
    dataset = made("TimitDataset", **options, seq_ordering="sorted")
    labels = dataset.labels["classes"]
    assert read(dataset, "classes")["1"] == [labels.index("sil"), labels.index("ah")] and list(read(dataset))[0] == "1"
    sizes = [len({phone_of(p, n) for p in PHONES_61} - {None}) for n in (61, 48, 39)]
    assert sizes == [61, 48, 39]
    (tmp_path / "train" / "1.phn").write_text("0 1 xx\n")
    with pytest.raises(ConfigError, match='sequence "1": .*line 1 must be "start end phone"'):
        read(dataset)
    for changes, message in [({"num_phones": 40}, "must be 61, 48 or 39"), ({"train": False}, "does not exist")]:
        with pytest.raises(ConfigError, match=message):
            made("TimitDataset", **{**options, **changes})


def test_bliss(tmp_path):
    options = recordings(tmp_path)["BlissDataset"]
    dataset = made("BlissDataset", **options)
    assert read(dataset, "raw")["c/r0/0"] == "a b" and read(dataset, "classes")["c/r0/0"] == [0, 1]
    assert len(read(dataset)["c/r0/0"]) == 6  # 50 ms
    (tmp_path / "bliss.xml").write_text("<corpus></corpus>")
    with pytest.raises(ConfigError, match="no segments"):
        made("BlissDataset", **options)


# --- tables ---


def test_tables(tmp_path, monkeypatch, capfd):
    datasets = pytest.importorskip("datasets")
    options = tables()["HuggingFaceDataset"]
    dataset = made("HuggingFaceDataset", **options, sorting_seq_len_column_data="data", seq_ordering="sorted")
    assert read(dataset) == {"y": [1], "x": [1, 2, 0]} and read(dataset, "text") == {"y": [1], "x": [0, 1]}
    table = options["dataset_opts"]
    table.save_to_disk(tmp_path / "saved")
    table.to_parquet(tmp_path / "x.parquet")
    parquet = {
        "path": "parquet",
        "data_files": str(tmp_path / "x.parquet"),
        "split": "train",
        "cache_dir": str(tmp_path),
    }
    loose = {kind: str(tmp_path / f"loose_{kind}") for kind in ("arrow", "parquet")}
    for kind, folder in loose.items():
        os.mkdir(folder)
        for i, row in enumerate(({"id": "x", "data": [1, 2, 0]}, {"id": "y", "data": [1]})):
            part = datasets.Dataset.from_list([{**row, "text": "b"}])
            if kind == "parquet":
                part.to_parquet(f"{folder}/{i}.parquet")
            else:
                part.save_to_disk(f"{tmp_path}/{i}")
                os.rename(glob.glob(f"{tmp_path}/{i}/*.arrow")[0], f"{folder}/{i}.arrow")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    files = sorted(glob.glob(f"{loose['parquet']}/*"))
    capfd.readouterr()
    for form in (str(tmp_path / "saved"), parquet, lambda: table, *loose.values(), files):
        assert list(read(made("HuggingFaceDataset", **{**options, "dataset_opts": form}))) == ["x", "y"]
    assert capfd.readouterr().err == ""  # no progress bars in log files
    bad = datasets.Dataset.from_dict({"id": ["x"], "data": ["text"], "text": [3]})
    for changes, message in [
        ({"data_format": {"dat": {"dim": 3}}}, 'unknown column "dat"; did you mean "data"'),
        ({"dataset_opts": str(tmp_path / "none")}, "dataset_opts: cannot be read"),
        ({"dataset_opts": 3}, "must return a datasets.Dataset"),
        ({"dataset_opts": {**parquet, "split": None}}, 'must name one split, such as split="train"'),
        ({"dataset_opts": bad}, 'sequence "x": data: must be numbers'),
        ({"dataset_opts": bad, "data_format": {"text": {"vocab": {"labels": ["UNK"]}}}}, "must be a text"),
    ]:
        with pytest.raises(ConfigError, match=message):
            read(
                made("HuggingFaceDataset", **{**options, **changes}), "data" if "data_format" not in changes else "text"
            )


def test_refused_names_say_what_to_use():
    for name in ("ExternSprintDataset", "SprintCacheDataset", "NltkTimitDataset"):
        with pytest.raises(ConfigError, match="use (HDF|Timit)Dataset"):
            made(name)


def test_examples_are_complete(tmp_path):
    assert all(isinstance(options, dict) for options in examples(tmp_path).values())
