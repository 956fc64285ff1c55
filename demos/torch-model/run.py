"""Train a torch module that reads handwritten numbers, evaluate it on the test lines, print its errors.

    demos/torch-model/run.py             12 epochs, the data of demos/digits
    demos/torch-model/run.py --short     every step on very little data: runs, but recognises little

Every step is a call of rnn.py, which is printed. After an interruption, run it again: it resumes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from experiment import ROOT, run  # noqa: E402

CONFIG, MAKE_DATA = "demos/torch-model/ctc.config", "demos/digits/make_data.py"


def demo(short: bool) -> None:
    """All the steps."""
    data_dir = Path("demos/torch-model/data-short" if short else "demos/digits/data")
    exp_dir = Path("demos/torch-model/out") / ("ctc-short" if short else "ctc")
    epochs = 2 if short else 12
    if short:
        shutil.rmtree(ROOT / exp_dir, ignore_errors=True)
    if not (ROOT / data_dir / "test.hdf").exists():  # the last of the three
        run(MAKE_DATA, data_dir, *["--lines", 400, 40, 40] * short)
    options = ["++data_dir", data_dir, "++exp_dir", exp_dir, "++num_epochs", epochs]
    run("rnn.py", CONFIG, *options)
    run("rnn.py", CONFIG, *options, "++task", "forward", "++load_epoch", epochs)


def main() -> None:
    """Read the command line and run the demo."""
    parser = argparse.ArgumentParser(description="Trains a torch module that reads handwritten numbers.")
    parser.add_argument("--short", action="store_true", help="very little data")
    demo(parser.parse_args().short)


if __name__ == "__main__":
    main()
