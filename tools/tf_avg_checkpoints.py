#!/usr/bin/env python3
"""Averages files of TensorFlow's format; see `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.avg_checkpoints import tf_main  # noqa: E402

if __name__ == "__main__":
    sys.exit(tf_main(sys.argv[1:]))
