"""Texts in tensors: what configs make of the labels of hypotheses, and hypotheses of equal text joined in a search."""

import pytest
import torch

from returnn_lite.compat.config_imports import config_imports
from returnn_lite.compat.tf import eval_names, wrap
from returnn_lite.compat.tf.values import TextTensor
from tests.nets import batch, network, randomised

NAMES = eval_names()
TF = NAMES["tf"]
DATA = {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}}
LENGTHS = {"data": [5, 3, 2], "classes": [4, 2, 3]}


def texts(values):
    with config_imports():
        from TFUtil import get_shared_vocab
    return get_shared_vocab(values)


@pytest.mark.parametrize("text, expected", [
    ("tf.constant('')", ""),
    ("tf.constant('a') + 'b'", "ab"),
    ("tf.constant(['a', 'b']) + tf.constant('c')", ["ac", "bc"]),
    ("'c' + x", ["ca", "c", "cbb"]),
    ("tf.gather(params=x, indices=i)", [["bb", "a"], ["", ""]]),
    ("where_bc(b, x, tf.constant(''))", ["a", "", ""]),
    ("tf.where(b, x, tf.fill((3,), 'z'))", ["a", "z", "z"]),
    ("tf.reshape(tf.gather(x, i), [-1])[1:]", ["a", "", ""]),
    ("tf.gather(x, i)[:, 0] + '-'", ["bb-", "-"]),
    ("tf.stack([x[0], x[2]])", ["a", "bb"]),
    ("tf.tile(tf.expand_dims(x[:1], 1), [1, 2])", [["a", "a"]]),
])  # fmt: skip
def test_expressions(text, expected):
    values = {
        "x": texts(["a", "", "bb"]),
        "i": wrap(torch.tensor([[2, 0], [1, 1]])),
        "b": wrap(torch.tensor([True, False, False])),
    }
    found = eval(text, {**NAMES, **values})
    assert isinstance(found, TextTensor) and found.texts() == expected


def test_what_is_no_text_any_more():
    x = texts(["a", "", "bb"])
    assert not isinstance(TF.equal(x, x), TextTensor) and TF.equal(x, "a").tolist() == [True, False, False]
    assert not isinstance(x == x, TextTensor) and not isinstance(TF.shape(x), TextTensor)
    assert not isinstance(TF.range(3), TextTensor) and x.dtype == torch.int64


VOCABULARY = ["</s>", "a", "b@@ ", "a", "b"]  # labels 1 and 3 read alike


def out_str(source, network):
    import tensorflow as tf
    from TFUtil import get_shared_vocab, where_bc

    symbol = tf.gather(params=get_shared_vocab(VOCABULARY), indices=source(1))
    return source(0) + where_bc(tf.not_equal(source(1), 0), symbol, tf.constant(""))


def joined(layer, scores_in, scores_base, base_beam_in, batch_dim, end_flags, **_):
    import tensorflow as tf
    from TFUtil import OpCodeCompiler

    op = OpCodeCompiler(base_name="GetFilteredScore").load_tf_module().get_filtered_score
    before, label = (s.output.placeholder for s in layer.explicit_search_sources)
    before, label = (tf.reshape(x, [batch_dim, base_beam_in]) for x in (before, label))
    base = op(before, tf.reshape(scores_base, [batch_dim, base_beam_in]), label)
    return scores_in + tf.expand_dims(base, -1)


def decode(**more):
    unit = {
        "emb": {"class": "linear", "activation": None, "from": "output", "n_out": 3},
        "s": {"class": "linear", "activation": "tanh", "from": ["prev:emb", "base:mean"], "n_out": 4},
        "prob": {"class": "softmax", "from": "s", "target": "classes"},
        "output": {
            "class": "choice", "from": "prob", "target": "classes", "beam_size": 4, "initial_output": 0, **more,
        },
        "text": {
            "class": "eval", "from": ["prev:text", "output"], "initial_output": None, "is_output_layer": True,
            "eval": "self.network.get_config().typed_value('out_str')(source, network=self.network)",
            "out_type": {"shape": (), "dtype": "string"},
        },
        "end": {"class": "compare", "from": "output", "value": 0},
    }  # fmt: skip
    net = {
        "mean": {"class": "reduce", "mode": "mean", "axes": "T", "from": "data"},
        "output": {"class": "rec", "from": [], "target": "classes", "max_seq_len": 5, "unit": unit},
        "read": {"class": "copy", "from": "output/text", "is_output_layer": True},
    }
    made = randomised(network(net, DATA, search=True, out_str=out_str), 1.0)
    with config_imports(), torch.no_grad():
        out = made(*batch(DATA, LENGTHS))
    labels = out["output"].batch_major()
    return wrap(out["read"].batch_major().data, "string").texts(), labels.data.tolist(), labels.beam.scores


def ways_to_a_text(rows, labels, scores):
    """For every sequence and text before the last tick: the labels of the hypotheses that are possible."""
    found = {}
    for i, (row, path) in enumerate(zip(rows, labels, strict=True)):
        if scores.flatten()[i] > -1e3:
            found.setdefault((i // scores.shape[1], row[-2]), set()).add(tuple(path[:-1]))
    return found.values()


def test_the_text_of_each_hypothesis():
    rows, labels, scores = decode()
    assert [row[-1] for row in rows] == ["".join(VOCABULARY[i] for i in path if i) for path in labels]
    assert max(map(len, ways_to_a_text(rows, labels, scores))) > 1


def test_hypotheses_of_equal_text_are_joined():
    rows, labels, scores = decode(custom_score_combine=joined, explicit_search_sources=["prev:text", "prev:output"])
    assert max(map(len, ways_to_a_text(rows, labels, scores))) == 1
