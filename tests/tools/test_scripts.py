"""All scripts in `tools`: that they start anywhere, without an environment, and end as programs must."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from returnn_lite.engine.checkpoints.checkpoint import save_model
from tests.engine.helpers import ROOT

SCRIPTS = sorted(path.name for path in (ROOT / "tools").glob("*.py"))


def run(script, *args, cwd=None):
    """The script as a process without environment variables."""
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / script), *args],
        capture_output=True, text=True, env={}, cwd=cwd, timeout=600,
    )  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_wrong_options(script, tmp_path):
    done = run(script, "--help", cwd=tmp_path)
    assert done.returncode == 0 and f"usage: {script}" in done.stdout and not done.stderr
    if script == SCRIPTS[0]:
        assert run(script, "--no_such_option").returncode == 2


def test_an_error_is_one_line_and_no_progress_is_written_to_files(tmp_path):
    done = run("dump-dataset.py", "{'class': 'Task12AXDataset', 'num_seqz': 3}")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and 'did you mean "num_seqs"' in done.stderr
    done = run("dump-dataset.py", "{'class': 'Task12AXDataset', 'num_seqs': 300}", "--endseq", "-1", "--type", "null")
    assert done.returncode == 0 and not done.stdout and "\r" not in done.stderr


def test_a_reader_that_has_seen_enough(tmp_path):
    tool = [sys.executable, str(ROOT / "tools" / "dump-dataset.py"), "{'class': 'Task12AXDataset', 'num_seqs': 300}"]
    process = subprocess.Popen([*tool, "--endseq", "-1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "seq 0 tag: seq-0\n"
    process.stdout.close()
    assert process.wait(60) == 1 and not process.stderr.read()
    process.stderr.close()


def test_as_the_workflow_calls_them(tmp_path):
    """The exact forms, by the links in `compat_root`, with an empty environment."""
    (tmp_path / "returnn.config").write_text(
        '#!rnn.py\ntrain = {"class": "DummyDataset", "input_dim": 3, "output_dim": 4, "num_seqs": 2}\n'
    )
    (tmp_path / "hyps").write_text("{'a': [(-1.0, 'x y'), (-0.5, 'z')]}")
    (tmp_path / "refs").write_text("{'a': 'x z'}")
    for epoch in (1, 2):
        save_model(str(tmp_path / f"m.00{epoch}"), {"w": torch.ones(2) * epoch}, info={"epoch": epoch, "step": 1})
    for command in (
        "hdf_dump.py returnn.config out.hdf",
        "dump-dataset.py returnn.config --endseq -1 --type null --stats --dump_stats stats --key data",
        "calculate-word-error-rate.py --expect_full --hyps hyps --refs refs --out wer",
        "torch_avg_checkpoints.py --checkpoints m.001.pt m.002.pt --output_path avg.pt",
    ):
        script, *args = command.split()
        done = run(f"../compat_root/tools/{script}", *args, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.loadtxt(tmp_path / "stats.mean.txt"), [-0.3, -0.2, -0.1], rtol=1e-6)
    assert np.loadtxt(tmp_path / "stats.std_dev.txt").shape == (3,)
    assert (tmp_path / "wer").read_text() == "50.00\n" and (tmp_path / "out.hdf").exists()
    assert torch.load(tmp_path / "avg.pt", weights_only=True)["model"]["w"].tolist() == [1.5, 1.5]
