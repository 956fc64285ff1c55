"""Reads features with a CTC model that `task export` wrote; needs numpy and onnxruntime, and nothing of returnn_lite.

python demos/export/ctc.py out/ctc one.npy two.npy     (arrays (T, F); out/ctc.onnx, out/ctc.json)
"""

import json
import sys

import numpy as np
import onnxruntime


class Reader:
    def __init__(self, base):
        with open(f"{base}.json", encoding="utf-8") as file:
            self.about = json.load(file)
        self.session = onnxruntime.InferenceSession(f"{base}.onnx")

    def __call__(self, sequences):
        """The labels of a batch of sequences (T, F)."""
        lengths = np.array([len(x) for x in sequences], "int32")
        data = np.zeros((len(sequences), lengths.max(), sequences[0].shape[1]), "float32")
        for row, x in zip(data, sequences, strict=True):
            row[: len(x)] = x
        probs, ends = self.session.run(["output", "lengths"], {"data": data, "data_lengths": lengths})
        return [self.labels(x[:end].argmax(-1)) for x, end in zip(probs, ends, strict=True)]

    def labels(self, best):
        """The labels of the best class of each frame: equal neighbours merged, blanks dropped."""
        blank, names = self.about["blank"], self.about.get("labels")
        kept = [c for c, before in zip(best, [blank, *best[:-1]], strict=True) if c not in (before, blank)]
        return [names[c] if names else str(c) for c in kept]


if __name__ == "__main__":
    for words in Reader(sys.argv[1])([np.load(name) for name in sys.argv[2:]]):
        print(" ".join(words))
