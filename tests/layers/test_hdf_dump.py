"""`hdf_dump`: what a network computes as an HDF file."""

import h5py
import numpy as np
import pytest

from returnn_lite.config import Config
from returnn_lite.datasets import init_dataset
from returnn_lite.engine.interrupt import StopRequest
from returnn_lite.engine.train import open_trainer
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from tests.datasets.hdf_files import write
from tests.nets import batch, network, randomised

LENGTHS = {"data": [13, 9, 4], "classes": [13, 9, 4]}
FRAMES = {"data": {"dim": 4}, "classes": {"dim": 4, "sparse": True}}


def run(layers, extern, lengths=LENGTHS, tags=("a", "b", "c"), **how):
    net = randomised(network(layers, extern)).train(False)
    data, sizes = batch(extern, lengths, **how)
    return net, data, net(data, sizes, list(tags))


def content(path):
    """{name: array} of a file, and the sizes of its targets."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
        sizes = {key: tuple(value) for key, value in file["targets/size"].attrs.items()}
    return found, sizes


def test_a_dump_is_a_dataset(tmp_path):
    options = {"filename": str(tmp_path / "dump.hdf"), "extra": {"labels": "data:classes"}}
    layers = {"output": {"class": "hdf_dump", "from": "data", **options}}
    net, data, _ = run(layers, FRAMES, padding="garbage")
    net.layers["output"].close()
    dataset = init_dataset({"class": "HDFDataset", "files": [str(tmp_path / "dump.hdf")]}, name="dump")
    dataset.init_seq_order(epoch=1)
    dataset.load_seqs(0, 3)
    for i, n in enumerate(LENGTHS["data"]):
        assert dataset.get_tag(i) == "abc"[i]
        np.testing.assert_array_equal(dataset.get_data(i, "data"), data["data"][i, :n].numpy())
        np.testing.assert_array_equal(dataset.get_data(i, "labels"), data["classes"][i, :n].numpy())


def test_a_dump_is_extended(tmp_path):
    options = {"filename": str(tmp_path / "dump.hdf"), "extend_existing_file": True}
    for _ in range(2):
        net, _, _ = run({"output": {"class": "hdf_dump", "from": "data:classes", **options}}, FRAMES)
        net.layers["output"].close()
    dataset = init_dataset({"class": "HDFDataset", "files": [str(tmp_path / "dump.hdf")]}, name="dump")
    assert list(dataset.get_all_tags()) == list("abcabc")


def test_a_dump_per_epoch(tmp_path):
    layers = {
        "output": {
            "class": "hdf_dump",
            "filename": f"{tmp_path}/dump.{{epoch}}.hdf",
            "dump_per_run": True,
            "from": "data:classes",
        }
    }
    net, _, _ = run(layers, FRAMES)
    net.context.epoch = 2
    net(*batch(FRAMES, LENGTHS))
    net.layers["output"].close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dump.1.hdf", "dump.2.hdf"]


def dumped(path, layers, extern=FRAMES, **how):
    """The content of what the layer "output" wrote."""
    net, data, out = run(
        {**layers, "output": {"class": "hdf_dump", "filename": str(path), **layers["output"]}}, extern, **how
    )
    net.close()
    return data, out, *content(path)


def test_lengths_of_all_axes(tmp_path):
    extra = {"cls": "data:classes", "prob": "p", "mean": "m", "number": "n"}
    layers = {
        "p": {"class": "softmax", "n_out": 5, "from": "data"},
        "m": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
        "n": {"class": "reduce", "mode": "mean", "axis": "F", "from": "m"},
        "output": {"from": "data", "extra": extra},
    }
    _, out, found, sizes = dumped(tmp_path / "x.hdf", layers)
    keys = [
        "cls",
        "cls_seq_lens",
        "mean",
        "mean_seq_lens",
        "number",
        "number_seq_lens",
        "prob",
        "prob_seq_lens",
        "seq_sizes",
    ]
    assert sorted(name.removeprefix("targets/data/") for name in found if "targets/data" in name) == keys
    assert found["seqLengths"].tolist() == [[n, n, 1, 1, 1, 1, 1, n, 2, 1] for n in (13, 9, 4)]
    assert found["targets/data/seq_sizes"].tolist() == [13, 9, 4] == found["targets/data/cls_seq_lens"].tolist()
    assert found["targets/data/prob_seq_lens"].tolist() == [13, 5, 9, 5, 4, 5]
    assert found["targets/data/seq_sizes"].dtype == np.int32 == found["targets/data/prob_seq_lens"].dtype
    assert (sizes["cls"], sizes["prob"], sizes["seq_sizes"], sizes["number"]) == ((4, 1), (5, 2), (1, 1), (1, 1))
    np.testing.assert_array_equal(found["targets/data/prob"][13:22], out["p"].data[1, :9].detach().numpy())


def test_several_axes_are_flattened(tmp_path):
    layers = {
        "split": {"class": "split_dims", "axis": "F", "dims": (2, 2), "from": "data"},
        "output": {"from": "split", "extra": {"again": "split"}},
    }
    _, out, found, _ = dumped(tmp_path / "x.hdf", layers)
    assert found["inputs"].shape == (52, 2) and found["seqLengths"][:, 0].tolist() == [26, 18, 8]
    for key in ("seq_sizes", "sizes"):
        assert found[f"targets/data/{key}"].tolist() == [13, 2, 9, 2, 4, 2]
    assert found["targets/data/again_seq_lens"].tolist() == [13, 2, 2, 9, 2, 2, 4, 2, 2]
    np.testing.assert_array_equal(found["targets/data/again"], found["inputs"])


def test_streams_without_batch_axis(tmp_path):
    layers = {
        "version": {"class": "constant", "value": 7, "dtype": "int32"},
        "position": {"class": "range_in_axis", "axis": "T", "from": "data"},
        "output": {"from": "data", "extra": {"version": "version", "position": "position"}},
    }
    _, _, found, _ = dumped(tmp_path / "x.hdf", layers)
    assert found["targets/data/version"].tolist() == [7, 7, 7]
    assert found["targets/data/position"].tolist() == [*range(13), *range(9), *range(4)]


def test_labels_are_those_of_the_vocabulary(tmp_path):
    extern = {
        "data": {"dim": 4},
        "classes": {
            "dim": 4,
            "sparse": True,
            "vocab": {"class": "Vocabulary", "labels": list("wxyz"), "unknown_label": None},
        },
    }
    _, _, found, _ = dumped(tmp_path / "x.hdf", {"output": {"from": "data:classes"}}, extern)
    assert found["labels"].tolist() == [b"w", b"x", b"y", b"z"] and found["inputs"].ndim == 1
    own = {"output": {"from": "data:classes", "labels": list("abcd")}}
    assert dumped(tmp_path / "y.hdf", own, extern)[2]["labels"].tolist() == [b"a", b"b", b"c", b"d"]


def test_whole_batches(tmp_path):
    layers = {"output": {"from": "data", "dump_whole_batches": True, "extra": {"cls": "data:classes"}}}
    data, _, found, _ = dumped(tmp_path / "x.hdf", layers)
    np.testing.assert_array_equal(found["inputs"], data["data"].reshape(-1, 4).numpy())
    assert found["seqTags"].tolist() == [b"a<->b<->c"] and found["seqLengths"][0, 0] == 39
    assert found["targets/data/seq_tags"].tolist() == [b"a", b"b", b"c"]
    assert found["targets/data/seq_sizes"].tolist() == found["targets/data/sizes"].tolist() == [3, 13]
    assert found["targets/data/cls_seq_lens"].tolist() == [3, 13]


def unit(source, **options):
    return {
        "class": "rec", "from": "data", "unit": {
            "s": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 3, "from": ["data:source", "prev:o"]},
            "d": {"class": "hdf_dump", "from": "s", "is_output_layer": True, **options},
            "o": {"class": "linear", "n_out": 2, "activation": "tanh", "from": source},
            "output": {"class": "copy", "from": ["o", "s"]},
        },
    }  # fmt: skip


@pytest.mark.parametrize("source", ["s", "d"])  # "d": another layer of the unit reads what is written
@pytest.mark.parametrize("output_layer", [True, False])
def test_in_a_unit(tmp_path, source, output_layer):
    if source == "s" and not output_layer:
        return
    options = {"filename": str(tmp_path / "x.hdf"), "is_output_layer": output_layer}
    net, _, out = run({"output": unit(source, **options)}, FRAMES)
    net.close()
    found, _ = content(tmp_path / "x.hdf")
    assert found["seqLengths"][:, 0].tolist() == [13, 9, 4] and found["seqTags"].tolist() == [b"a", b"b", b"c"]
    steps = out["output"].batch_major().data[..., 2:].detach().numpy()
    np.testing.assert_allclose(found["inputs"], np.concatenate([steps[i, :n] for i, n in enumerate((13, 9, 4))]))


@pytest.mark.parametrize("options, message", [
    ({"filename": "{tmp}/{dataset}.hdf", "dump_per_run": True}, "`filename` may hold {dataset_name}, {epoch}"),
    ({"filename": lambda epoch, dataset_name: None, "dump_per_run": True}, "must return a text, but returned None"),
    ({"filename": lambda: "x"}, "must be a text, but is a function; that is for `dump_per_run`"),
    ({"filename": "{tmp}/none/x.hdf"}, "the directory .* does not exist"),
])  # fmt: skip
def test_what_is_refused(tmp_path, options, message):
    name = options["filename"]
    options = {**options, "filename": name.replace("{tmp}", str(tmp_path)) if isinstance(name, str) else name}
    with pytest.raises(ConfigError, match=message):
        run({"output": {"class": "hdf_dump", "from": "data", **options}}, FRAMES)


# --- over epochs ---


def training(tmp_path, dump, **options):
    """A training on 3 sequences with a dev set of 2, over two epochs."""
    files = {
        name: write(tmp_path / f"{name}.hdf", lens, classes=3, tags=[f"{name}{i}" for i in range(len(lens))])
        for name, lens in (("train", (3, 2, 4)), ("dev", (2, 5)))
    }
    layers = {
        "h": {"class": "rec", "unit": "nativelstm2", "n_out": 4, "from": "data"},
        "output": {"class": "softmax", "from": "h", "loss": "ce"},
        "h2": {"class": "linear", "n_out": 2, "from": "h"},
        "dump": {"class": "hdf_dump", "from": "output", "is_output_layer": True, **dump},
    }
    config = {name: {"class": "HDFDataset", "files": [path]} for name, path in files.items()}
    config |= {"extern_data": {"data": {"dim": 2}, "classes": {"dim": 3, "sparse": True}}, "network": layers}
    return Config({**config, "num_epochs": 2, "batch_size": 100, "max_seqs": 2, "device": "cpu", **options})


@pytest.mark.parametrize("form", ["text", "function", "named"])
def test_a_file_for_each_pass_over_a_dataset(tmp_path, form):
    filename = {
        "text": f"{tmp_path}/x.{{dataset_name}}.{{epoch}}.hdf",
        "function": lambda **run: f"{tmp_path}/x.{'{dataset_name}.{epoch}'.format(**run)}.hdf",
        "named": lambda epoch, dataset_name: f"{tmp_path}/x.{dataset_name}.{epoch}.hdf",
    }[form]
    open_trainer(training(tmp_path, {"filename": filename, "dump_per_run": True}), Log.silent()).run(StopRequest())
    for name, count in (("train", 3), ("dev", 2)):
        for epoch in (1, 2):
            tags = content(tmp_path / f"x.{name}.{epoch}.hdf")[0]["seqTags"].tolist()
            assert sorted(tags) == [f"{name}{i}".encode() for i in range(count)]


def test_the_next_epoch_reads_what_was_written(tmp_path):
    """A dataset whose files are those of the epoch before."""
    read = []

    def get_dataset(epoch, **_):
        path = tmp_path / ("train.hdf" if epoch < 2 else f"x.train.{epoch - 1}.hdf")
        read.append((epoch, path.exists()))
        features, align = ({"class": "HDFDataset", "files": [str(file)]} for file in (tmp_path / "train.hdf", path))
        maps = {"data": ("features", "data"), "classes": ("features", "classes"), "align": ("align", "data")}
        return {"class": "MetaDataset", "datasets": {"features": features, "align": align}, "data_map": maps}

    options = {"filename": f"{tmp_path}/x.{{dataset_name}}.{{epoch}}.hdf", "dump_per_run": True}
    options["from"] = "h2"
    config = training(tmp_path, options, train={"class": "VariableDataset", "get_dataset": get_dataset})
    open_trainer(config, Log.silent()).run(StopRequest())
    assert (2, True) in read and all(there for _, there in read)


def test_an_error_leaves_no_half_file_of_a_pass(tmp_path):
    options = {"filename": f"{tmp_path}/x.{{dataset_name}}.{{epoch}}.hdf", "dump_per_run": True}
    config = training(tmp_path, options, max_seqs=1)
    trainer = open_trainer(config, Log.silent())
    steps = []

    def stop_at_the_second(*args, **kwargs):
        steps.append(1)
        if len(steps) == 2:
            raise RuntimeError("broken")

    trainer.updater.step = stop_at_the_second
    with pytest.raises(Exception, match="broken"):
        trainer.run(StopRequest())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dev.hdf", "train.hdf"]
