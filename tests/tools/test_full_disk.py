"""Tools on a disk without space (a limit on the size of files does the same): one line, no file."""

import os
import subprocess
import sys

import pytest

TEXTS = """
import resource, sys
from returnn_lite.errors import ConfigError
from returnn_lite.tools.common import output_file

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with output_file(sys.argv[1]) as file:
        file.write("x" * 200_000)
except ConfigError as exc:
    sys.exit(str(exc))
"""

SOUNDS = """
import os, resource, sys
from returnn_lite.errors import ConfigError
from returnn_lite.tools import bliss_to_ogg_zip as tool
from types import SimpleNamespace

sound = sys.argv[1] + ".source"
with open(sound, "wb") as file:
    file.write(os.urandom(90_000))
tool.duration = lambda segment, path: 1.0
corpus = [SimpleNamespace(tag=f"s{i}", text="a", speaker="x", start=0.0, end=1.0) for i in range(3)]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    tool.write_zip(sys.argv[1], corpus, "corpus", lambda segment: sound)
except ConfigError as exc:
    os.remove(sound)
    sys.exit(str(exc))
"""


@pytest.mark.parametrize("name, code", [("out.txt", TEXTS), ("out.zip", SOUNDS)])
def test_one_line_and_no_file(tmp_path, name, code):
    path = tmp_path / name
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f"{path}: cannot be written: File too large")
    assert os.listdir(tmp_path) == []
