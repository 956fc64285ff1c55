"""Beam search with a decoder that `task export` wrote; needs numpy and onnxruntime, and nothing of returnn_lite.

python demos/export/search.py out/attention one.npy [beam size]     (an array (T, F))
"""

import json
import sys

import numpy as np
import onnxruntime


class Decoder:
    def __init__(self, base):
        with open(f"{base}.json", encoding="utf-8") as file:
            self.about = json.load(file)
        self.start, self.step = self.about["programs"]
        for program in (self.start, self.step):
            program["session"] = onnxruntime.InferenceSession(f"{base}_{program['name']}.onnx")

    def run(self, program, inputs):
        """The outputs: by name, and by the name of the input of the next step."""
        found = program["session"].run(None, {port["name"]: inputs[port["name"]] for port in program["inputs"]})
        by_name = {port["name"]: x for port, x in zip(program["outputs"], found, strict=True)}
        return by_name, {p["feeds"]: by_name[p["name"]] for p in program["outputs"] if "feeds" in p}

    def search(self, features, beam=8, max_len=100):
        """The best label sequence of one sequence (T, F), and its log score."""
        out, given = self.run(self.start, {"data": features[None], "data_lengths": np.array([len(features)], "int32")})
        hyps, scores, ended = [[]], np.zeros(1), np.zeros(1, bool)
        for tick in range(1, max_len + 1):
            log_probs = out["log_probs"]
            log_probs[ended] = [0.0] + [-np.inf] * (log_probs.shape[1] - 1)  # what has ended stays as it is
            totals = (scores[:, None] + log_probs).ravel()
            best = np.argsort(-totals, kind="stable")[:beam]
            rows, labels = np.divmod(best, log_probs.shape[1])
            given = {name: x[rows] for name, x in given.items()}
            inputs = {**given, "labels": labels.astype("int32"), "tick": np.array(tick, "int32")}
            out, after = self.run(self.step, inputs)
            given |= after
            before, scores, ended = ended[rows], totals[best], ended[rows] | out["ended"]
            hyps = [hyps[r] if e else [*hyps[r], int(n)] for r, n, e in zip(rows, labels, before | ended, strict=True)]
            if ended.all():
                break
        return hyps[0], float(scores[0])


if __name__ == "__main__":
    decoder = Decoder(sys.argv[1])
    labels, score = decoder.search(np.load(sys.argv[2]), *map(int, sys.argv[3:]))
    names = decoder.about.get("labels")
    print(score, *(names[n] if names else n for n in labels))
