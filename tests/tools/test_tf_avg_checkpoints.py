"""The tool that averages TensorFlow's files, called as other programs do."""

import os
import subprocess
import sys

import numpy

from returnn_lite.compat.tf_checkpoint import read_checkpoint, write_checkpoint
from tests.engine.helpers import ROOT


def test_average(tmp_path):
    """The result may take the place of one of the files; it has all that belongs to a checkpoint."""
    for epoch in (1, 2):
        arrays = {"w": numpy.full((2,), float(epoch), "float32"), "global_step": numpy.array(10 * epoch, "int64")}
        write_checkpoint(str(tmp_path / f"epoch.00{epoch}"), arrays)
    tool = [sys.executable, str(ROOT / "tools" / "tf_avg_checkpoints.py")]
    options = ["--checkpoints", "001,002", "--prefix", f"{tmp_path}/epoch.", "--output_path", f"{tmp_path}/epoch.002"]
    subprocess.run(tool + options, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    got = read_checkpoint(str(tmp_path / "epoch.002"))
    assert got["w"].tolist() == [1.5, 1.5] and got["global_step"] == 20
    assert (tmp_path / "epoch.002.meta").exists()
    wrong = subprocess.run([*tool, *options[:1], "003", *options[2:]], capture_output=True, text=True)
    assert wrong.returncode == 1 and "epoch.003.index" in wrong.stderr
