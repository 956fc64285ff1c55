#!/usr/bin/env python3
"""Counts the parameters of a model file or a config; see `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.count_params import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
