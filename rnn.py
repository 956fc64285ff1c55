#!/usr/bin/env python3
"""Train, evaluate and search with one config file: `./rnn.py config [options] [++key value]…`; see `--help`."""

from returnn_lite.cli import run

# The guard keeps spawned data workers, which import this file again, from starting a second run.
if __name__ == "__main__":
    run()
