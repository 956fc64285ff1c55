#!/usr/bin/env python3
"""Cuts the audio of a Bliss corpus into a zip file for OggZipDataset; see `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.bliss_to_ogg_zip import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
