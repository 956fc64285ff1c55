#!/usr/bin/env python3
"""The epoch with the lowest score in a learning rate file; see `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.best_epoch import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
