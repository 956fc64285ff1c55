#!/usr/bin/env python3
"""Writes pairs of sentences as an HDF file; see `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.translation_hdf import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
