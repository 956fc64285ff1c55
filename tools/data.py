#!/usr/bin/env python3
"""Makes data sets of own audio files and texts; see `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.own_data.command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
