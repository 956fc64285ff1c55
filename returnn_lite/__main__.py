"""`python -m returnn_lite config …` is the same as `rnn.py config …`."""

from returnn_lite.cli import run

if __name__ == "__main__":
    run()
