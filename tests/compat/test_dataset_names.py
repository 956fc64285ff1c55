"""Dataset classes that configs import, to refer to, to call and to derive from."""

import textwrap

import pytest

from returnn_lite.compat.config_imports import config_imports
from returnn_lite.datasets import BatchingOptions, Loader, init_dataset
from returnn_lite.errors import ConfigError
from tests.engine.helpers import rnn

OWN = """
import numpy
from returnn.datasets.cached2 import CachedDataset2
from returnn.datasets.basic import DatasetSeq

class Own(CachedDataset2):
    def __init__(self, how_many, known=True, **kwargs):
        super().__init__(**kwargs)
        self.how_many, self.known = how_many, known
        self.num_inputs, self.num_outputs = 2, {"data": (2, 2), "classes": [3, 1]}

    def init_seq_order(self, epoch=None, seq_list=None, seq_order=None):
        super().init_seq_order(epoch, seq_list, seq_order)
        self.order = self.get_seq_order_for_epoch(epoch, self.how_many, lambda i: self.how_many - i)
        self._num_seqs = len(self.order) if self.known or epoch is None else None
        return True

    def _collect_single_seq(self, seq_idx):
        if seq_idx >= len(self.order):
            return None
        i = int(self.order[seq_idx])
        frames = numpy.full((i + 1, 2), i, "float32")
        return DatasetSeq(seq_idx, frames, numpy.arange(i + 1, dtype="int32") % 3, f"own-{i}")
"""


def executed(text):
    found = {}
    with config_imports():
        exec(textwrap.dedent(text), found)
    return found


@pytest.mark.parametrize("known", [True, False])
def test_a_class_derived_from_cached_dataset2(known):
    options = {"class": executed(OWN)["Own"], "how_many": 5, "known": known, "seq_ordering": "sorted"}
    dataset = init_dataset(options, name="toy")
    assert dataset.name == "toy" and dataset.seq_ordering == "sorted" and dataset.num_seqs == 0
    assert dataset.get_data_keys() == ["classes", "data"] and dataset.is_data_sparse("classes")
    dataset.init_seq_order(1)
    batches = list(Loader(dataset, BatchingOptions(batch_size=8, max_seqs=2), keys=["data", "classes"]))
    assert [batch.tags for batch in batches] == [["own-4"], ["own-3", "own-2"], ["own-1", "own-0"]]
    assert batches[1].data["data"][1].tolist() == [[2, 2]] * 3 + [[0, 0]]
    assert dataset.num_seqs == 5 and not dataset.is_less_than_num_seqs(5)
    with pytest.raises(ConfigError, match="sequence 0 is no longer available: sequences can only be read in order"):
        dataset.get_data(0, "data")
    with pytest.raises(NotImplementedError, match="has no corpus indices"):
        dataset.get_corpus_seq_idx(0)


@pytest.mark.parametrize("options, message", [
    ({"how_manny": 3}, r'toy\["how_manny"\]: unknown option of Own; did you mean "how_many"'),
    ({}, "Own needs the option how_many"),
])  # fmt: skip
def test_wrong_options_of_a_derived_class(options, message):
    with pytest.raises(ConfigError, match=message):
        init_dataset({"class": executed(OWN)["Own"], **options}, name="toy")


def test_what_derived_classes_lack():
    found = executed("""
    from returnn.datasets.cached2 import CachedDataset2, DatasetSeq
    class Nothing(CachedDataset2):
        pass
    class NoSeqs(CachedDataset2):
        def __init__(self):
            super().__init__()
            self.num_outputs = {"data": 3}
    class NoClasses(NoSeqs):
        def __init__(self):
            super().__init__()
            self.num_outputs = {"data": 3, "classes": 7}
        def _collect_single_seq(self, seq_idx):
            return DatasetSeq(seq_idx, [[0, 0, 0]])
    """)
    with pytest.raises(ConfigError, match="the constructor of Nothing must set num_outputs"):
        init_dataset({"class": found["Nothing"]}, name="toy")
    dataset = init_dataset({"class": found["NoSeqs"]}, name="toy")
    dataset.init_seq_order(1)
    assert dataset.num_outputs == {"data": (3, 2)}
    with pytest.raises(ConfigError, match="the dataset class NoSeqs must define _collect_single_seq"):
        dataset.load_seqs(0, 1)
    dataset = init_dataset({"class": found["NoClasses"]}, name="toy")
    dataset.init_seq_order(1)
    with pytest.raises(ConfigError, match=r'sequence "seq-0": must have .\'classes\'., but has .\'data\'. only'):
        dataset.get_seq_length(0)


def test_our_classes_take_keywords_and_may_be_derived_from():
    found = executed("""
    import numpy
    from GeneratingDataset import StaticDataset
    from returnn.datasets.generating import Task12AXDataset
    from returnn.datasets.meta import MetaDataset
    from returnn.datasets.sprint import ExternSprintDataset
    from returnn.datasets.basic import get_dataset_class, init_dataset
    import returnn.datasets.hdf, HDFDataset
    seqs = [{"data": numpy.zeros((n, 2), "float32")} for n in (2, 3)]
    static = StaticDataset(data=seqs, output_dim={"data": (2, 2)}, seq_ordering="sorted_reverse", name="mine")
    class Longer(StaticDataset):
        def __init__(self, extra, **kwargs):
            super().__init__(data=seqs * extra, output_dim={"data": (2, 2)}, **kwargs)
    longer = init_dataset({"class": Longer, "extra": 3, "seq_ordering": "reverse"})
    def sprint():
        return ExternSprintDataset()
    """)
    assert found["HDFDataset"] is found["returnn"].datasets.hdf
    assert found["static"].name == "mine" and found["static"].get_total_num_seqs() == 2
    found["static"].initialize()
    found["static"].init_seq_order(1)
    assert found["static"].get_tag(0) == "seq-1"
    assert found["longer"].get_total_num_seqs() == 6 and found["longer"].options.seq_ordering == "reverse"
    with pytest.raises(NotImplementedError, match="ExternSprintDataset: needs RASR"):
        found["sprint"]()
    with pytest.raises(ConfigError, match='not found; did you mean "HDFDataset"'):
        found["get_dataset_class"]("HDFDatset")


def test_phones_of_timit():
    timit = executed("from GeneratingDataset import TimitDataset")["TimitDataset"]
    labels, smaller = timit.get_labels(), timit.get_labels(39)
    assert len(labels) == 61 and len(smaller) == 39
    to_39 = timit.get_label_map(61, 39)
    assert to_39[labels.index("q")] is None and smaller[to_39[labels.index("h#")]] == "sil"
    assert smaller[to_39[labels.index("ao")]] == "aa" and set(to_39) == set(range(61))


def test_a_config_trains_on_its_own_dataset(tmp_path):
    (tmp_path / "config").write_text(f"""#!rnn.py
{OWN}
train = {{"class": Own, "how_many": 6, "seq_ordering": "laplace:2"}}
dev = {{"class": Own, "how_many": 3, "known": False}}
extern_data = {{"data": {{"dim": 2}}, "classes": {{"dim": 3, "sparse": True}}}}
network = {{"output": {{"class": "softmax", "from": "data", "loss": "ce", "target": "classes"}}}}
batch_size, max_seqs, num_epochs, optimizer, learning_rate = 20, 2, 2, {{"class": "adam"}}, 0.01
""")
    done = rnn("config", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "epoch 2 score" in done.stdout + done.stderr
