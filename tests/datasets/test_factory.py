"""Datasets from the values in configs, and the defaults that the config's options give them."""

import pickle

import numpy as np
import pytest

from returnn_lite.config import Config
from returnn_lite.datasets import Dataset, DatasetDefaults, dataset_defaults, init_dataset
from returnn_lite.datasets.factory import default_seed_offset
from returnn_lite.datasets.registry import DATASETS, REFUSED, dataset_class
from returnn_lite.datasets.tables.static import StaticDataset
from returnn_lite.errors import ConfigError
from tests.datasets.hdf_files import write

STATIC = {"class": "StaticDataset", "data": [{"data": np.ones((n, 2))} for n in (3, 1, 2)]}


def made(value, role="train", **options):
    config = Config(options)
    return init_dataset(value, name=role, config=config, defaults=dataset_defaults(config, role))


def test_a_dict_gets_the_configs_options():
    options = made(STATIC, chunking="4:2", batching="random", window=3, context_window=5, min_chunk_size=2).options
    assert (options.chunking, options.seq_ordering, options.window) == ("4:2", "random", 3)
    assert (options.context_window, options.min_chunk_size, options.chunking_variance) == (5, 2, 0)
    assert options.name == "train"


def test_its_own_options_win_but_none_counts_as_absent():
    value = {**STATIC, "seq_ordering": "reverse", "chunking": None, "name": "mine"}
    options = made(value, chunking="4:2", batching="random").options
    assert (options.seq_ordering, options.chunking, options.name) == ("reverse", "4:2", "mine")


def test_untyped_options_of_line_configs():
    config = Config()
    for key, text in {"chunking": "5:5", "batching": "laplace:3", "window": "3", "chunking_variance": "0.5"}.items():
        config.set_text(key, text)
    options = dataset_defaults(config, "train").all
    assert options == {"chunking": "5:5", "seq_ordering": "laplace:3", "window": 3, "chunking_variance": 0.5}


@pytest.mark.parametrize("config, chunking", [
    ({"chunking": "4:2"}, "0"),
    ({"chunking": "1"}, "1"),
    ({"chunking": "4:2", "chunk_eval": True}, "4:2"),
    ({"chunking": "4:2", "on_size_limit": "chunk", "batch_size": 50}, 50),
    ({}, "0"),
])  # fmt: skip
def test_evaluation_sets_are_sorted_and_whole(config, chunking):
    for role in ("dev", "eval"):
        options = made(STATIC, role, batching="random", **config).options
        assert (options.seq_ordering, options.chunking) == ("sorted", chunking)
    assert made({**STATIC, "seq_ordering": "default"}, "dev", **config).options.seq_ordering == "default"


def test_other_datasets_get_no_defaults():
    options = made(STATIC, "devtrain", batching="random", chunking="4:2").options
    assert (options.seq_ordering, options.chunking, options.name) == ("default", None, "devtrain")


def test_functions_get_the_role_only():
    options = made(lambda: STATIC, batching="random", chunking="4:2").options
    assert (options.seq_ordering, options.chunking) == ("default", None)
    options = made(lambda: STATIC, "dev", batching="random").options
    assert (options.seq_ordering, options.chunking, options.name) == ("sorted", "0", "dev")


def test_config_expressions():
    mine = {**STATIC, "seq_ordering": "reverse"}
    assert made("config:mine", mine=mine, batching="random").options.seq_ordering == "reverse"
    assert made("config:get('x')", get=lambda _: mine).options.seq_ordering == "reverse"
    assert made("config:mine", "dev", mine=mine).options.seq_ordering == "sorted"  # the role overrides here
    with pytest.raises(ConfigError, match='train: "nothing" cannot be evaluated: NameError'):
        made("config:nothing")


def test_texts(tmp_path):
    text = "{'class': 'Task12AXDataset', 'num_seqs': 3}"
    assert made(text, batching="reverse").options.seq_ordering == "reverse"
    dataset = made("Task12AXDataset:num_seqs=4, seq_ordering='reverse'", batching="random")
    assert (dataset.get_total_num_seqs(), dataset.options.seq_ordering) == (4, "reverse")
    files = [write(tmp_path / name, (2, 1)) for name in ("a.hdf", "b.hdf")]
    dataset = made(" , ".join(files), batching="random")
    assert (type(dataset).__name__, dataset.get_total_num_seqs(), dataset.options.seq_ordering) == (
        "HDFDataset", 4, "random",
    )  # fmt: skip


def test_a_dataset_is_taken_as_it_is():
    dataset = made(STATIC)
    assert init_dataset(dataset) is dataset
    assert isinstance(init_dataset({**STATIC, "class": StaticDataset}), StaticDataset)


@pytest.mark.parametrize("value, message", [
    ({}, 'train: a dataset dict needs the entry "class"'),
    ({"class": "StaticDatset", "data": []}, 'dataset class "StaticDatset" not found; did you mean "StaticDataset"'),
    ({"class": "Unrelated"}, "not found; known: AnythingDataset, .*StaticDataset"),
    ({"class": "ExternSprintDataset"}, "needs RASR, .* write its data to HDF files"),
    ({"class": "StaticDataset"}, "train: StaticDataset needs the option data"),
    ({**STATIC, "seq_orderin": "x"}, 'train."seq_orderin".: unknown option of StaticDataset; did you mean "seq_ord'),
    ({**STATIC, "zzz": 1}, "its options are: data, target_list, input_dim, output_dim, name, window, "),
    ({**STATIC, "partition_epoch": 0.5}, "train: partition_epoch: must be a whole number >= 1"),
    ({**STATIC, "partition_epoch": 2, "repeat_epoch": 2}, "repeat_epoch: must not be combined with partition_epoch"),
    ({**STATIC, "_num_shards": 2, "_shard_index": 2}, "_shard_index: must be 0 … 1"),
    ({**STATIC, "shuffle_frames_of_nseqs": 3}, "shuffling of frames is not supported"),
    (3, "train: must be a dataset dict, a function that returns one, or a text, but is 3"),
    (lambda: 3, "train: must be a dataset dict"),
    ("", "train: must name a dataset, but is empty"),
    ("{'class': ", "cannot be evaluated: SyntaxError"),
    ("Task12AXDataset:num_seqs=open('x')", "must be key=value, … with plain Python values"),
    ("Task12AXDataset:3", "must be key=value"),
    ("sprint:--config=x", 'train: "sprint:…" needs RASR'),
    ("none.hdf", "none.hdf: no such file"),
    ("MetaDataset:a=3", 'train."a".: unknown option of MetaDataset'),
])  # fmt: skip
def test_what_does_not_work(value, message):
    with pytest.raises(ConfigError, match=message):
        made(value)


def test_refused_names_and_known_ones_are_apart():
    assert not set(REFUSED) & set(DATASETS)
    with pytest.raises(ConfigError, match='x."class".: dataset class "3" not found'):
        dataset_class(3, "x")


def test_seed_offsets(monkeypatch):
    monkeypatch.delenv("RETURNN_RANDOM_SEED_OFFSET", raising=False)
    monkeypatch.setenv("RANK", "2")
    distributed = Config({"torch_distributed": {}})
    assert default_seed_offset(None, "train") == 0 == default_seed_offset(Config(), "train")
    assert default_seed_offset(distributed, "train") == 2 * 16127
    assert default_seed_offset(distributed, "dev") == 0
    monkeypatch.setenv("RETURNN_RANDOM_SEED_OFFSET", "7")
    assert default_seed_offset(Config(), "train") == 7
    assert made({**STATIC, "random_seed_offset": 3}).order_options.random_seed_offset == 3
    assert made(STATIC).order_options.random_seed_offset == 7


def test_plain_dicts_as_defaults():
    dataset = init_dataset(STATIC, defaults={"seq_ordering": "reverse"})
    assert isinstance(dataset, Dataset) and dataset.options.seq_ordering == "reverse"
    assert DatasetDefaults({"a": 1}, {"a": 2, "b": 3}).all == {"a": 1, "b": 3}


def test_pickles():
    copy = pickle.loads(pickle.dumps(made(STATIC, batching="reverse")))
    copy.init_seq_order(1)
    assert [copy.get_tag(i) for i in range(3)] == ["seq-2", "seq-1", "seq-0"]
