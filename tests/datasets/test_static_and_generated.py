"""The base contract on datasets without files."""

import gzip
import math

import numpy as np
import pytest

from returnn_lite.datasets import init_dataset
from returnn_lite.datasets.synthetic.generated import Task12AXDataset
from returnn_lite.errors import ConfigError
from returnn_lite.tensor.dim import Dim

DATA = [{"data": np.full((n, 2), n, "float32"), "classes": np.arange(n), "id": np.array(n)} for n in (3, 1, 2)]


def static(data=DATA, **options):
    return init_dataset({"class": "StaticDataset", "data": data, **options}, name="toy")


def test_description():
    dataset = static(target_list=["classes"], output_dim={"classes": 4, "id": (9, 0)})
    assert dataset.get_data_keys() == ["data", "classes", "id"]
    assert dataset.num_outputs == {"data": (2, 2), "classes": (4, 1), "id": (9, 0)} and dataset.num_inputs == 2
    assert dataset.get_target_list() == ["classes"] and static().get_target_list() == ["classes", "id"]
    assert dataset.extern_data() == {
        "data": {"dim": 2, "shape": (None, 2), "sparse": False, "dtype": "float32", "available_for_inference": True},
        "classes": {"dim": 4, "shape": (None,), "sparse": True, "dtype": "int64", "available_for_inference": False},
        "id": {"dim": 9, "shape": (), "sparse": True, "dtype": "int64", "available_for_inference": True},
    }


def test_life_cycle():
    dataset = static(seq_ordering="sorted")
    assert dataset.num_seqs == 0 and not dataset.is_less_than_num_seqs(0)
    assert dataset.init_seq_order(epoch=1) and not dataset.init_seq_order(epoch=2)
    assert dataset.num_seqs == 3 and dataset.is_less_than_num_seqs(2) and not dataset.is_less_than_num_seqs(3)
    dataset.load_seqs(0, 10)
    assert [dataset.get_tag(i) for i in range(3)] == ["seq-1", "seq-2", "seq-0"]
    assert dataset.get_data(1, "data").tolist() == [[2, 2], [2, 2]]
    assert dataset.get_seq_length(2) == {"data": 3, "classes": 3, "id": 1}
    assert dataset.get_corpus_seq_idx(2) == 0 and dataset.have_corpus_seq_idx
    assert dataset.get_corpus_seq(2)["id"] == 2
    assert dataset.get_estimated_seq_length(2) == 3 and dataset.supports_seq_order_sorting
    assert [dataset.get_complete_frac(i) for i in range(3)] == [pytest.approx(f) for f in (1 / 3, 2 / 3, 1)]
    dataset.finish_epoch()
    assert dataset.init_seq_order(epoch=None) and dataset.num_seqs == 0


def test_given_orders_go_before_everything():
    dataset = static(seq_ordering="random", partition_epoch=3, unique_seq_tags=True)
    dataset.init_seq_order(1, seq_list=["seq-2", "seq-0", "seq-2"])
    assert dataset.get_current_seq_order().tolist() == [2, 0, 2]
    dataset.init_seq_order(1, seq_order=[1])
    assert dataset.get_current_seq_order().tolist() == [1]
    for bad in (["seq-3"], ["x"], ["seq-"], ["0"]):
        with pytest.raises(ConfigError, match=f'toy: no sequence has the tag "{bad[0]}"'):
            dataset.init_seq_order(1, seq_list=bad)
    with pytest.raises(ConfigError, match="toy: seq_order must hold numbers from 0 to 2"):
        dataset.init_seq_order(1, seq_order=[3])
    with pytest.raises(ConfigError, match="load_seqs needs 0 <= start <= end"):
        dataset.load_seqs(2, 1)


def test_lists_and_lengths_from_files(tmp_path):
    (tmp_path / "some.txt").write_text("seq-2\nseq-0\nother\n")
    (tmp_path / "lens.gz").write_bytes(gzip.compress(b"{'seq-0': 1, 'seq-1': 2, 'seq-2': 3}"))
    files = {"seq_list_filter_file": str(tmp_path / "some.txt"), "seq_order_seq_lens_file": str(tmp_path / "lens.gz")}
    dataset = static(seq_ordering="sorted", **files)
    dataset.init_seq_order(1)
    assert dataset.get_current_seq_order().tolist() == [0, 2]


@pytest.mark.parametrize("data, message", [
    ([], "toy: data: must be a list of at least one sequence"),
    ([DATA[0], {"data": np.ones((2, 2))}], r"toy: data\[1\]: must have the keys"),
    ([{"data": np.ones((2, 2))}, {"data": np.ones((2, 3))}], r'toy: data\[1\]\["data"\]: must have the shape \(time, '),
    ([{"data": np.ones((2, 2))}, {"data": np.ones(2)}], "must have the shape"),
])  # fmt: skip
def test_bad_data(data, message):
    with pytest.raises(ConfigError, match=message):
        static(data)


# --- generated ---


def generated(**options):
    return init_dataset({"class": "Task12AXDataset", **options}, name="toy")


def sequences(dataset, epoch, count=3):
    dataset.init_seq_order(epoch)
    dataset.load_seqs(0, count)
    return {dataset.get_tag(i): dataset.get_data(i, "data").tolist() for i in range(count)}


def test_12ax_answers():
    assert Task12AXDataset.answers("1AX2BY1BXAX3YZ") == "LLRLLRLLLLRLLL"
    assert Task12AXDataset.answers("AX") == "LL"
    dataset = generated(num_seqs=5)
    dataset.init_seq_order(1)
    one_hot, classes = dataset.get_data(0, "data"), dataset.get_data(0, "classes")
    assert one_hot.shape == (len(classes), 9) and one_hot.dtype == np.float32 and np.all(one_hot.sum(1) == 1)
    text = "".join("123ABCXYZ"[i] for i in one_hot.argmax(1))
    assert "".join("LR"[i] for i in classes) == dataset.answers(text)


def test_sequences_depend_on_epoch_and_corpus_index_alone():
    plain, mixed = generated(num_seqs=3), generated(num_seqs=3, seq_ordering="random")
    assert sequences(plain, 2) == sequences(mixed, 2) != sequences(plain, 1)
    fixed = generated(num_seqs=3, fixed_random_seed=1)
    assert sequences(fixed, 1) == sequences(fixed, 9)
    assert sequences(generated(num_seqs=6, partition_epoch=2), 2) != sequences(plain, 1)


def test_orders_by_length_become_the_plain_one():
    assert list(sequences(generated(num_seqs=3, seq_ordering="sorted"), 1)) == ["seq-0", "seq-1", "seq-2"]
    with pytest.raises(ConfigError, match='"laplace" needs sequence lengths'):
        sequences(generated(num_seqs=3, seq_ordering="laplace"), 1)


def test_without_end():
    dataset = generated()
    dataset.init_seq_order(1)
    assert math.isinf(dataset.num_seqs) and dataset.is_less_than_num_seqs(10**9)
    assert dataset.get_tag(10**6) == "seq-1000000"
    assert 0 < dataset.get_complete_frac(0) < dataset.get_complete_frac(100) < dataset.get_complete_frac(10**6) < 1
    for action, message in [
        (dataset.get_all_tags, "is endless"),
        (lambda: generated(seq_ordering="random").init_seq_order(1), 'must be "default" without partitions'),
        (lambda: generated(partition_epoch=2).init_seq_order(1), 'must be "default" without partitions'),
    ]:
        with pytest.raises(ConfigError, match=message):
            action()
    with pytest.raises(NotImplementedError):
        dataset.get_current_seq_order()
    with pytest.raises(NotImplementedError):
        dataset.get_estimated_seq_length(0)


def test_anything_has_empty_texts():
    types = {"data": {"shape": (None, 3)}, "text": {"shape": (), "dtype": "string"}}
    dataset = init_dataset({"class": "AnythingDataset", "data_keys": types})
    dataset.init_seq_order(epoch=1, seq_list=["a", "b"])
    dataset.load_seqs(0, 2)
    assert (
        dataset.get_tag(1) == "b" and dataset.get_data(1, "text") == "" and dataset.get_data(1, "data").shape == (1, 3)
    )


def test_lengths_by_dim():
    time, other, feature = Dim(None, "time"), Dim(None, "other"), Dim(3, "feature")
    template = {"data": {"dims": [time, feature]}, "two": {"dims": [other, time, feature]}}
    lens = {time: 4, other: (7, 7)}
    dataset = init_dataset({"class": "DummyGenericDataset", "data_template": template, "num_seqs": 2, "seq_lens": lens})
    dataset.init_seq_order(epoch=1)
    assert [dataset.get_data(1, key).shape for key in ("data", "two")] == [(4, 3), (7, 4, 3)]
