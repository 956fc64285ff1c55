#!/usr/bin/env python3
"""Writes the reference of all losses, in Markdown: `loss_reference.py [FILE]` (default: standard output)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.class_help import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
