"""Train a recogniser of spoken numbers on synthesised speech, test it with other voices, report errors.

    demos/spoken-digits/run.py            below 5 minutes on two CPU cores
    demos/spoken-digits/run.py --short    every step on very little data: runs, but recognises nothing

Needs the program espeak-ng. Every step is a call, which is printed. After an interruption, run it again: it resumes.
"""

from __future__ import annotations

import argparse
import ast
import shutil
import sys
import time
from functools import partial
from pathlib import Path

from make_data import ESPEAK, NUM_UTTERANCES, make_data

sys.path.append(str(Path(__file__).resolve().parents[1]))
from experiment import ROOT, Experiment, run  # noqa: E402

CONFIG = Path("demos/spoken-digits/attention.config")
NUM_EPOCHS = {"": 14, "-short": 2}
SHORT_UTTERANCES = {"train": 60, "dev": 10, "test": 20}


def demo(form: str) -> None:
    """All the steps."""
    start = time.time()
    experiment = Experiment(CONFIG, form, NUM_EPOCHS[form])
    num_utterances = SHORT_UTTERANCES if form == "-short" else NUM_UTTERANCES
    experiment.prepare("test.zip", partial(make_data, num_utterances=num_utterances))
    synthesised = time.time()

    experiment.rnn()
    trained = time.time()

    references = experiment.data_dir / "test.refs"
    heard = experiment.use("search", experiment.exp_dir / "search.hyps")
    show(ast.literal_eval((ROOT / references).read_text()), ast.literal_eval(heard.read_text()))
    run("tools/calculate-word-error-rate.py", "--expect_full", "--hyps", heard.relative_to(ROOT), "--refs", references)
    times = [synthesised - start, trained - synthesised, time.time() - start]
    print("synthesis {:.0f} s, training {:.0f} s, everything {:.0f} s".format(*times))


def show(spoken: dict[str, str], heard: dict[str, str]) -> None:
    """Print some references and hypotheses."""
    for tag in list(spoken)[:5]:
        print(f"\nreference   {spoken[tag]}\nhypothesis  {heard[tag]}")


def main() -> None:
    """Read the command line and run the demo."""
    parser = argparse.ArgumentParser(description="Trains a recogniser of spoken numbers and reports its errors.")
    parser.add_argument(
        "--short", dest="form", action="store_const", const="-short", default="", help="very little data"
    )
    options = parser.parse_args()
    if shutil.which(ESPEAK) is None:
        print(f"skipped: {ESPEAK} is missing (Debian, Ubuntu: apt install {ESPEAK})")
    else:
        demo(options.form)


if __name__ == "__main__":
    main()
