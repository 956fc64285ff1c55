#!/usr/bin/env python3
"""Finds the best scales for combining scores of hypotheses; see `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.tune_scales import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
