"""Beam search in loops against a plain search over a small recurrent model."""

import math

import pytest
import torch

from tests.nets import batch, network, randomised
from tests.rec.plain_search import Options, search

CLASSES = 5
DATA = {"data": {"dim": 4}, "classes": {"dim": CLASSES, "sparse": True}}
LENGTHS = {"data": [5, 3, 2], "classes": [4, 2, 3]}


def lin(source, size=3, activation=None, **more):
    return {"class": "linear", "activation": activation, "from": source, "n_out": size, **more}


def decoder(choice=None, more=None, **rec):
    """A loop over a small recurrent model with a choice."""
    unit = {
        "emb": lin("output", 3, with_bias=False, initial_output=0),
        "s": lin(["prev:emb", "prev:s"], 4, "tanh"),
        "prob": {"class": "softmax", "from": ["s", "base:ctx"], "target": "classes"},
        "output": {
            "class": "choice", "from": "prob", "target": "classes", "beam_size": 3, "initial_output": 0,
            **(choice or {}),
        },
        "end": {"class": "compare", "from": "output", "value": 0},
        **(more or {}),
    }  # fmt: skip
    return {
        "ctx": {"class": "reduce", "mode": "mean", "axes": "T", "from": "data"},
        "output": {"class": "rec", "from": [], "target": "classes", "max_seq_len": 6, "unit": unit, **rec},
        "decision": {"class": "decide", "from": "output", "is_output_layer": True},
    }


def made(net, scale=1.0):
    found = randomised(network(net, DATA, search=True), scale)
    with torch.no_grad():  # sequences end early enough
        found.params["output/rec/prob/b"][0] += 0.7
    return found


def model(net, data, lengths):
    """log_prob functions of the batch entries."""
    p = net.params
    means = [data["data"][b, :n].mean(0) for b, n in enumerate(lengths["data"].tolist())]

    def of(b):
        def log_prob(labels, tick):
            emb, s = torch.zeros(3), torch.zeros(4)
            for label in (None, *labels):
                emb = p["output/rec/emb/W"][label] if label is not None else emb
                s = torch.tanh(torch.cat([emb, s]) @ p["output/rec/s/W"] + p["output/rec/s/b"])
            logits = torch.cat([s, means[b]]) @ p["output/rec/prob/W"] + p["output/rec/prob/b"]
            return torch.log_softmax(logits, 0).tolist()

        return log_prob

    return [of(b) for b in range(len(means))]


def check(net, opts, scale=1.0):
    """Holds labels, lengths and scores of a net against the plain search."""
    net = made(net, scale)
    data, lengths = batch(DATA, LENGTHS)
    with torch.no_grad():
        out = net(data, lengths)
    want = search(model(net, data, lengths), opts)
    got = out["output"].batch_major()
    dim = got.spec.dims[1]
    ends = got.length(dim).values.tolist()
    hyps = [h for s in want for h in s]
    assert ends == [h.length for h in hyps]
    assert [got.data[i, :n].tolist() for i, n in enumerate(ends)] == [list(h.labels[: h.length]) for h in hyps]
    torch.testing.assert_close(got.beam.scores.flatten(), torch.tensor([h.score for h in hyps]), rtol=1e-4, atol=1e-5)
    first = [max(range(len(s)), key=lambda k: s[k].score) for s in want]
    decided = out["decision"].batch_major()
    assert decided.length(dim).values.tolist() == [s[k].length for s, k in zip(want, first, strict=True)]
    assert decided.data.shape[1] == max(s[k].length for s, k in zip(want, first, strict=True))
    return out


OPTIONS = {
    "as it is": ({}, {}),
    "one hypothesis": ({"beam_size": 1}, {"beam": 1}),
    "more hypotheses than labels": ({"beam_size": 12}, {"beam": 12}),
    "no length normalisation": ({"length_normalization": False}, {"length_normalization": False}),
    "exponent": ({"length_normalization_exponent": 0.5}, {"exponent": 0.5}),
    "scales": ({"prob_scale": 0.6, "base_beam_score_scale": 1.3}, {"prob_scale": 0.6, "base_scale": 1.3}),
}


@pytest.mark.parametrize("include_eos", [False, True])
@pytest.mark.parametrize("name", list(OPTIONS))
def test_options(name, include_eos):
    choice, plain = OPTIONS[name]
    opts = Options(**plain, include_eos=include_eos)
    check(decoder(choice, include_eos=include_eos), [opts] * 3)


@pytest.mark.parametrize("bound", [1, 2, 3])
@pytest.mark.parametrize("include_eos", [False, True])
def test_bound(bound, include_eos):
    check(decoder(max_seq_len=bound, include_eos=include_eos), [Options(max_len=bound, include_eos=include_eos)] * 3)


def test_bound_by_expression_and_layer():
    opts = [Options(max_len=4)] * 3
    check(decoder(max_seq_len="max_len_from('base:data:data') - 1"), opts)
    net = decoder(max_seq_len=None, max_seq_len_via="bound")
    net["bound"] = {"class": "constant", "value": 4}
    check(net, opts)


@pytest.mark.parametrize("cheating", [True, "exclusive"])
@pytest.mark.parametrize("include_eos", [False, True])
@pytest.mark.parametrize("beam", [1, 3, 7])
def test_cheating(cheating, include_eos, beam):
    target = batch(DATA, LENGTHS)[0]["classes"].tolist()
    opts = [
        Options(beam=beam, cheating=cheating, target=tuple(t[:n]), ticks=4, end=n, include_eos=include_eos)
        for t, n in zip(target, LENGTHS["classes"], strict=True)
    ]
    check(decoder({"cheating": cheating, "beam_size": beam}, include_eos=include_eos), opts)


@pytest.mark.parametrize("include_eos", [False, True])
def test_length_of_a_source(include_eos):
    """Without `end`, the search has as many ticks as the source has frames."""
    net = decoder(more={"end": {"class": "copy", "from": "output"}})
    net["output"]["from"] = "data:data"
    net["output"]["include_eos"] = include_eos
    del net["output"]["unit"]["end"]
    opts = [Options(ticks=5, end=n, include_eos=include_eos) for n in LENGTHS["data"]]
    check(net, opts)


def test_kept_beams():
    """Two choices: the second keeps every hypothesis of the first."""
    more = {
        "first": {
            "class": "choice", "from": "prob", "target": "classes", "beam_size": 2, "initial_output": 0,
            "length_normalization": False,
        },
        "after": {"class": "softmax", "from": ["first_emb", "base:ctx"], "target": "classes"},
        "first_emb": lin("first"),
    }  # fmt: skip
    choice = {"from": "after", "keep_beams": True, "beam_size": 4}
    assert network_output(made(decoder(choice, more)))["output"].beam.size == 4
    with pytest.raises(Exception, match="multiple of the incoming beam size 2"):
        network_output(made(decoder({**choice, "beam_size": 3}, more)))


def network_output(net):
    with torch.no_grad():
        return net(*batch(DATA, LENGTHS))


def test_all_empty():
    """Every hypothesis ends at once: no frame is left."""
    net = made(decoder({"beam_size": 1}))
    with torch.no_grad():
        net.params["output/rec/prob/b"][0] = 100.0
    out = network_output(net)
    assert out["output"].batch_major().data.shape == (3, 0)
    assert out["decision"].batch_major().data.shape == (3, 0)


def test_function_combines_the_scores():
    seen = []

    def combine(layer, scores_in, scores_base, t, end_flags, batch_dim, scores_beam_in, base_beam_in, **kwargs):
        assert (batch_dim, base_beam_in) == tuple(scores_base.shape[:2]) == tuple(end_flags.shape)
        explicit = layer.explicit_search_sources[0].output.placeholder
        seen.append((int(t), scores_beam_in, layer.beam_size, tuple(explicit.shape)))
        return scores_base + scores_in * 0.6

    choice = {"custom_score_combine": combine, "explicit_search_sources": ["prev:emb"]}
    check(decoder(choice), [Options(prob_scale=0.6)] * 3)
    assert seen[0] == (0, 1, 3, (3, 3)) and seen[1] == (1, 3, 3, (9, 3))


def test_wrong_shape_of_combined_scores():
    net = made(decoder({"custom_score_combine": lambda scores_in, **kwargs: scores_in[:, 0]}))
    with pytest.raises(Exception, match=r"must return scores \(3, 1, 5\), but returned \(3, 5\) instead"):
        network_output(net)


def test_noise_is_seeded():
    net = made(decoder({"random_sample_scale": 1.0}))
    found = []
    for seed in (1, 1, 2):
        net.seed(seed)
        found.append(network_output(net)["output"].beam.scores)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize("tags", [["a"], ["a", "b", "c"]])
def test_a_loop_that_reads_no_data(tags):
    """One hypothesis for each sequence of the batch, as a language model writes texts."""
    unit = {
        "emb": lin("prev:output", with_bias=False),
        "prob": {"class": "softmax", "from": "emb", "target": "classes"},
        "output": {
            "class": "choice", "from": "prob", "target": "classes", "beam_size": 1, "initial_output": 0,
            "random_sample_scale": 1.0,
        },
        "end": {"class": "compare", "from": "output", "value": 0},
    }  # fmt: skip
    rec = {"class": "rec", "from": [], "target": "classes", "max_seq_len": 6, "unit": unit}
    net = randomised(network({"output": rec}, DATA, search=True))
    assert not net.used_data_keys
    with torch.no_grad():
        output = net({}, {}, tags=tags)["output"].batch_major()
    assert output.data.shape[0] == len(tags) and 0 < output.data.shape[1] <= 6


def test_several_sources():
    """Two decisions at once: the scores are those of the best combinations of an exhaustive search."""
    choice = {"from": ["prob", "prob2"], "target": ["classes", "classes"], "source_beam_sizes": [5, 5], "beam_size": 25}
    more = {"prob2": {"class": "softmax", "from": "base:ctx", "target": "classes"}}
    net = made(decoder(choice, more, max_seq_len=1))
    out = network_output(net)
    data, lengths = batch(DATA, LENGTHS)
    functions = model(net, data, lengths)
    for b, n in enumerate(lengths["data"].tolist()):
        first = functions[b]((), 0)
        logits = data["data"][b, :n].mean(0) @ net.params["output/rec/prob2/W"] + net.params["output/rec/prob2/b"]
        second = torch.log_softmax(logits, 0).tolist()
        sums = sorted((x + y for x in first for y in second), reverse=True)
        scores = out["output"].beam.scores[b] * (out["output"].length(out["output"].spec.dims[0]).max + 1)
        torch.testing.assert_close(scores, torch.tensor(sums), rtol=1e-4, atol=1e-4)


def test_target_scored_in_a_search():
    """`search` False: the target, its scores added."""
    choice = {"search": False, "length_normalization": False}
    net = made(decoder(choice))
    data, lengths = batch(DATA, LENGTHS)
    out = network_output(net)
    assert torch.equal(out["output"].batch_major().data, data["classes"].to(torch.int32))
    more = {
        "free": {
            "class": "choice", "from": "prob2", "target": "classes", "beam_size": 2, "length_normalization": False,
        },
        "prob2": {"class": "softmax", "from": "free_in", "target": "classes"},
        "free_in": lin(["base:ctx", "emb", "prev:free_emb"]),
        "free_emb": lin("free", initial_output=0),
    }  # fmt: skip
    net = made(decoder(choice, {**more, "f": {"class": "copy", "from": "free", "is_output_layer": True}}))
    assert network_output(net)["output"].beam.size == 2


def test_hypotheses_are_as_good_as_their_labels():
    """Search with all hypotheses kept finds the sequence with the largest probability."""
    net = made(decoder({"beam_size": 5 + 4 * 5 + 4 * 4 * 5, "length_normalization": False}, max_seq_len=3))
    data, lengths = batch(DATA, LENGTHS)
    out = network_output(net)
    for b, log_prob in enumerate(model(net, data, lengths)):
        every = {(): 0.0}
        finished = {}
        for tick in range(3):
            longer = {(*s, v): x + p for s, x in every.items() for v, p in enumerate(log_prob(s, tick))}
            finished |= {s: x for s, x in longer.items() if s[-1] == 0}
            every = {s: x for s, x in longer.items() if s[-1] != 0}
        sums = sorted((*finished.values(), *every.values()), reverse=True)
        got = [x for x in out["output"].beam.scores[b].tolist() if math.isfinite(x) and x > -1e29]
        torch.testing.assert_close(torch.tensor(got), torch.tensor(sums), rtol=1e-4, atol=1e-4)


def test_a_loop_inside_a_search():
    """A loop over another axis at each tick, without a choice of its own, is a recurrent layer written out."""
    plain = {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": "hin"}
    inner = {"s": {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": "data:source"}}
    written = {"class": "rec", "from": "hin", "unit": {**inner, "output": {"class": "copy", "from": "s"}}}
    found = []
    for h in (plain, written):
        more = {
            "hin": {"class": "combine", "kind": "add", "from": ["base:keys", "q"]},
            "q": lin(["prev:emb", "prev:att"]),
            "h": h,
            "att": {"class": "reduce", "mode": "mean", "axes": "T", "from": "h", "n_out": 3},
            "scores": {"class": "softmax", "from": ["prob", "att"], "target": "classes"},
        }
        net = made({**decoder({"from": "scores"}, more), "keys": lin("data")})
        with torch.no_grad():
            for name, p in net.params.items():
                if "/h/" in name:
                    p.fill_({"W": 0.3, "W_re": -0.4, "b": 0.1}[name.rsplit("/", 1)[1]])
        found.append(network_output(net)["output"])
    assert torch.equal(found[0].data, found[1].data)
    torch.testing.assert_close(found[0].beam.scores, found[1].beam.scores)


@pytest.mark.parametrize("known", [True, False])
def test_search_on_search(known):
    """A second loop reads the hypotheses of a first one: as if each was searched on by itself."""
    unit = {
        "s": lin(["prev:e2", "prev:s", "base:ctx2"], 3, "tanh"),
        "e2": lin("output", 3, with_bias=False, initial_output=0),
        "prob": {"class": "softmax", "from": ["s"], "target": "classes"},
        "output": {
            "class": "choice", "from": "prob", "target": "classes", "beam_size": 3, "initial_output": 0,
            "length_normalization": False,
        },
        "end": {"class": "compare", "from": "output", "value": 0},
    }  # fmt: skip
    second = {"class": "rec", "from": "emb1" if known else [], "max_seq_len": 4, "unit": unit}
    if known:
        del unit["end"]
        unit["s"]["from"] = [*unit["s"]["from"], "x"]
        unit["x"] = lin("data:source")
    ctx2 = {"class": "reduce", "mode": "mean", "axes": "T", "from": "emb1"}
    net = decoder()
    first = net.pop("output")
    net = {**net, "first": first, "emb1": lin("first"), "ctx2": ctx2, "output": second}
    found = randomised(network(net, DATA, search=True), 1.0)
    with torch.no_grad():
        out = found(*batch(DATA, LENGTHS))
    one, two = out["first"], out["output"]
    assert two.beam.parent is one.beam and two.beam.size == 3
    rows = two.beam.source.unflatten(0, (3, 3))
    assert ((rows // 3) == torch.arange(3).unsqueeze(1)).all()
    got = two.batch_major()
    p = found.params
    means = out["ctx2"].batch_major().data
    emb1 = out["emb1"].batch_major().data
    for i in range(9):
        source, total = int(two.beam.source[i]), one.beam.scores.flatten()[int(two.beam.source[i])]
        n = int(got.length(got.spec.dims[1]).values[i])
        e, s = torch.zeros(3), torch.zeros(3)
        for t in range(n if known else min(n + 1, 4)):
            x = [emb1[source, t] @ p["output/rec/x/W"] + p["output/rec/x/b"]] if known else []
            s = torch.tanh(torch.cat([e, s, means[source], *x]) @ p["output/rec/s/W"] + p["output/rec/s/b"])
            log_prob = torch.log_softmax(s @ p["output/rec/prob/W"] + p["output/rec/prob/b"], 0)
            total = total + log_prob[int(got.data[i, t])]
            e = p["output/rec/e2/W"][int(got.data[i, t])]
        if known and n + 1 < got.data.shape[1]:
            continue  # one tick more counts behind the end of a shorter sequence
        if not known or n == got.data.shape[1]:
            torch.testing.assert_close(two.beam.scores.flatten()[i], total, rtol=1e-4, atol=1e-4)
