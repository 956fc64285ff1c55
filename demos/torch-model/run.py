"""Train a torch module that reads written numbers, let it read the test lines, print its errors.

    demos/torch-model/run.py             12 epochs, the data of demos/digits
    demos/torch-model/run.py --short     every step on very little data: works, but reads badly

Every step is a call of rnn.py, which is printed. Run again after an interruption, and it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIG, MAKE_DATA = "demos/torch-model/ctc.config", "demos/digits/make_data.py"  # from the root, where all commands run


def run(*command: object) -> None:
    """Run a Python script with this interpreter, and stop here if it fails."""
    words = [str(word) for word in command]
    print("\n$ ./" + " ".join(words), flush=True)
    # The net is so small that a second thread costs more than it gives.
    code = subprocess.run([sys.executable, *words], cwd=ROOT, env={"OMP_NUM_THREADS": "1", **os.environ}).returncode
    if code:
        sys.exit(f"{words[0]} failed with exit code {code}")


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
    parser = argparse.ArgumentParser(description="Train a torch module that reads written numbers.")
    parser.add_argument("--short", action="store_true", help="very little data")
    demo(parser.parse_args().short)


if __name__ == "__main__":
    main()
