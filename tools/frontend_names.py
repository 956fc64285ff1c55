#!/usr/bin/env python3
"""Renews the tables in docs/frontend.md: `frontend_names.py docs/frontend.md` (without a page: prints them)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.frontend_names import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
