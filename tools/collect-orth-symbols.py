#!/usr/bin/env python3
"""The characters of texts, and a vocabulary of them; see `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.collect_symbols import symbols_main  # noqa: E402

if __name__ == "__main__":
    sys.exit(symbols_main(sys.argv[1:]))
