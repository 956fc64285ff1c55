"""Transducers: frame-wise alignments with switched labels, prediction nets of the emitted labels, full sums."""

import itertools

import torch

from returnn_lite.compat.tf import eval_names
from tests.network.written.case import APART, SEQUENCES, Case, choice, evaluate, linear, loop, loss

tf = eval_names()["tf"]
BLANK = 0
NUM_LABELS = 5


def switchout_target(self, source, **kwargs):
    """Replaces some labels by others in training, as published transducer configs do."""
    data = source(0, as_data=True)
    assert data.is_batch_major and data.time_dim_axis == 1
    x = data.placeholder
    network = self.network

    def switched():
        other = tf.random.uniform(tf.shape(x), minval=0, maxval=NUM_LABELS, dtype=tf.int32)
        keep = tf.random.uniform(tf.shape(x)) > 0.05
        return tf.where(keep, x, other)

    return network.cond_on_train(switched, lambda: x)


def blank_mask(self, source, **kwargs):
    """The frames in which a label is emitted."""
    data = source(0, as_data=True)
    assert data.batch_dim_axis == 0 and data.get_sequence_lengths() is not None
    return tf.not_equal(data.get_placeholder_as_batch_major(), BLANK)


def full_sum(self, source, **kwargs):
    """-log of the sum over all alignments in which each frame emits the next label or the blank.

    Shape: scores (T, U, B, V), labels (B, U - 1) -> (B,)
    """
    scores = source(0, as_data=True, auto_convert=False).copy_as_batch_major()
    labels = source(1, as_data=True, auto_convert=False)
    values, frames = scores.placeholder, scores.get_dynamic_size(1)
    targets, counts = labels.get_placeholder_as_batch_major(), labels.get_sequence_lengths()
    shape = tf.shape(values)
    at = tf.tile(tf.reshape(targets, [shape[0], 1, -1, 1]), [1, shape[1], 1, 1])
    emit = tf.gather(values[:, :, :-1], at, axis=3, batch_dims=3)[:, :, :, 0]
    alpha = tf.concat([tf.zeros([shape[0], 1]), tf.fill([shape[0], shape[2] - 1], -1e30)], 1)
    for t in range(values.shape[1]):
        moved = tf.concat([tf.fill([shape[0], 1], -1e30), alpha[:, :-1] + emit[:, t]], 1)
        new = tf.reduce_logsumexp(tf.stack([alpha + values[:, t, :, BLANK], moved]), axis=0)
        alpha = tf.where(tf.expand_dims(t < frames, 1), new, alpha)
    return -tf.gather(alpha, counts, axis=1, batch_dims=1)


def _enumerated(v):
    """The same by all alignments one by one, and the layers by hand."""
    losses = []
    for x, labels, frames, count in zip(v["data"], v["classes"], [5, 3, 4], [3, 2, 3], strict=True):
        am = _affine(v, "out/rec/am", _affine(v, "enc", x[:frames]).tanh())
        lm = _lstm(v, v["out/rec/emb/W"][labels[:count].long()] + v["out/rec/emb/b"])
        scores = _affine(v, "out/rec/scores", (am.unsqueeze(1) + lm.unsqueeze(0)).tanh()).log_softmax(-1)
        paths = []
        for emitting in itertools.combinations(range(frames), count - 1):
            u, total = 0, torch.zeros(())
            for t in range(frames):
                total = total + scores[t, u, labels[u + 1] if t in emitting else BLANK]
                u += t in emitting
            paths.append(total)
        losses.append(-torch.stack(paths).logsumexp(0))
    return torch.stack(losses)


def _lstm(v, x):
    h, c, frames = torch.zeros(4), torch.zeros(4), []
    for y in x:
        gates = y @ v["out/rec/lm/rec/W"] + h @ v["out/rec/lm/rec/W_re"] + v["out/rec/lm/rec/b"]
        a, i, f, o = gates.chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * a.tanh()
        h = o.sigmoid() * c.tanh()
        frames.append(h)
    return torch.stack(frames)


def _affine(v, name, x):
    return x @ v[f"{name}/W"] + v[f"{name}/b"]


PREDICTION = {
    "target": evaluate("output", switchout_target, initial_output=0),
    "emitted": {"class": "compare", "from": "target", "value": BLANK, "kind": "not_equal", "initial_output": True},
    "lm": {
        "class": "masked_computation",
        "mask": "prev:emitted",
        "from": "prev:target",
        "unit": {
            "class": "subnetwork",
            "from": "data",
            "subnetwork": {
                "emb": linear("data", 3, None),
                "output": {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": "emb"},
            },
        },
    },
    "joint": linear(["data:source", "lm"], 4),
    "prob": loss("joint"),
    "output": choice(),
}


SUM = {
    "class": "eval",
    "eval": full_sum,
    "out_type": {"shape": (), "dtype": "float32", "sparse": False, "batch_dim_axis": 0},
    "loss": "as_is",
}


def _sum_over_alignments(**more):
    """All layers are moved out: the acoustics go over the frames, the labels over their own axis."""
    return {
        "enc": linear("data", 3),
        "out": loop(
            {
                "am": linear("data:source", 4, None),
                "label": {"class": "copy", "from": "data:classes"},
                "emb": linear("label", 3, None),
                "lm": {"class": "rec", "unit": "nativelstm2", "n_out": 4, "from": "emb"},
                "both": evaluate(["am", "lm"], "tf.tanh(source(0) + source(1))"),
                "scores": linear("both", NUM_LABELS, "log_softmax"),
                "output": {"class": "copy", "from": "scores"},
                **more,
            },
            "enc",
            target="classes",
        ),
    }


CASES = {
    "a transducer with switched labels": Case(
        {"output": loop(PREDICTION)}, expected=lambda v: v["classes"], moves=False
    ),
    "a transducer that searches": Case(
        {"output": loop({**PREDICTION, "target": {"class": "copy", "from": "output", "initial_output": 0}})},
        expected=lambda v: v["classes"],
        search=True,
    ),
    "a prediction net of the last label": Case(
        {
            "output": loop(
                {
                    "target": evaluate("output", "tf.identity(source(0))", initial_output=0),
                    "emb": linear("prev:target", 3, None),
                    "lm": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 3, "from": ["emb", "prev:am"]},
                    "am": {"class": "copy", "from": "data:source"},
                    "joint": {"class": "combine", "kind": "add", "from": ["j1", "j2"]},
                    "j1": linear("am", 4, None),
                    "j2": linear("lm", 4, None),
                    "out": {"class": "activation", "activation": "tanh", "from": "joint"},
                    "prob": loss("out"),
                    "output": choice(),
                }
            )
        },
        search=True,
    ),
    "emissions as a mask of code": Case(
        {
            "r": loop(
                {
                    "label": {"class": "copy", "from": "data:classes", "initial_output": 0},
                    "is_label": evaluate("label", blank_mask, out_type={"dtype": "bool", "sparse": False}),
                    "lm": {
                        "class": "masked_computation",
                        "mask": "is_label",
                        "from": "label",
                        "unit": {"class": "rec", "unit": "nativelstm2", "n_out": 3},
                    },
                    "output": linear(["lm", "data:source"]),
                }
            ),
            "output": {"class": "copy", "from": "r"},
            "prob": loss("r"),
        },
        moves=False,
    ),
    "labels with the blank split off": Case(
        {
            "output": loop(
                {
                    "am": linear("data:source", 4),
                    "lm": linear("prev:output", 4, None),
                    "readout": {"class": "combine", "kind": "add", "from": ["am", "lm"]},
                    "emit": linear("readout", 1, "sigmoid"),
                    "no": evaluate("emit", "1. - source(0)"),
                    "labels": {"class": "softmax", "n_out": NUM_LABELS - 1, "from": "readout"},
                    "scaled": {"class": "combine", "kind": "mul", "from": ["labels", "emit"]},
                    "prob": {"class": "copy", "from": ["no", "scaled"], "loss": "ce", "target": "classes"},
                    "output": choice(),
                }
            )
        },
        search=True,
    ),
    "the sum over all alignments in the loop": Case(
        {
            **_sum_over_alignments(sum={**SUM, "from": ["scores", "base:targets"]}),
            "output": {"class": "copy", "from": "out/sum"},
            "targets": {"class": "slice", "axis": "T", "slice_start": 1, "from": "data:classes"},
        },
        keys=SEQUENCES,
        expected=_enumerated,
        lengths=APART,
        moves=False,
    ),
    "the sum over all alignments": Case(
        {
            **_sum_over_alignments(),
            "output": {**SUM, "from": ["out", "targets"]},
            "targets": {"class": "slice", "axis": "T", "slice_start": 1, "from": "data:classes"},
        },
        keys=SEQUENCES,
        expected=_enumerated,
        lengths=APART,
        moves=False,
    ),
    "a prediction net that reads its own last frame": Case(
        {
            "output": loop(
                {
                    **PREDICTION,
                    "target": {"class": "copy", "from": "output", "initial_output": 0},
                    "lm": {
                        **PREDICTION["lm"],
                        "unit": {
                            "class": "subnetwork",
                            "from": "data",
                            "subnetwork": {
                                "emb": linear("data", 3, None),
                                "a": linear(["emb", "prev:a"]),
                                "output": {"class": "copy", "from": "a"},
                            },
                        },
                    },
                }
            )
        },
        search=True,
    ),
    "a choice that combines scores of its own": Case(
        {
            "output": loop(
                {
                    "h": linear(["data:source", "prev:h"]),
                    "emb": linear("prev:output", 3, None),
                    "joint": {"class": "combine", "kind": "add", "from": ["h", "emb"]},
                    "prob": loss("joint"),
                    "output": choice(
                        custom_score_combine=lambda scores_in, scores_base, **more: scores_in + 0.5 * scores_base
                    ),
                }
            )
        },
        search=True,
    ),
    "a soft alignment of the encoder": Case(
        {
            "enc": linear("data"),
            "ctc": {"class": "softmax", "from": "enc", "loss": "ctc", "target": "classes"},
            "align": {
                "class": "forced_align",
                "from": "ctc",
                "align_target": "data:classes",
                "topology": "ctc",
                "input_type": "prob",
            },
            "output": {"class": "copy", "from": "align"},
        },
        keys=SEQUENCES,
        lengths=APART,
    ),  # fmt: skip
}
