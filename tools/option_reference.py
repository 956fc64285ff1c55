#!/usr/bin/env python3
"""Writes the reference of all global options and a JSON schema: `option_reference.py PAGE.md SCHEMA.json`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from returnn_lite.tools.option_reference import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
