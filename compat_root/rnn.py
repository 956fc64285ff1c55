#!/usr/bin/env python3
"""`rnn.py` for programs that start trainings: the same, and it writes the model files that these look for."""

import sys
from pathlib import Path

# In place of this folder: `returnn` is for scripts; configs find these names, and more, by themselves.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from returnn_lite.cli import run  # noqa: E402


def write_both_formats(config):
    """Where a config says `use_tensorflow`, later jobs look for TensorFlow's checkpoint files."""
    if config.is_true("use_tensorflow") and not config.has("checkpoint_format"):
        config.set("checkpoint_format", "both")


# The guard keeps spawned data workers, which import this file again, from starting a second run.
if __name__ == "__main__":
    run(write_both_formats)
