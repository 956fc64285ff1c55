"""The commands of docs/own_data.md, in their order, on small files."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.engine.helpers import ROOT
from tests.tools.own_files import write_speech, write_texts

PAGE = (ROOT / "docs" / "own_data.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
# Small and short: the last value of an option on the command line counts.
SMALL = {
    "": "++num_epochs 1 ++num_layers 1 ++device cpu",
    "lstm_dim": "++lstm_dim 8",
    "model_dim": "++model_dim 8 ++num_heads 2",
}


@pytest.mark.slow
def test_from_files_to_results(tmp_path):
    pytest.importorskip("sacrebleu")
    write_speech(tmp_path)
    write_texts(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    assert len(COMMANDS) >= 10
    shown = []
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        assert program == "returnn-lite"
        if arguments[0].endswith(".config"):
            arguments += [word for part, more in SMALL.items() if part in command for word in more.split()]
        done = subprocess.run(
            [sys.executable, str(ROOT / "rnn.py"), *arguments], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr}"
        shown.append(done.stdout)
    assert any(text.startswith("WER ") for text in shown) and any(text.startswith("BLEU ") for text in shown)
