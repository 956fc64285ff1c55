"""Train a model that reads handwritten numbers, search with it on the test set, report errors, plot the attention.

    demos/digits/run.py                   the attention model, beam search; below 5 minutes on two CPU cores
    demos/digits/run.py --model ctc       BLSTM and CTC
    demos/digits/run.py --model rf_attention | rf_ctc    conformers, written with returnn.frontend
    demos/digits/run.py --long            more epochs
    demos/digits/run.py --short           every step on very little data: runs, but recognises little

Every step is a call of rnn.py, which is printed. After an interruption, run it again: it resumes.
"""

from __future__ import annotations

import argparse
import ast
import sys
import time
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from make_data import LABELS, NUM_LINES, make_data
from picture import draw

from returnn_lite.schedule import lr_file

sys.path.append(str(Path(__file__).resolve().parents[1]))
from experiment import ROOT, Experiment  # noqa: E402

HERE = Path("demos/digits")
NUM_EPOCHS = {"": 12, "-short": 2, "-long": 30}
SHORT_LINES = {"train": 400, "dev": 40, "test": 40}
BLANK = len(LABELS)  # CTC's additional output

Sequences = dict[str, dict[str, np.ndarray]]  # tag -> {key: values}


class Reader(Experiment):
    """One of the models in one form."""

    def forward(self, name: str, *options: object) -> Sequences:
        """The output of a layer on the test lines."""
        output = self.exp_dir / f"{name}.hdf"
        return read_hdf(self.use("forward", output, "++output_file", output, *options))


def read_hdf(filename: Path) -> Sequences:
    """The content of an HDF file by sequence; the main stream is called `data`."""
    with h5py.File(filename) as file:
        streams = {"data": file["inputs"][:]}
        if "targets" in file:
            streams |= {key: file["targets/data"][key][:] for key in sorted(file["targets/data"])}
        lengths, tags = file["seqLengths"][:], file["seqTags"].asstr()[:]
    ends = np.cumsum(lengths, axis=0)[:-1]
    pieces = {key: np.split(values, ends[:, column]) for column, (key, values) in enumerate(streams.items())}
    return {tag: {key: pieces[key][number] for key in pieces} for number, tag in enumerate(tags)}


def forward_rf(experiment: Experiment) -> tuple[Sequences, dict[str, list[str]]]:
    """The posteriors of the test lines, and the texts found: `forward_step` also searches, and writes both."""
    read = experiment.use("forward", experiment.exp_dir / "read.txt").read_text()
    posteriors = read_hdf(ROOT / experiment.exp_dir / "posteriors.hdf")
    return posteriors, {tag: best_text(found).split() for tag, found in ast.literal_eval(read).items()}


def best_text(found: str | list[tuple[float, str]]) -> str:
    """The text, or the first of a list with scores, which is the most probable one."""
    return found if isinstance(found, str) else found[0][1]


def texts(labels: np.ndarray) -> list[str]:
    """Label numbers -> label texts."""
    return [LABELS[label] for label in labels]


def read_by_search(experiment: Experiment, tags: list[str], beam_size: int = 12) -> dict[str, list[str]]:
    """The result of beam search for every line."""
    output = experiment.exp_dir / f"search.beam{beam_size}.txt"
    lines = experiment.use("search", output, "++beam_size", beam_size).read_text().splitlines()
    return {tag: line.split() for tag, line in zip(tags, lines, strict=True)}


def read_by_best_path(posteriors: Sequences) -> dict[str, list[str]]:
    """CTC's most probable output of every frame, without repetitions and blanks."""
    found = {}
    for tag, sequence in posteriors.items():
        best = sequence["data"].argmax(axis=-1)
        changes = np.flatnonzero(np.diff(best, prepend=-1))
        found[tag] = texts([label for label in best[changes] if label != BLANK])
    return found


def edit_distance(first: list[str], second: list[str]) -> int:
    """Least number of insertions, deletions and replacements between the two (Levenshtein)."""
    row = list(range(len(second) + 1))
    for i, left in enumerate(first, start=1):
        corner, row[0] = row[0], i
        for j, right in enumerate(second, start=1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (left != right))
    return row[-1]


def report_errors(written: dict[str, list[str]], found: dict[str, list[str]]) -> None:
    """Print some lines with their hypotheses, the digit error rate and the sequence error rate."""
    print("\nreference      hypothesis")
    for tag in list(written)[:5]:
        print(f"{' '.join(written[tag]):<15}{' '.join(found[tag])}")
    errors = [edit_distance(written[tag], found[tag]) for tag in written]
    digits = sum(map(len, written.values()))
    print(f"digit error rate    {100 * sum(errors) / digits:.2f} %  ({sum(errors)} of {digits} digits)")
    print(f"sequence error rate {100 * np.count_nonzero(errors) / len(errors):.2f} %  (of {len(errors)} lines)")


def show(experiment: Experiment, model: str, test: Sequences, posteriors: Sequences) -> None:
    """Plot the first of the longest test lines, what the model attends to there, and the learning curves."""
    tag = max(test, key=lambda name: len(test[name]["classes"]))
    if model == "attention":
        rows = texts(test[tag]["classes_eos"])
        looks = experiment.forward("att_weights", "++forward_output_layer", "output/att_weights")[tag]["data"]
        looks, meaning = looks.reshape(len(rows), -1), "attention weights of each output label"
    else:
        rows, looks = [*LABELS, "blank"][1:], posteriors[tag]["data"].T[1:]
        meaning = "posteriors of each frame"
    records = lr_file.read(str(ROOT / experiment.exp_dir / "learning_rates"))
    filename = experiment.exp_dir / "picture.png"
    draw(ROOT / filename, line=test[tag]["data"], looks=looks, meaning=meaning, rows=rows, records=records)
    print(f"picture: {filename}")


def demo(model: str, form: str) -> None:
    """All the steps."""
    start = time.time()
    experiment = Reader(HERE / f"{model}.config", form, NUM_EPOCHS[form])
    num_lines = SHORT_LINES if form == "-short" else NUM_LINES
    experiment.prepare("test.hdf", partial(make_data, num_lines=num_lines))
    experiment.rnn()
    trained = time.time()

    test = read_hdf(ROOT / experiment.data_dir / "test.hdf")
    if model.startswith("rf_"):
        posteriors, found = forward_rf(experiment)
    else:
        posteriors = experiment.forward("posteriors")
        found = read_by_search(experiment, list(test)) if model == "attention" else read_by_best_path(posteriors)
    if set(posteriors) != set(test):
        sys.exit("the posteriors are not those of the test lines")
    report_errors({tag: texts(sequence["classes"]) for tag, sequence in test.items()}, found)
    show(experiment, model, test, posteriors)
    print(f"training {trained - start:.0f} s, everything {time.time() - start:.0f} s")


def main() -> None:
    """Read the command line and run the demo."""
    parser = argparse.ArgumentParser(description="Trains a model that reads handwritten numbers and shows results.")
    parser.add_argument("--model", choices=["attention", "ctc", "rf_attention", "rf_ctc"], default="attention")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--short", dest="form", action="store_const", const="-short", default="", help="very little data")
    size.add_argument("--long", dest="form", action="store_const", const="-long", help="more epochs")
    options = parser.parse_args()
    demo(options.model, options.form)


if __name__ == "__main__":
    main()
