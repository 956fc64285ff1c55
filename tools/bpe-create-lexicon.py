#!/usr/bin/env python3
"""Writes a lexicon: words and their BPE pieces; see `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.bpe_lexicon import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
