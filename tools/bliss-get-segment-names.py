#!/usr/bin/env python3
"""The names of the segments in a Bliss corpus; see `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.bliss import segment_names_main  # noqa: E402

if __name__ == "__main__":
    sys.exit(segment_names_main(sys.argv[1:]))
