"""A run goes on where nobody reads what it prints, and where its log cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from returnn_lite.log import FileTarget, Log

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import os
from returnn_lite import streams
streams.keep_going_without_readers()
for _ in range(10):
    print("x" * 100_000, flush=True)
    print("y" * 100_000, file=__import__("sys").stderr)
with open("file", "w") as file:
    print(file.fileno() > 2, "\\u00e4".encode() == b"\\xc3\\xa4", file=file)
print("z\\u4e2d", end="")
"""


def run(folder: Path, redirections: str, **environment: str) -> tuple[int, str]:
    """Runs the program in a shell; its exit code, and what arrives at the end of a pipe."""
    (folder / "p.py").write_text(PROGRAM)
    words = f'("{sys.executable}" p.py; echo $? > code) {redirections}'
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(["sh", "-c", words], cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert (folder / "file").read_text() == "True True\n"
    return int((folder / "code").read_text()), done.stdout + done.stderr


@pytest.mark.parametrize("redirections", [
    "2>/dev/null | true", "2>&1 >/dev/null | true", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full",
])  # fmt: skip
def test_nobody_reads(tmp_path, redirections):
    """Neither an exit code nor a traceback of it; files that are opened do not become the output."""
    assert run(tmp_path, redirections) == (0, "")


def test_characters_that_the_terminal_lacks(tmp_path):
    code, text = run(tmp_path, "2>/dev/null", PYTHONIOENCODING="ascii")
    assert code == 0 and text.endswith("z\\u4e2d")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_log_on_a_full_disk(tmp_path, capsys):
    os.symlink("/dev/full", tmp_path / "log")
    log = Log([FileTarget(str(tmp_path / "log"), 3, "default")])
    for _ in range(3):
        log.v1("message")
    log.close()
    assert capsys.readouterr().err.count("messages are lost: No space left on device") == 1
