"""The short form of the fault suite: a few kills and failures at file operations of each kind of run."""

import subprocess
import sys
from pathlib import Path


def test_no_fault_loses_anything():
    words = [sys.executable, str(Path(__file__).with_name("run.py"))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
