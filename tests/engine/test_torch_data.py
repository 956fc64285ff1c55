"""The data of models written in torch: as a dataset gives them, in batches by their own rules."""

import numpy as np
import pytest
import torch

from returnn_lite.frontend import Dim, batch_dim, get_run_ctx
from returnn_lite.hdf.writer import HDFWriter
from tests.engine.helpers import run
from tests.engine.torch_models import options

LENGTHS = [3, 4, 5, 2]


class Seen:
    """A config of a model that keeps what it gets: `batches`, the arrays of each by key."""

    def __init__(self, folder, sequences, keys, **changes):
        self.batches = []
        dims = {key: (dim, ndim) for key, (dim, ndim, _) in keys.items()}
        train = {"class": "StaticDataset", "data": sequences, "output_dim": dims, "seq_ordering": "default"}
        extern = {key: extern for key, (*_, extern) in keys.items() if extern is not None}
        self.lines = run(
            options(
                folder,
                **{"train": train, "dev": None, "extern_data": extern, "train_step": self.step, "num_epochs": 1,
                   "max_seqs": None, "model": None, **changes},
            )
        )  # fmt: skip

    def step(self, *, model, extern_data, **_):
        if get_run_ctx().train_flag:
            self.batches.append({key: extern_data[key].raw_tensor for key in extern_data.data})
        get_run_ctx().mark_as_loss(sum(param.sum() for param in model.parameters()), "sum")

    def sizes(self):
        return [len(batch["data"]) for batch in self.batches]


FRAMES = {"data": (4, 2, {"dim": 4})}


def sequences(**more):
    return [
        {"data": np.ones((n, 4), "float32"), **{key: make(n) for key, make in more.items()}} for n in LENGTHS
    ]  # fmt: skip


@pytest.mark.parametrize("given, found", [
    ("float64", torch.float64), ("float16", torch.float16), ("int64", torch.int64), ("uint8", torch.uint8),
    ("uint16", torch.int32), ("uint32", torch.int64), ("bool", torch.bool),
])  # fmt: skip
def test_numbers_keep_their_type(tmp_path, given, found):
    extern = {"shape": (None,), "dtype": "int32" if "int" in given else "float32"}
    seqs = sequences(other=lambda n: np.ones(n, given))
    seen = Seen(tmp_path, seqs, {**FRAMES, "other": (1, 1, extern)})
    assert {batch["other"].dtype for batch in seen.batches} == {found}


def test_values_are_not_looked_at(tmp_path):
    """Such as classes that a loss ignores, and frames that are masked."""
    classes = {"dim": 4, "sparse": True}
    seqs = sequences(classes=lambda n: np.full(n, -100, "int32"))
    seqs[0]["data"][0] = np.nan
    seen = Seen(tmp_path, seqs, {**FRAMES, "classes": (4, 1, classes)}, batch_size=100)
    assert int(seen.batches[0]["classes"].min()) == -100 and bool(seen.batches[0]["data"].isnan().any())


def test_facts_about_the_epoch(tmp_path):
    numbers = {"num_seqs": "int64", "epoch": "int64", "complete_frac": "float32"}
    extern = {key: (0, 0, {"dims": [], "dtype": dtype}) for key, dtype in numbers.items()}
    extern["seq_idx"] = (0, 0, {"dims": [batch_dim], "dtype": "int64"})
    train = {"class": "StaticDataset", "data": sequences(), "output_dim": {"data": (4, 2)}, "seq_ordering": "default"}
    seen = Seen(tmp_path, [], {**FRAMES, **extern}, train=train, batch_size=10)
    found = [[batch[key].item() for key in numbers] for batch in seen.batches]
    assert found == [[4, 1, 0.5], [4, 1, 1.0]] and [batch["seq_idx"].tolist() for batch in seen.batches] == [
        [0, 1],
        [2, 3],
    ]
    for key, dtype in numbers.items():
        assert isinstance(seen.batches[0][key], np.ndarray) and seen.batches[0][key].dtype == dtype
    assert seen.batches[0]["seq_idx"].dtype == torch.int64


def test_limits_are_those_of_keys_with_an_axis(tmp_path):
    speaker = {"dims": [batch_dim, Dim(6, name="speaker")], "dtype": "float32"}
    seqs = sequences(speaker=lambda n: np.ones(6, "float32"), number=lambda n: np.float32(n))
    keys = {**FRAMES, "speaker": (6, 2, speaker), "number": (1, 0, {"dims": [batch_dim], "dtype": "float32"})}
    assert Seen(tmp_path, seqs, keys, batch_size=12).sizes() == [2, 2]  # by the 6 numbers of the vector
    assert Seen(tmp_path, seqs, keys, batch_size=100, min_seq_length=3).sizes() == [3]
    assert Seen(tmp_path, seqs, keys, batch_size=100, max_seq_length=5).sizes() == []


def test_data_without_any_axis(tmp_path):
    keys = {"data": (1, 0, {"dims": [batch_dim], "dtype": "float32"})}
    seqs = [{"data": np.float32(n)} for n in LENGTHS]
    assert Seen(tmp_path, seqs, keys, batch_size=1, max_seqs=3).sizes() == [3, 1]


@pytest.mark.parametrize("changes", [
    {"seq_drop": 0.9}, {"max_pad_size": 0}, {"inc_seq_length": -2.0, "max_seq_length": 5}, {"shuffle_batches": True},
])  # fmt: skip
def test_options_of_layer_nets_alone(tmp_path, changes):
    assert Seen(tmp_path, sequences(), FRAMES, batch_size=10, **changes).sizes() == [2, 2]


def test_the_part_that_is_done_is_counted_alike_in_all_epochs(tmp_path):
    """With a dataset of which nets of layers keep the batches."""
    with HDFWriter(str(tmp_path / "data.hdf"), dim=4) as file:
        for n in LENGTHS:
            file.insert(np.ones((n, 4), "float32"), f"seq-{n}")
    asked = []

    def rate(*, epoch_continuous, learning_rate, **_):
        asked.append(epoch_continuous)
        return learning_rate

    train = {"class": "HDFDataset", "files": [str(tmp_path / "data.hdf")]}
    changes = {"train": train, "num_epochs": 2, "batch_size": 15, "dynamic_learning_rate": rate}
    seen = Seen(tmp_path, [], FRAMES, **changes, learning_rate_control=None)
    assert seen.sizes() == [3, 1, 3, 1] and sorted(set(asked)) == [0.0, 0.75, 1.0, 1.75, 2.0]
