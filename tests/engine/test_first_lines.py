"""What is wrong with the data, in one line that names option, dataset and remedy."""

import numpy as np
import pytest

import returnn_lite.catalog  # noqa: F401 (fills the registries)
from returnn_lite.config import Config
from returnn_lite.datasets import init_dataset
from returnn_lite.datasets.combined.map_wrapper import MapDatasetBase
from returnn_lite.engine.data import named_dataset
from returnn_lite.engine.tasks.check import check_task
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from tests.datasets.examples import static
from tests.datasets.hdf_files import write

RNN = {"class": "rec", "unit": "nativelstm2", "n_out": 3}
EXTERN = {"data": {"dim": 2}, "classes": {"dim": 5, "sparse": True}}


class WithoutLengths(MapDatasetBase):
    """A dataset that cannot be sorted."""

    def __init__(self):
        types = {"data": {"dim": 2, "shape": (None, 2)}, "classes": {"dim": 5, "sparse": True, "shape": (None,)}}
        super().__init__(types)

    def __len__(self):
        return 2

    def __getitem__(self, seq_idx):
        return {"data": np.zeros((3, 2), "float32"), "classes": np.zeros(3, "int32")}


def check(extern=None, network=None, **options):
    """`--check` of a config with one loss."""
    layers = network or {"output": {"class": "softmax", "from": "h", "loss": "ce"}}
    config = {"train": static(), "extern_data": {**EXTERN, **(extern or {})}, "batch_size": 100}
    check_task(Config({**config, "network": {"h": {**RNN, "from": "data"}, **layers}, **options}), Log.silent())


def ctc(**layer):
    return {
        "small": {"from": "data", **layer},
        "h": {**RNN, "from": "small"},
        "output": {"class": "softmax", "from": "h", "loss": "ctc", "n_out": 6, "target": "classes"},
    }


WRAPPER = {"class": "MapDatasetWrapper", "map_dataset": WithoutLengths}


@pytest.mark.parametrize("options, message", [
    ({"extern": {"classes": {"dim": 5}}}, 'extern_data["classes"]: must have "sparse": True, as "classes" of train'),
    ({"extern": {"data": {"dim": 3}}}, 'extern_data["data"]: `dim` must be 2, the number of features of "data" of tra'),
    ({"extern": {"data": {"shape": (None, 4, 2)}}}, 'extern_data["data"]: `shape` must be that of "data" of train'),
    ({"extern": {"classes": {"dim": 2, "sparse": True}}}, '`dim` of "classes" is 2, but train has 5 classes'),
    ({"network": ctc(**{"class": "pool", "mode": "max", "pool_size": (9,), "padding": "valid"})},
     'network["output"]: ctc: sequence 0 of the batch has 0 frames for'),
    ({"network": ctc(**{"class": "pool", "mode": "max", "pool_size": (9,), "padding": "valid"})},
     'the layer "small" (pool) leaves no frames of this batch: (2, 3, 2) has become (2, 0, 2)'),
    ({"network": ctc(**{"class": "slice", "axis": "T", "slice_start": 9})}, 'the layer "small" (slice) leaves no fr'),
    ({"network": {"half": {"class": "pool", "mode": "max", "pool_size": (2,), "padding": "same", "from": "h"},
                  "output": {"class": "softmax", "from": "half", "loss": "ce"}}},
     'the loss "ce" needs a label a frame; for fewer labels use "ctc", or attention'),
    ({"train": WRAPPER, "dev": WRAPPER}, 'dev: seq_ordering: "sorted" needs sequence lengths, which this dataset does'
     ' not know; that is the default of dev: set "seq_ordering": "default"'),
    ({"dev": {**WRAPPER, "seq_ordering": "laplace"}}, 'dev: seq_ordering: "laplace" needs sequence lengths'),
    ({"eval_datasets": {"other": {**WRAPPER, "seq_ordering": "sorted"}}}, 'other: seq_ordering: "sorted" needs'),
    ({"search_data": {**WRAPPER, "seq_ordering": "sorted"}}, 'search_data: seq_ordering: "sorted" needs'),
])  # fmt: skip
def test_first_lines(options, message):
    with pytest.raises(ConfigError) as raised:
        check(**options)
    line = str(raised.value)
    assert message in line and "\n" not in line


def test_what_nobody_wrote_is_called_a_default_only_then():
    with pytest.raises(ConfigError) as raised:
        check(train=WRAPPER, dev={**WRAPPER, "seq_ordering": "sorted"})
    assert "default" not in str(raised.value)
    check(train=WRAPPER, dev={**WRAPPER, "seq_ordering": "default"})


def test_a_file_without_sequences(tmp_path):
    path = write(tmp_path / "none.hdf", (), classes=5, seqTags=np.zeros(0, "S1"))
    dataset = init_dataset({"class": "HDFDataset", "files": [path]}, name="toy")
    with pytest.raises(ConfigError, match=f"^toy: no sequences in {path}$"):
        dataset.init_seq_order(1)


def test_a_search_without_data():
    with pytest.raises(ConfigError, match="search_data: no eval files specified: it must be a dataset"):
        named_dataset(Config({}), "search_data", Log.silent())


class Lines(Log):
    """A log that keeps its lines."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def write(self, level, text):
        self.lines.append(text)


@pytest.mark.parametrize("options, expected", [
    ({"seq_ordering": "random", "partition_epoch": 2}, ["seq_ordering, partition_epoch have no effect with seq_order"]),
    ({"unique_seq_tags": True}, ["unique_seq_tags have no effect"]),
    ({}, []),
])  # fmt: skip
def test_an_order_that_another_dataset_decides(options, expected):
    log = Lines()
    maps = {"datasets": {"a": static()}, "data_map": {"data": ("a", "data")}, "seq_order_control_dataset": "a"}
    dataset = init_dataset({"class": "MetaDataset", **maps, **options}, name="toy", log=log)
    for epoch in (1, 2):
        dataset.init_seq_order(epoch)
    assert dataset.num_seqs == 4 and len(log.lines) == len(expected)
    assert all(f"toy: warning: {text}" in line for text, line in zip(expected, log.lines, strict=True))
