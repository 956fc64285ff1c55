"""The best scales of several scores of the same hypotheses: `tune-scales.py --scores am.py lm.py --refs refs.py`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from returnn_lite.datasets.text.text_dict import read_texts
from returnn_lite.errors import ConfigError
from returnn_lite.tools.common import output_file, tool
from returnn_lite.tools.word_error_rate import read_best
from returnn_lite.tools.word_errors import word_distance

LENGTH = "length"
ROUNDS = 20

NBest = dict[str, list[tuple[float, str]]]


@dataclass(frozen=True)
class Recorded:
    """What is known of the hypotheses of one sequence: `texts`, scores (K, M), errors (K,)."""

    texts: list[str]
    scores: np.ndarray
    errors: np.ndarray

    def best(self, scales: np.ndarray) -> int:
        """The hypothesis with the highest sum of scaled scores; of equal ones the first."""
        return int((self.scores @ scales).argmax())


def read_nbest(filename: str) -> NBest:
    """{tag: [(score, text), …]} of a file; ConfigError for anything else."""
    found: NBest = {}
    for tag, entries in read_texts(filename, "--scores").items():
        place = f'--scores: {filename}["{tag}"]'
        if not isinstance(entries, list) or not entries:
            raise ConfigError(place, f"must be a list [(score, text), …], but is {str(entries)[:80]} instead")
        for entry in entries:
            fits = isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], str)
            if not fits or not isinstance(entry[0], int | float) or not np.isfinite(entry[0]):
                raise ConfigError(place, f"must have entries (score, text), but has {str(entry)[:80]}")
        found[str(tag)] = entries
    return found


def recorded(files: Sequence[str], refs: Mapping[str, str], length: bool) -> tuple[dict[str, Recorded], int]:
    """What the files record of each sequence, and the number of words in the references."""
    distance, lists = word_distance(), [read_nbest(name) for name in files]
    found, words = {}, 0
    for tag, entries in lists[0].items():
        texts = [text for _, text in entries]
        for name, other in zip(files[1:], lists[1:], strict=True):
            if [text for _, text in other.get(tag, [])] != texts:
                raise ConfigError(
                    f'--scores: {name}["{tag}"]', f"must have the hypotheses of {files[0]} in their order"
                )
        if tag not in refs:
            raise ConfigError("--refs", f'no reference for "{tag}"')
        columns = [[score for score, _ in one[tag]] for one in lists]
        columns += [[float(len(text.split())) for text in texts]] if length else []
        ref = refs[tag].split()
        errors = np.array([distance(text.split(), ref) for text in texts])
        found[tag] = Recorded(texts, np.array(columns, np.float64).T, errors)
        words += len(ref)
    return found, words


# --- tuning -----------------------------------------------------------------------------------------------------------


def changes(seq: Recorded, scales: np.ndarray, which: int, low: float) -> tuple[int, list[tuple[float, int]]]:
    """The errors of the best hypothesis where the scale `which` is `low`; and (value, change of the errors) at each
    larger value where another one becomes the best. Och, Minimum error rate training, 2003.
    """
    slope = seq.scores[:, which]
    height = seq.scores @ scales - slope * scales[which]  # at 0
    at = height + slope * low
    now = int(np.lexsort((-slope, -at))[0])  # of equal ones that which grows fastest
    first = int(seq.errors[now])
    found: list[tuple[float, int]] = []
    while True:
        steeper = np.flatnonzero(slope > slope[now])
        if not len(steeper):
            return first, found
        crossings = (height[now] - height[steeper]) / (slope[steeper] - slope[now])
        nearest = np.lexsort((-slope[steeper], crossings))[0]
        after = int(steeper[nearest])
        found.append((float(crossings[nearest]), int(seq.errors[after] - seq.errors[now])))
        now = after


def best_value(seqs: Sequence[Recorded], scales: np.ndarray, which: int, low: float, high: float) -> tuple[float, int]:
    """The middle of the widest range of a scale's values with the fewest errors, and these errors."""
    errors, steps = 0, []
    for seq in seqs:
        first, found = changes(seq, scales, which, low)
        errors += first
        steps += [(max(value, low), change) for value, change in found if value < high]
    steps.sort()
    bounds = np.array([low, *(value for value, _ in steps), high])
    totals = errors + np.cumsum([0, *(change for _, change in steps)])
    widths = np.diff(bounds)
    totals = np.where(widths > 0, totals, totals.max() + 1) if widths.max() > 0 else totals
    best = int(np.lexsort((-widths, totals))[0])
    return float((bounds[best] + bounds[best + 1]) / 2), int(totals[best])


def count(seqs: Sequence[Recorded], scales: np.ndarray) -> int:
    """The errors of the best hypotheses."""
    return sum(int(seq.errors[seq.best(scales)]) for seq in seqs)


def tune(seqs: Sequence[Recorded], start: np.ndarray, ranges: Sequence[tuple[float, float]]) -> tuple[np.ndarray, int]:
    """Scales with few errors, one after the other until none of them gives fewer; the first stays as it is."""
    scales, errors = start.copy(), count(seqs, start)
    for _ in range(ROUNDS):
        before = errors
        for which in range(1, len(scales)):
            value, found = best_value(seqs, scales, which, *ranges[which])
            if found < errors:
                scales[which], errors = value, found
        if errors == before:
            break
    return scales, errors


def percent(errors: int, words: int) -> str:
    """The word error rate as text."""
    return f"{100 * errors / max(words, 1):.2f} %"


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(
        prog="tune-scales.py",
        description="Finds the scales of several scores of the same hypotheses with the lowest word error rate. That"
        " of the first score is 1.",
    )
    add = parser.add_argument
    add("--scores", nargs="+", required=True, metavar="FILE", help="Python dicts {tag: [(score, text), …]}, same texts")
    add("--refs", required=True, help="file with a Python dict {tag: text}")
    add("--length", action="store_true", help="the number of words is a further score (scale from -MAX to MAX)")
    add("--range", type=float, nargs=2, default=[0.0, 5.0], metavar=("MIN", "MAX"), help="of the scales (0 5)")
    add("--scales", type=float, nargs="+", help="applies these scales without tuning: for the test set")
    add("--out", metavar="FILE", help="writes the best hypotheses as a Python dict {tag: text}")
    args = parser.parse_args(argv)
    names = [*args.scores, *([LENGTH] if args.length else [])]
    low, high = args.range
    if not low < high:
        raise ConfigError("--range", f"must be two rising numbers, but is {low:g} {high:g} instead")
    if args.scales is not None and len(args.scales) != len(names):
        raise ConfigError("--scales", f"must be {len(names)} numbers, but got {len(args.scales)}")
    found, words = recorded(args.scores, read_best(args.refs, "--refs"), args.length)
    seqs, alone = list(found.values()), np.eye(len(names))[0]
    if args.scales is not None:
        scales = np.array(args.scales)
    else:
        ranges = [(-high, high) if name == LENGTH else (low, high) for name in names]
        equal = np.array([0.0 if name == LENGTH else 1.0 for name in names])
        scales, _ = min((tune(seqs, start, ranges) for start in (alone, equal)), key=lambda result: result[1])
    print(f"{args.scores[0]} alone: {percent(count(seqs, alone), words)}")
    print(f"with all: {percent(count(seqs, scales), words)}")
    print(f"best of the lists: {percent(sum(int(seq.errors.min()) for seq in seqs), words)}")
    print("\n".join(f"{name} {scale:.6g}" for name, scale in zip(names, scales, strict=True)))
    if args.out:
        with output_file(args.out) as file:
            rows = (f"{tag!r}: {seq.texts[seq.best(scales)]!r},\n" for tag, seq in found.items())
            file.writelines(["{\n", *rows, "}\n"])
