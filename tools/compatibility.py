#!/usr/bin/env python3
"""Writes what is supported and refused, in Markdown: `compatibility.py COUNTS [FILE]` (default: standard output)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.compatibility import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
