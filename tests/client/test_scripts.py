"""Scripts of a client: the tools it calls, and its own with `sys.path.append(ROOT)`."""

import gzip
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from returnn_lite.compat.tf_checkpoint import read_checkpoint, write_checkpoint
from tests.client.client import CLIENT_ROOT
from tests.engine.helpers import ROOT

DUMMY = {"class": "DummyDataset", "input_dim": 3, "output_dim": 4, "num_seqs": 2}


def run(*command, folder, environment=None):
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=600, env=environment)
    return done


def tool(name, *arguments, folder, environment=None):
    """A tool's output; it must end with 0."""
    command = (sys.executable, CLIENT_ROOT / "tools" / name, *arguments)
    done = run(*command, folder=folder, environment=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def script(text, folder):
    """A script that puts the root on its path, away from this checkout and without what is installed."""
    path = folder / "script.py"
    path.write_text(f"import sys\nsys.path.append({str(CLIENT_ROOT)!r})\n{text}")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return run(sys.executable, path, folder=folder, environment={**environment, "OMP_NUM_THREADS": "1"})


# --- the importable package -----------------------------------------------------------------------------------------


def test_it_is_not_importable_by_itself(tmp_path):
    for folder in (tmp_path, ROOT):
        done = run(sys.executable, "-c", "import returnn", folder=folder)
        assert done.returncode == 1 and "No module named 'returnn'" in done.stderr


def test_writing_hdf(tmp_path):
    done = script("""
from pathlib import Path
import numpy
from returnn.datasets.hdf import SimpleHDFWriter
frames = SimpleHDFWriter(filename=Path("frames.hdf"), dim=3, ndim=2)
classes = SimpleHDFWriter(filename="classes.hdf", dim=7, ndim=1)
raw = SimpleHDFWriter("raw.hdf", dim=1)
for i in (2, 1):
    values = numpy.full((1, i, 3), i, dtype="float32")
    frames.insert_batch(inputs=values, seq_len=[i], seq_tag=[f"seq-{i}"])
    classes.insert_batch(values[:, :, 0].astype("int32"), seq_len=[i], seq_tag=[f"seq-{i}"])
    raw.insert_batch(values[:, :, :1], [i], [f"seq-{i}"])
for writer in (frames, classes, raw):
    writer.close()
print(frames.filename)
""", tmp_path)  # fmt: skip
    assert done.stdout == "frames.hdf\n", done.stderr
    expected = {"frames": ((3, 3), "float32", 3), "classes": ((3,), "int32", 7), "raw": ((3, 1), "float32", 1)}
    for name, (shape, dtype, dim) in expected.items():
        with h5py.File(tmp_path / f"{name}.hdf") as file:
            assert (
                file["inputs"].shape == shape and file["inputs"].dtype == dtype and file.attrs["inputPattSize"] == dim
            )
            assert file["seqLengths"][:, 0].tolist() == [2, 1] and list(file["seqTags"].asstr()) == ["seq-2", "seq-1"]
            np.testing.assert_array_equal(file["inputs"][()].reshape(3, -1)[:, 0], [2, 2, 1])


def test_lengths_of_a_dataset(tmp_path):
    done = script(f"""
from returnn.config import Config, get_global_config, set_global_config
from returnn.datasets import init_dataset
from returnn.log import log
from returnn.tensor import Dim, Tensor, batch_dim
config = Config({{"log_verbosity": 4, "train": {DUMMY}}})
set_global_config(config)
log.init_by_config(config)
print("one", "line", file=log.v4)
print("too much", file=log.v5)
dataset = init_dataset(get_global_config().typed_value("train"), extra_kwargs={{"name": "train"}})
dataset.init_seq_order(epoch=1)
index = 0
while dataset.is_less_than_num_seqs(index):
    dataset.load_seqs(index, index + 1)
    print(dataset.get_tag(index), dataset.get_seq_length(index)["data"])
    index += 1
assert isinstance(Dim(3, name="three"), Dim) and batch_dim is not None and Tensor
""", tmp_path)  # fmt: skip
    assert done.stdout == "one line\nseq-0 2\nseq-1 2\n", done.stderr


def test_configs_find_more_than_the_package(tmp_path):
    """The root on a config's path does not hide what configs can import besides."""
    config = tmp_path / "config.py"
    imports = "from returnn.tf.util.basic import where_bc\nfrom returnn.datasets.hdf import SimpleHDFWriter"
    config.write_text(f"import sys\nsys.path.insert(0, {str(CLIENT_ROOT)!r})\n{imports}\ntask = 'nop'\n")
    done = run(sys.executable, CLIENT_ROOT / "rnn.py", config, folder=tmp_path)
    assert done.returncode == 0, done.stderr


# --- tools ----------------------------------------------------------------------------------------------------------


def test_hdf_dump(tmp_path):
    """A dict as text and a config give the same file."""
    (tmp_path / "a.config").write_text(f"#!rnn.py\ntrain = {DUMMY!r}\n")
    forms = {"dict": repr(DUMMY), "config": tmp_path / "a.config"}
    for name, form in forms.items():
        tool("hdf_dump.py", form, tmp_path / f"{name}.hdf", folder=tmp_path)
    tool("hdf_dump.py", repr(DUMMY), "one.hdf", "--start_seq", 1, "--end_seq", 2, "--epoch", 1, folder=tmp_path)
    assert len({(tmp_path / f"{name}.hdf").stat().st_size for name in forms}) == 1
    with h5py.File(tmp_path / "dict.hdf") as whole, h5py.File(tmp_path / "one.hdf") as one:
        assert whole["seqLengths"].shape == (2, 2) and one["seqLengths"].shape == (1, 2)


def test_averages_with_an_empty_environment(tmp_path):
    for epoch in (1, 2):
        write_checkpoint(str(tmp_path / f"epoch.00{epoch}"), {"w": np.full((2,), float(epoch), "float32")})
    options = ["--checkpoints", "001,002", "--prefix", f"{tmp_path}/epoch.", "--output_path", f"{tmp_path}/epoch.002"]
    tool("tf_avg_checkpoints.py", *options, folder=tmp_path, environment={"CUDA_VISIBLE_DEVICES": ""})
    assert read_checkpoint(str(tmp_path / "epoch.002"))["w"].tolist() == [1.5, 1.5]


def test_averages_of_torch_files(tmp_path):
    for epoch in (1, 2):
        torch.save({"model": {"w": torch.full((2,), float(epoch))}, "epoch": epoch}, tmp_path / f"epoch.00{epoch}.pt")
    options = ["--checkpoints", "epoch.001.pt", "epoch.002.pt", "--output_path", tmp_path / "average.pt"]
    tool("torch_avg_checkpoints.py", *options, folder=tmp_path)
    assert torch.load(tmp_path / "average.pt", weights_only=True)["model"]["w"].tolist() == [1.5, 1.5]


def test_feature_statistics(tmp_path):
    (tmp_path / "returnn.config").write_text(f"#!rnn.py\ntrain = {DUMMY!r}\n")
    options = "--endseq -1 --type null --stats --dump_stats stats --key data"
    tool("dump-dataset.py", "returnn.config", *options.split(), folder=tmp_path)
    tool("hdf_dump.py", "returnn.config", "all.hdf", folder=tmp_path)
    with h5py.File(tmp_path / "all.hdf") as file:
        frames = file["inputs"][()]
    for name, expected in (("mean", frames.mean(0)), ("std_dev", frames.std(0))):
        text = (tmp_path / f"stats.{name}.txt").read_text()
        np.testing.assert_allclose([float(line) for line in text.splitlines()], expected, rtol=1e-5)


def test_word_error_rate(tmp_path):
    """Of several hypotheses the first counts, whatever its score; files may be compressed."""
    refs = {"a": "x y z", "b": "u v"}
    hyps = {"a": [(-3.0, "x y"), (-1.0, "x y z")], "b": [(-1.0, "u v"), (-2.0, "")]}
    (tmp_path / "refs.py").write_text(repr(refs))
    with gzip.open(tmp_path / "hyps.py.gz", "wt") as file:
        file.write(repr(hyps))
    options = "--expect_full --hyps hyps.py.gz --refs refs.py --out wer"
    tool("calculate-word-error-rate.py", *options.split(), folder=tmp_path)
    assert (tmp_path / "wer").read_text().strip() == "20.00"


@pytest.mark.parametrize("name", ["compile_tf_graph.py", "compile_native_op.py", "torch_export_to_onnx.py"])
def test_tools_that_cannot_be(tmp_path, name):
    done = run(sys.executable, CLIENT_ROOT / "tools" / name, "--anything", folder=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith(name) and done.stderr.count("\n") == 1
