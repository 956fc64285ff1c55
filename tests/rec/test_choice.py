"""`choice` without search, several choices in a step, and the layers that read hypotheses."""

import math

import pytest
import torch

from returnn_lite.errors import ConfigError, ConfigErrors
from returnn_lite.ops.edit_distance import edit_distance
from tests.nets import batch, network, randomised

DATA = {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}, "kinds": {"dim": 3, "sparse": True}}
LENGTHS = {"data": [5, 3, 2], "classes": [4, 2, 3], "kinds": [4, 2, 3]}


def lin(source, size=3, activation=None, **more):
    return {"class": "linear", "activation": activation, "from": source, "n_out": size, **more}


def choice(source, target="classes", beam_size=3, **more):
    return {"class": "choice", "from": source, "target": target, "beam_size": beam_size, "initial_output": 0, **more}


def decoder(unit, **more):
    """A loop with a state and the scores "prob" of the target."""
    base = {
        "s": lin(["prev:emb", "prev:s", "base:ctx"], 4, "tanh"),
        "emb": lin("output"),
        "prob": {"class": "softmax", "from": "s", "target": "classes"},
        "output": choice("prob"),
        "end": {"class": "compare", "from": "output", "value": 0},
        "f": {"class": "copy", "from": "prob", "is_output_layer": True},
    }
    return {
        "ctx": {"class": "reduce", "mode": "mean", "axes": "T", "from": "data"},
        "output": {"class": "rec", "from": [], "target": "classes", "max_seq_len": 6, "unit": {**base, **unit}},
        **more,
    }


def run(net, *, search=False, seed=1, **how):
    made = randomised(network(net, DATA, search=search, **how), 1.0)
    made.seed(seed)
    with torch.no_grad():
        return made, made(*batch(DATA, LENGTHS))


CLASSES = batch(DATA, LENGTHS)[0]["classes"].to(torch.int32)


def test_without_search_it_is_the_target():
    made, out = run(decoder({"prob": {"class": "softmax", "from": "s", "target": "classes"}, "f": lin("output")}))
    assert torch.equal(out["output"].batch_major().data, CLASSES)
    assert "output/rec/prob/W" not in made.params  # the scores are not needed


def test_without_search_and_target():
    with pytest.raises(ConfigError, match="without search `choice` needs a target"):
        network(decoder({"output": choice("prob", target=None)}), DATA)


@pytest.mark.parametrize("moved", [True, False])
def test_sampling(moved):
    def labels(seed, **opts):
        net = decoder({"output": choice("prob", scheduled_sampling=opts.get("opts", True))})
        return run(net, seed=seed, optimize_move_layers_out=moved)[1]["output"].batch_major().data

    assert torch.equal(labels(1, opts={"gold_mixin_prob": 1.0}), CLASSES)
    first = labels(1)
    assert first.dtype == torch.int32 and first.shape == CLASSES.shape and int(first.max()) < 5
    assert torch.equal(first, labels(1)) and not torch.equal(first, labels(2))
    mixed = labels(3, opts={"gold_mixin_prob": 0.5})
    assert not torch.equal(mixed, CLASSES)


def test_samples_follow_the_scores():
    unit = {
        "best": {"class": "reduce", "mode": "argmax", "axes": "F", "from": "prob", "is_output_layer": True},
        "peak": {"class": "eval", "from": "prob", "eval": "tf.nn.softmax(1e4 * source(0))"},
        "output": choice("peak", scheduled_sampling=True),
    }
    best = {"class": "copy", "from": "output/best", "is_output_layer": True}
    _, out = run(decoder(unit, best=best))
    assert torch.equal(out["output"].batch_major().data, out["best"].batch_major().data)


@pytest.mark.parametrize("search", [False, True])
def test_several_targets(search):
    """Two decisions at once: parts of the choice."""
    unit = {
        "prob2": {"class": "softmax", "from": "s", "n_out": 3},
        "output": choice(["prob", "prob2"], ["classes", "kinds" if search else "kind"], 4, source_beam_sizes=[3, 2]),
        "one": {"class": "copy", "from": "output/out_0", "is_output_layer": True},
        "two": {"class": "copy", "from": "output/out_1", "is_output_layer": True, "initial_output": 0},
        "s": lin(["prev:emb", "prev:s", "prev:e2", "base:ctx"], 4, "tanh"),
        "e2": lin("two"),
        "kind": {"class": "rec_unstack", "from": "base:kinds"},
    }
    more = {n: {"class": "copy", "from": f"output/{n}", "is_output_layer": True} for n in ("one", "two")}
    more["kinds"] = {"class": "reinterpret_data", "from": "data:kinds", "size_base": "data:classes"}
    _, out = run(decoder(unit, **more), search=search)
    if search:
        assert torch.equal(out["one"].data, out["output"].data)
        assert int(out["two"].data.max()) < 3 and out["two"].beam.size == 4
    else:
        kinds = batch(DATA, LENGTHS)[0]["kinds"].to(torch.int32)
        assert torch.equal(out["one"].batch_major().data, CLASSES)
        assert torch.equal(out["two"].batch_major().data, kinds)


def test_two_choices_score_as_their_labels():
    """The score of a hypothesis is the sum of the scores of both decisions of its steps."""
    unit = {
        "prob2": {"class": "softmax", "from": ["s"], "n_out": 3},
        "kind": choice("prob2", "kinds", 2, is_output_layer=True, length_normalization=False),
        "e2": lin("kind", initial_output=0),
        "s": lin(["prev:emb", "prev:s", "prev:e2", "base:ctx"], 4, "tanh"),
        "prob": {"class": "softmax", "from": ["s", "e2"], "target": "classes"},
        "output": choice("prob", beam_size=4, length_normalization=False),
    }
    net = decoder(unit, kind={"class": "copy", "from": "output/kind", "is_output_layer": True})
    made, out = run(net, search=True)
    p = {n.removeprefix("output/rec/"): v.detach() for n, v in made.params.items()}
    ctx, words, kinds = out["ctx"].data, out["output"].batch_major(), out["kind"].batch_major()
    ends = words.length(words.spec.dims[1]).values.tolist()
    for i in range(12):
        emb, e2, s, total = torch.zeros(3), torch.zeros(3), torch.zeros(4), 0.0
        for t in range(min(ends[i] + 1, 6)):
            s = torch.tanh(torch.cat([emb, s, e2, ctx[i // 4]]) @ p["s/W"] + p["s/b"])
            total += torch.log_softmax(s @ p["prob2/W"] + p["prob2/b"], 0)[kinds_at(kinds, i, t)]
            e2 = p["e2/W"][kinds_at(kinds, i, t)] + p["e2/b"]
            logits = torch.cat([s, e2]) @ p["prob/W"] + p["prob/b"]
            word = int(words.data[i, t]) if t < ends[i] else 0
            total += torch.log_softmax(logits, 0)[word]
            emb = p["emb/W"][word] + p["emb/b"]
        if ends[i] + 1 == words.data.shape[1] + 1 or ends[i] == 6:
            torch.testing.assert_close(out["output"].beam.scores.flatten()[i], total, rtol=1e-4, atol=1e-4)


def kinds_at(kinds, i, t):
    """The label of a frame; behind the output's frames 0."""
    return int(kinds.data[i, t]) if t < kinds.data.shape[1] else 0


def test_regression_feeds_the_prediction_back():
    unit = {
        "s": lin(["prev:fed", "base:ctx"], 4, "tanh"),
        "output": lin("s", 4, target="data", loss="mse"),
        "fed": choice("output", "data", 1, input_type="regression", initial_output="zeros"),
    }
    net = {
        "ctx": {"class": "reduce", "mode": "mean", "axes": "T", "from": "data"},
        "output": {"class": "rec", "from": [], "target": "data", "max_seq_len": 3, "unit": {
            **unit, "end": {"class": "compare", "from": ":i", "value": 5},
        }},
    }  # fmt: skip
    made, out = run(net, search=True)
    p = {n.removeprefix("output/rec/"): v.detach() for n, v in made.params.items()}
    fed = torch.zeros(3, 4)
    for t in range(3):
        fed = torch.tanh(torch.cat([fed, out["ctx"].data], 1) @ p["s/W"] + p["s/b"]) @ p["output/W"] + p["output/b"]
        torch.testing.assert_close(out["output"].batch_major().data[:, t], fed)
    assert out["output"].beam.scores.tolist() == [[0.0], [0.0], [0.0]]
    with pytest.raises(ConfigError, match='`beam_size` must be 1 with `input_type` "regression"'):
        network({**net, "output": {**net["output"], "unit": {**unit, "fed": {**unit["fed"], "beam_size": 2}}}}, DATA)


def test_layers_that_read_hypotheses():
    unit = {
        "scores": {"class": "choice_get_beam_scores", "from": "output", "is_output_layer": True},
        "came": {"class": "choice_get_src_beams", "from": "output", "is_output_layer": True},
        "raw": {"class": "decide_keep_beam", "from": "output", "is_output_layer": True},
    }
    names = ("scores", "came", "raw")
    more = {n: {"class": "copy", "from": f"output/{n}", "is_output_layer": True} for n in names}
    more["split"] = {"class": "split_batch_beam", "from": "output", "is_output_layer": True}
    more["final"] = {"class": "choice_get_beam_scores", "from": "output", "is_output_layer": True}
    more["dense"] = {"class": "decide", "from": "vector", "is_output_layer": True}
    more["vector"] = {"class": "reduce", "mode": "mean", "axes": "T", "from": "emb"}
    more["emb"] = lin("output")
    _, out = run(decoder({**unit, "output": choice("prob", length_normalization=False)}, **more), search=True)
    labels, raw, came = (out[n].batch_major().data.unflatten(0, (3, 3)) for n in ("output", "raw", "came"))
    scores = out["scores"].batch_major().data.unflatten(0, (3, 3))
    assert torch.equal(out["final"].data.unflatten(0, (3, 3)), out["output"].beam.scores)
    ticks = labels.shape[2]
    assert (scores[:, :, 1:] <= scores[:, :, :-1] + 1e-6).all()
    # followed back by the raw values: the label of the ancestor at each tick
    assert int(came[:, :, 0].max()) == 0 and ticks > 1
    assert (raw[:, :, 0].sort(1).values[:, 1:] != raw[:, :, 0].sort(1).values[:, :-1]).all()  # three labels at first
    for t in range(ticks):
        assert set(labels[0, :, t].tolist()) <= set(raw[0, :, t].tolist())
    assert torch.equal(out["split"].data[:, :, :ticks], labels)
    best = out["output"].beam.scores.argmax(1)
    vectors = out["vector"].batch_major().data.unflatten(0, (3, 3))
    assert torch.equal(out["dense"].data, vectors[torch.arange(3), best])


@pytest.mark.parametrize("kind", ["choice_get_beam_scores", "choice_get_src_beams", "split_batch_beam"])
def test_they_need_a_search(kind):
    net = decoder({}, x={"class": kind, "from": "output", "is_output_layer": True})
    with pytest.raises(ConfigError, match="needs the hypotheses of a search"):
        run(net)


def test_decide_with_lengths():
    decision = {"class": "decide", "from": "output", "length_normalization": True, "is_output_layer": True}
    _, out = run(decoder({}, decision=decision), search=True)
    whole = out["output"].batch_major()
    lengths = whole.length(whole.spec.dims[1]).values.unflatten(0, (3, 3))
    scores = (whole.beam.scores / lengths).tolist()
    want = [max(range(3), key=lambda k, row=row: row[k] if not math.isnan(row[k]) else -math.inf) for row in scores]
    decided = out["decision"].beam
    best = [row[k] for row, k in zip(scores, want, strict=True)]
    torch.testing.assert_close(decided.scores[:, 0].tolist(), best)
    assert decided.decided


WRONG = {
    "no target": ({"class": "choice", "from": "prob", "beam_size": 2}, "`choice` needs the option 'target'"),
    "no beam size": ({"class": "choice", "from": "prob", "target": "classes"}, "needs the option 'beam_size'"),
    "beam size": (choice("prob", beam_size=0), "`beam_size` must be an int from 1 to .*, but is 0 instead"),
    "input type": (choice("prob", input_type="log_probs"), "but is 'log_probs' instead; did you mean \"log_prob\""),
    "cheating": (choice("prob", cheating="often"), "but is 'often' instead"),
    "unknown option": (choice("prob", beam_sizes=2), "has no option 'beam_sizes'"),
    "given with normalisation": (choice("prob", search=False), "`length_normalization` must be False"),
    "two sources cheating": (choice(["prob", "prob"], cheating=True), "`cheating` works with one source only"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_errors(name):
    layer, text = WRONG[name]
    with pytest.raises((ConfigError, ConfigErrors), match=text):
        network(decoder({"output": layer}), DATA, search=True)


def test_losses_compare_every_hypothesis_with_the_target():
    copied = {"class": "copy", "from": "output", "loss": "edit_distance", "target": "classes"}
    _, out = run(decoder({}, all=copied), search=True)
    found = out["all"].batch_major()
    lengths = found.length(found.spec.dims[1]).values
    targets, ends = CLASSES.repeat_interleave(3, 0), torch.tensor(LENGTHS["classes"]).repeat_interleave(3)
    assert out.losses["all"].error == edit_distance(found.data, lengths, targets, ends).sum()
    assert out.losses["all"].inv_norm == 3 * sum(LENGTHS["classes"])
