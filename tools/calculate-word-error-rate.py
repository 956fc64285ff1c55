#!/usr/bin/env python3
"""The word error rate of texts against references; see `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.word_error_rate import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
