#!/usr/bin/env python3
"""Shows a dataset's sequences, and statistics of them; see `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.dump_dataset import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
