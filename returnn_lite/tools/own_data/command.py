"""`returnn-lite data audio …`, `returnn-lite data text …`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from returnn_lite.tools.common import tool
from returnn_lite.tools.own_data import audio, text

KINDS = {"audio": audio.run, "text": text.run}


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(
        prog="data.py",
        description="Makes data sets of own files, with a vocabulary and the lines for a config; docs/own_data.md goes"
        " from files to a decoded test set.",
    )
    parser.add_argument("kind", choices=KINDS, help="audio files with transcripts, or texts; `data audio --help`")
    KINDS[parser.parse_args(argv[:1]).kind](argv[1:])
