#!/usr/bin/env python3
"""The lengths of the segments in a Bliss corpus; see `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.bliss import seq_lens_main  # noqa: E402

if __name__ == "__main__":
    sys.exit(seq_lens_main(sys.argv[1:]))
