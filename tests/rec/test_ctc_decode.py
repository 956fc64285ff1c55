"""The layer `ctc_decode`: greedy, by beam search, with a language model, with all hypotheses."""

import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.ops.ctc_beam import ctc_beam_search
from tests.nets import batch, network, randomised

KEYS = {"data": {"dim": 4}}
LENGTHS = {"data": [7, 4, 5]}
SCORES = {"scores": {"class": "softmax", "n_out": 5, "from": "data"}}


def decoded(search=False, scores=None, more=None, **options):
    """The output of the layer, and its scores (B, T, V)."""
    layers = {
        "scores": scores or SCORES["scores"],
        **(more or {}),
        "output": {"class": "ctc_decode", "from": "scores", **options},
        "frames": {"class": "copy", "from": "scores", "is_output_layer": True},
        "score": {"class": "copy", "from": "output/scores", "is_output_layer": True},
    }
    net = randomised(network(layers, KEYS))
    data, lengths = batch(KEYS, LENGTHS)
    with torch.no_grad():
        out = net(data, lengths)
    return out["output"], out["frames"].batch_major().data, out["score"].data


def rows(x):
    lengths = x.length(x.spec.dims[1]).values.tolist()
    return [row[:n].tolist() for row, n in zip(x.data, lengths, strict=True)]


def merged(path):
    return [c for i, c in enumerate(path) if i == 0 or path[i - 1] != c]


def test_greedy():
    out, frames, score = decoded()
    paths = [frames[b, :n].argmax(-1).tolist() for b, n in enumerate(LENGTHS["data"])]
    assert rows(out) == [[c for c in merged(path) if c != 4] for path in paths]
    assert out.spec.sparse_dim.size == 4 and out.spec.dtype == "int32"
    best = [frames[b, :n].amax(-1).log().sum() for b, n in enumerate(LENGTHS["data"])]
    torch.testing.assert_close(score, torch.stack(best), rtol=1e-4, atol=1e-4)


def test_frame_wise_classes_have_no_blank():
    out, frames, _ = decoded(blank_index=None)
    paths = [frames[b, :n].argmax(-1).tolist() for b, n in enumerate(LENGTHS["data"])]
    assert rows(out) == [merged(path) for path in paths] and out.spec.sparse_dim.size == 5
    out, _, _ = decoded(blank_index=None, merge_repeated=False)
    assert rows(out) == paths


@pytest.mark.parametrize("kind", ["prob", "log_prob", "logits"])
def test_beam_search_of_all_kinds_of_input(kind):
    activation = {"prob": "softmax", "log_prob": "log_softmax", "logits": None}[kind]
    scores = {"class": "linear", "activation": activation, "n_out": 5, "from": "data"}
    out, frames, score = decoded(beam_size=6, input_type=kind, scores=scores, blank_index=1)
    log_probs = frames.log() if kind == "prob" else frames.log_softmax(-1)
    found = ctc_beam_search(log_probs, torch.tensor(LENGTHS["data"]), blank=1, beam_size=6)
    assert rows(out) == [row[0, :n].tolist() for row, n in zip(found.labels, found.lengths[:, 0], strict=True)]
    torch.testing.assert_close(score, found.scores[:, 0], rtol=1e-4, atol=1e-4)
    assert out.spec.sparse_dim.size == 5


@pytest.mark.parametrize("shape", [[5], [6, 5]])
def test_scores_of_a_language_model_and_of_the_length(shape):
    lm = {"lm": {"class": "variable", "shape": shape, "init": "random_normal_initializer(stddev=2.0)"}}
    more = {**lm, "table": {"class": "copy", "from": "lm", "is_output_layer": True}}
    options = {"beam_size": 5, "lm": "lm", "lm_scale": 0.5, "length_bonus": 0.3}
    layers = {**SCORES, **more, "output": {"class": "ctc_decode", "from": "scores", **options}}
    layers["frames"] = {"class": "copy", "from": "scores", "is_output_layer": True}
    net = randomised(network(layers, KEYS))
    with torch.no_grad():
        out = net(*batch(KEYS, LENGTHS))
    table = (0.5 * out["table"].data).expand(6, 5)
    found = ctc_beam_search(
        out["frames"].batch_major().data.log(), torch.tensor(LENGTHS["data"]), beam_size=5, length_bonus=0.3,
        transitions=table,
    )  # fmt: skip
    wanted = [row[0, :n].tolist() for row, n in zip(found.labels, found.lengths[:, 0], strict=True)]
    assert rows(out["output"]) == wanted


def test_all_hypotheses():
    out, frames, _ = decoded(beam_size=3, keep_beams=True)
    found = ctc_beam_search(frames.log(), torch.tensor(LENGTHS["data"]), beam_size=3)
    assert out.beam.size == 3 and out.data.shape[0] == 9
    torch.testing.assert_close(out.beam.scores, found.scores, rtol=1e-4, atol=1e-4)
    flat = zip(found.labels.flatten(0, 1), found.lengths.flatten(), strict=True)
    assert rows(out) == [row[:n].tolist() for row, n in flat]


@pytest.mark.parametrize("options, message", [
    ({"input_type": "probs"}, '`input_type` must be one of prob, log_prob, logits, but .*did you mean "prob"'),
    ({"blank_index": None, "beam_size": 4}, "`beam_size` must be 1 without a blank"),
    ({"length_bonus": 1.0}, "`lm` and `length_bonus` need a `beam_size` above 1"),
    ({"blank_index": 5}, "`blank_index` must be one of the 5 classes, but is 5"),
    ({"beam_size": 0}, "beam_size"),
    ({"beam_size": 2, "lm": "scores"}, r"`lm` must be of shape \(5,\) or \(6, 5\), but is"),
])  # fmt: skip
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        decoded(**options)
