"""All scripts in `tools`: that they start anywhere, without an environment, and end as programs must."""

import subprocess
import sys

import pytest

from tests.engine.helpers import ROOT

SCRIPTS = sorted(path.name for path in (ROOT / "tools").glob("*.py"))


def run(script, *args, cwd=None):
    """The script as a process without environment variables."""
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / script), *args],
        capture_output=True, text=True, env={}, cwd=cwd, timeout=120,
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
