#!/usr/bin/env python3
"""The batches that a config makes, and how much of them is padding; see `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.analyze_batches import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
