#!/usr/bin/env python3
"""Averages the parameters of several epochs, with the options that other programs use; see `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.avg_checkpoints import torch_main  # noqa: E402

if __name__ == "__main__":
    sys.exit(torch_main(sys.argv[1:]))
