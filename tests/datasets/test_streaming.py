"""Data of unknown length: epochs by number of sequences, going on, windows, shards, tar files."""

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest

from returnn_lite.datasets import BatchingOptions, Loader, init_dataset
from returnn_lite.datasets.options import DataError
from returnn_lite.datasets.streaming.tar import expanded, extension, groups, stem
from returnn_lite.datasets.streaming.windows import shuffled, sorted_in_windows
from returnn_lite.errors import ConfigError
from tests.datasets.examples import tar

FORMAT = {"data": {"shape": (None, 1), "dim": 1}}
TOTAL = 10


class Counting:
    """Sequences 0 … 9, of 1 … 4 frames; counts how many were read."""

    def __init__(self):
        self.read = 0

    def __iter__(self):
        for number in range(TOTAL):
            self.read += 1
            yield {"data": np.full((number % 4 + 1, 1), number, "float32")}


class Skipping(Counting):
    """The same, and it can skip."""

    def skip(self, count):
        self.read -= max(min(count, TOTAL), 0)
        return itertools.islice(iter(self), count, None)


def stream(source, **options):
    return init_dataset({"class": "IterableDataset", "source": source, "data_format": FORMAT, **options}, name="toy")


def numbers(dataset, epoch):
    """The sequences of an epoch, by their numbers."""
    dataset.init_seq_order(epoch)
    found = []
    while dataset.is_less_than_num_seqs(len(found)):
        dataset.load_seqs(len(found), len(found) + 1)
        found.append(int(dataset.get_data(len(found), "data")[0, 0]))
    assert dataset.num_seqs == len(found)
    return found


def test_an_epoch_is_one_pass_by_default():
    dataset = stream(Counting())
    dataset.init_seq_order(1)
    with pytest.raises(NotImplementedError, match="not known before the end"):
        dataset.num_seqs  # noqa: B018
    assert numbers(dataset, 1) == numbers(dataset, 2) == list(range(10))


@pytest.mark.parametrize("source", [Counting, Skipping])
def test_epochs_by_number_of_sequences_go_on(source):
    """Over and over; a new process that begins with any epoch gets the same."""
    made = source()
    dataset = stream(made, seqs_per_epoch=4)
    found = [numbers(dataset, epoch) for epoch in range(1, 8)]
    assert [number for epoch in found for number in epoch] == [i % TOTAL for i in range(28)]
    assert made.read == 28  # nothing twice
    for epoch in (1, 3, 6, 7):
        assert numbers(stream(source(), seqs_per_epoch=4), epoch) == found[epoch - 1]


def test_an_epoch_that_ended_early_does_not_change_the_next():
    dataset = stream(Counting(), seqs_per_epoch=4)
    dataset.init_seq_order(1)
    dataset.load_seqs(0, 2)
    assert numbers(dataset, 2) == [4, 5, 6, 7]
    assert numbers(dataset, 2) == [4, 5, 6, 7] and numbers(dataset, 1) == [0, 1, 2, 3]


def test_shards_have_the_epoch_together():
    parts = [stream(Counting(), seqs_per_epoch=7, _num_shards=2, _shard_index=i) for i in (0, 1)]
    assert [numbers(part, 2) for part in parts] == [[7, 9, 1, 3], [8, 0, 2]]


def test_windows():
    """Shuffling keeps what there is, by the epoch's seed; sorting goes up and down in turn."""
    assert list(shuffled(range(5), 1, np.random.RandomState(1))) == [0, 1, 2, 3, 4]
    found = list(shuffled(range(1000), 50, np.random.RandomState(1)))
    assert sorted(found) == list(range(1000)) != found
    assert min(found.index(i) - i for i in range(1000)) >= -49  # an item comes at most a window too early
    assert list(sorted_in_windows([3, 1, 2, 6, 5, 4, 9, 7], 3, lambda x: x)) == [1, 2, 3, 6, 5, 4, 7, 9]
    dataset = stream(Counting(), shuffle_window=4, sort_window=5)
    first, second = numbers(dataset, 1), numbers(dataset, 2)
    assert first != second and sorted(first) == sorted(second) == list(range(10)) and numbers(dataset, 1) == first
    lengths = [number % 4 for number in first]
    assert lengths == sorted(lengths[:5]) + sorted(lengths[5:], reverse=True)


def test_batches_of_a_window_have_little_padding():
    def padded(**options):
        dataset = stream(Counting(), seqs_per_epoch=400, **options)
        dataset.init_seq_order(1)
        loader = Loader(dataset, BatchingOptions(max_seqs=4, batch_size=1000), keys=["data"], workers=0)
        return sum(batch.data["data"].shape[1] * 4 for batch in loader)

    frames = sum(number % 4 + 1 for number in range(10)) * 40
    assert padded(sort_window=40) < 1.1 * frames < 1.3 * frames < padded()


def test_a_stream_of_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"id": f"s{i}", "data": [[float(i)]] * (i % 3 + 1)} for i in range(6)]
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "x.parquet"))
    source = {"path": "parquet", "data_files": str(tmp_path / "x.parquet"), "split": "train"}
    dataset = stream(source, seqs_per_epoch=4, seq_tag_key="id")
    assert [numbers(dataset, epoch) for epoch in (1, 2)] == [[0, 1, 2, 3], [4, 5, 0, 1]]
    assert numbers(stream(source, seqs_per_epoch=4), 2) == [4, 5, 0, 1] and dataset.get_tag(3) == "s1"


def test_torch_and_functions_as_sources():
    import torch

    class Own(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([{"data": torch.ones(2, 1)}])

    assert numbers(stream(Own()), 1) == [1]
    assert numbers(stream(lambda: ({"data": [[i]]} for i in range(3))), 1) == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"source": 5}, "toy: source: must be an iterable"),
        ({"source": (i for i in range(3))}, "toy: source: must be a function that returns a generator"),
        ({"source": []}, "toy: no sequences"),
        ({"source": ["a"]}, 'toy: sequence "seq-0": must be a dict, but is str instead'),
        ({"source": [{"dat": 1}]}, 'toy: sequence "seq-0": data: no such entry; known: dat; did you mean "dat"?'),
        ({"source": [{"data": [1]}]}, "must have 2 axes as in data_format"),
        ({"partition_epoch": 2}, "toy: partition_epoch: the length is not known; use seqs_per_epoch instead"),
        ({"seqs_per_epoch": 0}, "toy: seqs_per_epoch: must be at least 1, but is 0 instead"),
        ({"sort_window": -1}, "toy: sort_window: must be at least 0, but is -1 instead"),
        ({"length_key": "dat"}, 'toy: length_key: unknown key "dat"; did you mean "data"?'),
        ({"seq_ordering": "random"}, 'toy: seq_ordering: must be "default" where the length is not known'),
    ],
)
def test_wrong_use(options, text):
    with pytest.raises(ConfigError) as caught:
        numbers(stream(**{"source": Counting(), "seqs_per_epoch": 3, **options}), 1)
    assert text in str(caught.value)


# --- tar files --------------------------------------------------------------------------------------------------------


def tar_dataset(files, **options):
    dataset = {"class": "TarDataset", "files": files, "audio": {"features": "raw"}, **options}
    return init_dataset({"targets": {"class": "Utf8ByteTargets"}, **dataset}, name="toy")


def tags(dataset, epoch):
    dataset.init_seq_order(epoch)
    return [dataset.get_tag(i) for i in range(1000) if dataset.is_less_than_num_seqs(i)]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tar_files(tmp_path, mode):
    """One after the other; compressed ones, too."""
    suffix = ".gz" * (mode != "w")
    for i, count in enumerate((3, 2)):
        tar(tmp_path / f"{i:02d}.tar{suffix}", count, mode)
    dataset = tar_dataset(f"{tmp_path}/{{00..01}}.tar{suffix}", seqs_per_epoch=4)
    assert tags(dataset, 1) == ["part/s0", "part/s1", "part/s2", "part/s0"]
    dataset.load_seqs(1, 2)
    assert dataset.get_data(1, "classes").tolist() == [97, 98] and len(dataset.get_data(1, "data")) == 800
    assert str(dataset.get_data(1, "raw")) == "ab" and dataset.get_data_dtype("orth") == "uint8"
    assert tags(tar_dataset(str(tmp_path / f"*.tar{suffix}"), seqs_per_epoch=4), 2) == tags(dataset, 2)
    copy = pickle.loads(pickle.dumps(dataset))
    assert tags(copy, 3) == tags(dataset, 3)


def test_a_shard_does_not_read_what_others_have(tmp_path, monkeypatch):
    import tarfile

    read, path = [], tar(tmp_path / "a.tar", 8)
    extract = tarfile.TarFile.extractfile
    monkeypatch.setattr(
        tarfile.TarFile, "extractfile", lambda self, member: read.append(member.name) or extract(self, member)
    )
    assert tags(tar_dataset(path, _num_shards=4, _shard_index=1), 1) == ["part/s1", "part/s5"]
    assert read == ["part/s1.wav", "part/s1.txt", "part/s5.wav", "part/s5.txt"]


def test_names():
    assert list(expanded("a{08..10}-{0..1}")) == [f"a{i}-{j}" for i in ("08", "09", "10") for j in (0, 1)]
    assert stem("a.b/c.seg.ogg") == "a.b/c" and extension("a.b/c.seg.OGG") == "seg.ogg" and stem("x") == "x"


def test_members_are_not_kept(tmp_path):
    import tarfile

    with tarfile.open(tar(tmp_path / "a.tar", 20)) as file:
        sizes = [len(file.members) for _ in groups(file)]
    assert max(sizes) <= 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"files": "{folder}/b.tar"}, 'toy: files: file {folder}/b.tar does not exist; did you mean "a.tar"?'),
        ({"files": []}, "toy: files: must name at least one tar file"),
        ({"files": "{folder}/broken.tar"}, "toy: {folder}/broken.tar: cannot be read as a tar file"),
        ({"files": "{folder}/cut.tar"}, "toy: {folder}/cut.tar: cannot be read as a tar file"),
    ],
)
def test_wrong_tar_files(tmp_path, options, text):
    whole = Path(tar(tmp_path / "a.tar")).read_bytes()
    (tmp_path / "broken.tar").write_bytes(b"no archive")
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 3])
    files = options["files"]
    with pytest.raises((ConfigError, DataError)) as caught:
        tags(tar_dataset(files.replace("{folder}", str(tmp_path)) if files else files), 1)
    assert text.replace("{folder}", str(tmp_path)) in str(caught.value)
