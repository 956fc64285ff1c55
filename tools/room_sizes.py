#!/usr/bin/env python3
"""Renews the table of rooms in ARCHITECTURE.md: `room_sizes.py ARCHITECTURE.md` (without a page: prints it)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.room_sizes import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
