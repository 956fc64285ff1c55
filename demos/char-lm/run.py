"""Train a language model of characters on Python's own source code, measure its perplexity, sample texts.

    demos/char-lm/run.py            below 5 minutes on two CPU cores
    demos/char-lm/run.py --short    every step on very little data: runs, but writes nonsense

Every step is a call of rnn.py, which is printed. After an interruption, run it again: it resumes.
"""

from __future__ import annotations

import argparse
import ast
import math
import sys
import time
from functools import partial
from pathlib import Path

from make_data import NEWLINE, NUM_CHARACTERS, make_data

sys.path.append(str(Path(__file__).resolve().parents[1]))
from experiment import Experiment  # noqa: E402

CONFIG = Path("demos/char-lm/lstm.config")
NUM_EPOCHS = {"": 12, "-short": 2}
SHORT_CHARACTERS = {"train": 40_000, "dev": 5_000, "test": 5_000}


def demo(form: str) -> None:
    """All the steps."""
    start = time.time()
    experiment = Experiment(CONFIG, form, NUM_EPOCHS[form])
    num_characters = SHORT_CHARACTERS if form == "-short" else NUM_CHARACTERS
    experiment.prepare("test.txt", partial(make_data, num_characters=num_characters))

    experiment.rnn()
    trained = time.time()

    scores = experiment.exp_dir / "scores.py"
    found = ast.literal_eval(experiment.use("eval", scores, "++eval_output_file", scores).read_text())
    written = ast.literal_eval(experiment.use("search", experiment.exp_dir / "written.py").read_text())
    for ((_, text),) in written.values():
        print("\n" + "-" * 40 + "\n" + text.replace(NEWLINE, "\n").rstrip())
    entropy = found["eval"]["score"]["cost:output/next"]  # nats
    print(f"\ntest perplexity {math.exp(entropy):.2f} per character, {entropy / math.log(2):.2f} bits")
    print(f"training {trained - start:.0f} s, everything {time.time() - start:.0f} s")


def main() -> None:
    """Read the command line and run the demo."""
    parser = argparse.ArgumentParser(description="Trains a character language model and samples texts from it.")
    parser.add_argument(
        "--short", dest="form", action="store_const", const="-short", default="", help="very little data"
    )
    demo(parser.parse_args().form)


if __name__ == "__main__":
    main()
