"""The tool that shows datasets, and its statistics."""

import ast
import gzip
import sys

import numpy as np
import pytest

from returnn_lite.datasets import init_dataset
from returnn_lite.tools import dump_outputs
from returnn_lite.tools.common import Progress
from returnn_lite.tools.data_statistics import Statistics
from returnn_lite.tools.dump_dataset import main

FRAMES = (3, 1, 4)
CONFIG = """#!rnn.py
import numpy
def _seqs():
    rng = numpy.random.RandomState(1)
    classes = numpy.arange(4, dtype="int32")
    return [
        {"data": rng.randn(n, 2).astype("float32"), "classes": classes[:n], "raw": numpy.array(f"t {n}")}
        for n in (3, 1, 4)
    ]
train = {"class": "StaticDataset", "data": _seqs(), "output_dim": {"classes": (5, 1)}}
dev = train
small = {**train, "data": train["data"][:1]}
max_seq_length = {"classes": 3}
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.config").write_text(CONFIG)
    return str(tmp_path / "my.config")


def dump(capsys, *args):
    """(stdout, stderr) of a run that succeeds."""
    assert main([str(arg) for arg in args]) == 0
    return capsys.readouterr()


def frames(config, only=FRAMES):
    names = {}
    exec(CONFIG, names)
    return np.concatenate([seq["data"] for seq in names["train"]["data"] if len(seq["data"]) in only])


def test_stdout(config, capsys):
    out, err = dump(capsys, config, "--endseq", 1)
    assert "seq 0 tag: seq-0\n" in out and "seq 0 'classes': [0 1 2]\n" in out and "seq 0 'raw': 't 3'" in out
    assert "seq 1 'classes': [0]" in out and "seq 2" not in out
    assert err == (
        "seq-length 'classes' of train: 2 seqs, mean 2, std dev 1, min/max 1/3\n"
        "seq-length 'data' of train: 2 seqs, mean 2, std dev 1, min/max 1/3\n"
        "seq-length 'raw' of train: 2 seqs, mean 1, std dev 0, min/max 1/1\n"
    )


def test_ways_to_say_which_data(config, capsys):
    assert dump(capsys, config, "--get_num_seqs").out == "3\n"
    assert dump(capsys, config, "--dataset", "small", "--get_num_seqs").out == "1\n"
    assert dump(capsys, config, "--dataset", "dict(small, seq_ordering='reverse')", "--get_num_seqs").out == "1\n"
    by_length = dump(capsys, config, "--dataset", "dev", "--type", "print_tag").out  # dev is sorted
    assert by_length == "seq-1\nseq-0\nseq-2\n"
    assert dump(capsys, config, "--seqtags", "seq-2,seq-0", "--type", "print_tag").out == "seq-2\nseq-0\n"
    assert dump(capsys, config, "--startseq", 1, "--endseq", 1, "--type", "print_shape").out == (
        "seq-1: data (1, 2), classes (1,), raw ()\n"
    )
    assert dump(capsys, "{'class': 'Task12AXDataset', 'num_seqs': 7}", "--get_num_seqs").out == "7\n"


def test_labels_bytes_and_limits(tmp_path, capsys):
    (tmp_path / "texts.py").write_text("{'s': 'a b a'}")
    text = {"class": "TextDictDataset", "filename": str(tmp_path / "texts.py"), "item_format": "single"}
    vocab = {"labels": ["a", "b"], "unknown_label": None}
    out = dump(capsys, {**text, "vocab": vocab}).out
    assert "seq 0 'data': [0 1 0] a b a\n" in out
    assert "a b …" in dump(capsys, {**text, "vocab": vocab}, "--stdout_limit", 2).out
    raw = {**text, "vocab": {"class": "Utf8ByteTargets"}}
    assert "seq 0 'data': 'a b a'\n" in dump(capsys, raw, "--stdout_as_bytes").out


def test_numpy_text_is_a_dataset_again(config, tmp_path, capsys):
    dump(capsys, config, "--type", "numpy", "--dump_prefix", tmp_path / "np.")
    options = {"class": "NumpyDumpDataset", "prefix": str(tmp_path / "np."), "num_inputs": 2, "num_outputs": 5}
    dataset = init_dataset(options)
    dataset.init_seq_order(1)
    assert dataset.num_seqs == 3
    found = np.concatenate([dataset.get_data(i, "data") for i in range(3)])
    np.testing.assert_allclose(found, frames(config), rtol=1e-6)
    assert dataset.get_data(2, "classes").tolist() == [0, 1, 2, 3]


def test_lists_are_usable_for_orders(config, tmp_path, capsys):
    dump(capsys, config, "--type", "dump_seq_len", "--key", "classes", "--dump_prefix", tmp_path / "x.")
    dump(
        capsys, config, "--type", "dump_tag", "--endseq", 1, "--dump_prefix", tmp_path / "x.", "--dump_postfix", ".txt"
    )
    lens = tmp_path / "x.seq-lens.txt.gz"
    assert ast.literal_eval(gzip.open(lens, "rt").read()) == {"seq-0": 3, "seq-1": 1, "seq-2": 4}
    order = f"dict(train, seq_ordering='sorted_reverse', seq_order_seq_lens_file='{lens}')"
    tags = dump(capsys, config, "--dataset", order, "--type", "print_tag").out
    assert tags == "seq-2\nseq-0\nseq-1\n"
    only = f"dict(train, seq_list_filter_file='{tmp_path}/x.seq-tags.txt')"
    assert dump(capsys, config, "--dataset", only, "--get_num_seqs").out == "2\n"


def test_statistics_as_the_workflow_asks_for_them(config, tmp_path, capsys):
    args = ["--endseq", "-1", "--type", "null", "--stats", "--dump_stats", "stats", "--key", "data"]
    assert "statistics of 'data': 3 seqs, 8 frames" in dump(capsys, config, *args).out
    all_frames = frames(config)
    for name in ("mean", "std", "min", "max"):
        written = np.loadtxt(tmp_path / f"stats.{'std_dev' if name == 'std' else name}.txt")
        np.testing.assert_allclose(written, getattr(all_frames.astype("float64"), name)(0), rtol=1e-12)
    info = ast.literal_eval((tmp_path / "stats.info.txt").read_text())
    assert info == {"num_seqs": 3, "total_data_len": 8}
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "my.config", "stats.info.txt", "stats.max.txt", "stats.mean.txt", "stats.min.txt", "stats.std_dev.txt",
    ]  # fmt: skip


@pytest.mark.parametrize("limits, kept", [
    (["--max_seq_length", "config"], (3, 1)),
    (["--max_seq_length", "3"], (3, 1)),
    (["--min_seq_length", "{'data': 2}"], (3, 4)),
])  # fmt: skip
def test_limits_leave_sequences_out_of_the_statistics(config, tmp_path, capsys, limits, kept):
    out = dump(capsys, config, "--dump_stats", tmp_path / "s", "--type", "print_tag", *limits).out
    assert out.startswith("seq-0\nseq-1\nseq-2\n") and f"2 seqs, {sum(kept)} frames" in out
    np.testing.assert_allclose(np.loadtxt(tmp_path / "s.mean.txt"), frames(config, kept).mean(0), rtol=1e-6)


def test_statistics_in_pieces_are_those_of_the_whole():
    data = np.random.RandomState(1).randn(500, 3) * [1, 1e-3, 1e3] + [0, 1e6, -5]
    stats = Statistics()
    for part in np.split(data, [0, 1, 7, 7, 200]):
        stats.add(part)
    np.testing.assert_allclose(stats.mean, data.mean(0), rtol=1e-12)
    np.testing.assert_allclose(stats.std_dev, data.std(0), rtol=1e-8)
    assert stats.count == 500 and (stats.min == data.min(0)).all()


def test_plot(config, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    dump(capsys, config, "--type", "plot", "--endseq", 0, "--dump_prefix", tmp_path / "p.")
    assert (tmp_path / "p.0.png").read_bytes().startswith(b"\x89PNG")


def test_prompt(config, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(dump_outputs.code, "interact", lambda banner, local, exitmsg: seen.append(local["data"]))
    dump(capsys, config, "--type", "interactive")
    assert [seq["raw"].item() for seq in seen] == ["t 3", "t 1", "t 4"]


@pytest.mark.parametrize("args, message", [
    (["--dataset", "dve"], 'the config has no dataset `dve`; did you mean "dev"?'),
    (["--dataset", "1 +"], "cannot be evaluated"),
    (["--key", "clases"], 'unknown key "clases"; did you mean "classes"?'),
    (["--key", "raw", "--stats"], '"raw" are texts, which have no statistics'),
    (["--max_seq_length", "long"], "--max_seq_length: "),
    (["--seqtags", "seq-9"], 'no sequence has the tag "seq-9"'),
    (["--dump_stats", "s", "--min_seq_length", "9"], "no frames to write statistics of"),
    (["--type", "numpy", "--dump_prefix", "no/such/folder/x"], "no/such/folder"),
])  # fmt: skip
def test_errors(config, capsys, args, message, tmp_path):
    assert main([config, *args]) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my.config"]  # nothing is written


def test_what_goes_wrong_in_a_sequence_is_said_with_its_tag(config, capsys):
    with open(config, "a") as file:
        file.write(
            "def _wider(tensors, seq_idx, **_):\n"
            "    data = tensors['data']\n"
            "    data.raw_tensor = data.raw_tensor.repeat(1 + seq_idx, 1)\n"
            "    return tensors\n"
            "wider = {'class': 'PostprocessingDataset', 'dataset': train, 'map_seq': _wider}\n"
            "broken = {**wider, 'map_seq': lambda tensors, seq_idx, **_: tensors['x'] if seq_idx else tensors}\n"
        )
    assert main([config, "--dataset", "wider", "--stats", "--type", "null"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('wider: sequence "seq-1": ')
    assert line.endswith("axis 'feature:data'(2) of tensor 'data' cannot have the size 4 in data of shape (1, 4)")
    with open(config, "a") as file:
        file.write("train['data'][2]['data'][1] = numpy.nan\n")
    assert main([config, "--dump_stats", "s", "--type", "null"]) == 1
    text = 'train: sequence "seq-2": "data" must be finite numbers, but some are NaN or infinite'
    assert capsys.readouterr().err.splitlines() == [text]
    assert main([config, "--dataset", "broken", "--type", "null"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('broken: sequence "seq-1": ') and "unknown tensor 'x'; known: ['classes', " in line


def test_progress_is_for_terminals(monkeypatch, capsys):
    Progress("sequences").step(0.5)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = Progress("sequences")
    progress.step(0.5)
    progress.step(0.6)  # too soon
    progress.end()
    assert capsys.readouterr().err == "\r\033[K1 sequences, 50%, 0 s\r\033[K"
