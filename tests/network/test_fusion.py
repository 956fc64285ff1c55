"""Layers computed by one call: the numbers, what is fused, and what is not since somebody reads it."""

import pytest
import torch

from returnn_lite.layers.joint_linear import JointLinear
from returnn_lite.network.fusion.attention import Attention
from returnn_lite.network.fusion.attention_plan import attention_plan
from returnn_lite.tensor import Dim
from tests.nets import batch, gradients, network, randomised, valid_part

DATA = {
    "data": {"dim": 6},
    "classes": {"dim": 5, "sparse": True},
    "other": {"dim": 3},
    "one": {"dim": 4, "shape": (4,), "time_dim_axis": None},
}
LENGTHS = {"data": [5, 3, 1], "classes": [4, 4, 2], "other": [2, 4, 3]}
HEADS = (2, 3)


def linear(source, size=6, **more):
    return {"class": "linear", "activation": None, "with_bias": False, "from": source, "n_out": size, **more}


def split(source):
    return {"class": "split_dims", "axis": "F", "dims": HEADS, "from": source}


def softmax(source, **more):
    return {"class": "softmax_over_spatial", "from": source, **more}


def weighted(weights, base):
    return {"class": "generic_attention", "weights": weights, "base": base}


def product(*sources, red="F", **more):
    return {"class": "dot", "from": list(sources), "red1": red, "red2": red, **more}


MERGED = {"class": "merge_dims", "axes": "static", "from": "att"}
ONE_QUERY = {
    "k": split("k0"),
    "k0": linear("data"),
    "v": split("v0"),
    "v0": linear("data"),
    "q": split("q0"),
    "q0": linear("last"),
    "last": {"class": "reduce", "mode": "mean", "axes": "T", "from": "data:other"},
    "e": product("k", "q", red=-1, var1="T", var2="T?"),
    "w": softmax("e"),
    "att": weighted("w", "v"),
    "a": MERGED,
    "output": {**linear("a", 4), "loss": "mse", "target": "one"},
}
FREE = {"class": "dropout", "dropout": 0.4, "dropout_noise_shape": {"*": None}}


def with_layers(**layers):
    return {**ONE_QUERY, **layers}


def scaled(text):
    return {"class": "eval", "from": "e", "eval": text}


NETS = {
    "one query": with_layers(),
    "with a factor": with_layers(w=softmax("e", energy_factor=0.5)),
    "scaled by eval": with_layers(s=scaled("source(0) * 0.25"), w=softmax("s")),
    "divided by eval": with_layers(s=scaled("source(0) / 4"), w=softmax("s")),
    "scaled on the left": with_layers(s=scaled("3. * source(0)"), w=softmax("s")),
    "shifted": with_layers(
        s0=scaled("source(0) * 0.25"),
        b=linear("data", 2),
        s={"class": "combine", "kind": "add", "from": ["s0", "b"]},
        w=softmax("s", energy_factor=0.5),
    ),
    "dropped out": with_layers(w0=softmax("e"), w={**FREE, "from": "w0"}),
    "copied": with_layers(w0=softmax("e"), w={"class": "copy", "from": "w0"}),
    "summed by dot": with_layers(att=product("w", "v", red="T", var1="static:-1", var2="static:-1")),
}
DECODER = {
    "output": {"class": "choice", "target": "classes", "beam_size": 2, "from": "prob", "initial_output": 0},
    "x": linear("prev:output"),
    "q0": linear("x"),
    "q": split("q0"),
    "e": product("base:k", "q", red=-1, var1="T", var2="T?"),
    "w": softmax("e", energy_factor=0.5),
    "att": weighted("w", "base:v"),
    "a": MERGED,
    "prob": {"class": "softmax", "loss": "ce", "from": ["a", "x"], "target": "classes"},
}
LOOP = {"class": "rec", "from": [], "target": "classes", "max_seq_len": 9, "unit": DECODER}
NETS["moved out of a loop"] = {**{key: ONE_QUERY[key] for key in ("k", "k0", "v", "v0")}, "output": LOOP}
BOTH = {"class": "combine", "from": ["e", "b"]}
AS_IS = {"class": "copy", "loss": "as_is"}
NOT_FUSED = {
    "the weights are read": with_layers(more={**AS_IS, "from": "w"}),
    "the weights are an output": with_layers(w=softmax("e", is_output_layer=True)),
    "the energies are read": with_layers(more={**AS_IS, "from": "e"}),
    "the weights have a loss": with_layers(w=softmax("e", loss="as_is")),
    "another axis": with_layers(w=softmax("e", axis="static:0"), att=weighted("w", "v")),
    "its logarithm": with_layers(w=softmax("e", log_space=True)),
    "no mask": with_layers(w=softmax("e", use_time_mask=False)),
    "another expression": with_layers(s=scaled("source(0) ** 2"), w=softmax("s")),
    "a maximum": with_layers(b=linear("data", 2), s={**BOTH, "kind": "maximum"}, w=softmax("s")),
}  # fmt: skip


def fused(net):
    """The names of the layers that one call computes, with those in loops."""
    programs = [net.program, *(layer.program for layer in net.program.layers if hasattr(layer, "_program"))]
    return [line for program in programs for line in program.fusion.lines]


def pair(description, **options):
    return [randomised(network(description, DATA, network_fusion=on, **options), 0.5) for on in (True, False)]


@pytest.mark.parametrize("name", NETS)
def test_one_call_gives_the_numbers_of_the_layers(name):
    with_fusion, without = pair(NETS[name])
    assert fused(with_fusion)
    assert not fused(without)
    data, lengths = batch(DATA, LENGTHS, padding="garbage")
    found, want = (net(data, lengths) for net in (with_fusion, without))
    torch.testing.assert_close(found.objective, want.objective)
    torch.testing.assert_close(valid_part(found["output"]), valid_part(want["output"]))
    grads = [gradients(net, out.objective) for net, out in ((with_fusion, found), (without, want))]
    for key, grad in grads[1].items():
        torch.testing.assert_close(grads[0][key], grad, rtol=1e-4, atol=1e-5)
    assert with_fusion.params.keys() == without.params.keys()


@pytest.mark.parametrize("name", NETS)
def test_the_call_is_one_for_these_axes(name, monkeypatch):
    net = pair(NETS[name])[0]
    monkeypatch.setattr(Attention, "_layer_by_layer", lambda *_: pytest.fail("layer by layer"))
    net(*batch(DATA, LENGTHS))


@pytest.mark.parametrize("name", [n for n in NETS if n != "moved out of a loop"])
def test_layers_inside_are_computed_for_who_asks(name):
    with_fusion, without = pair(NETS[name])
    data, lengths = batch(DATA, LENGTHS)
    found, want = (net(data, lengths) for net in (with_fusion, without))
    for layer in with_fusion.layers:
        torch.testing.assert_close(valid_part(found[layer]), valid_part(want[layer]))


@pytest.mark.parametrize("name", NOT_FUSED)
def test_what_others_read_or_does_more_is_left_alone(name):
    net = network(NOT_FUSED[name], DATA)
    assert torch.isfinite(net(*batch(DATA, LENGTHS)).objective)
    assert not [line for line in fused(net) if "attention" in line]


def test_one_dropout_mask_for_all_weights_is_drawn_as_ever():
    shared = with_layers(w0=softmax("e"), w={"class": "dropout", "dropout": 0.4, "from": "w0"})
    nets = [net.train() for net in pair(shared)]
    found = [net(*batch(DATA, LENGTHS)).objective for net in nets]
    assert fused(nets[0])
    torch.testing.assert_close(*found)


def test_the_log_says_what_is_fused():
    net = network(NETS["scaled by eval"], DATA)
    assert net.program.fusion.lines == ("e, s, w, att: attention",)
    assert "fused e, s, w, att: attention" in str(net.program)


def test_dropout_drops_in_training_alone():
    net = randomised(network(NETS["dropped out"], DATA))
    data, lengths = batch(DATA, LENGTHS)
    assert torch.equal(net(data, lengths).objective, net(data, lengths).objective)
    net.train()
    assert not torch.equal(net(data, lengths).objective, net(data, lengths).objective)
    state = net.random_state
    first = net(data, lengths).objective
    net.random_state = state
    assert torch.equal(first, net(data, lengths).objective)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("source", ["data", ["data", "other"]])
def test_projections_of_one_source_are_one_product(with_bias, source, monkeypatch):
    monkeypatch.setattr(JointLinear, "worthwhile", lambda self, x: True)
    keys = {"dim": 3, "same_dim_tags_as": {"t": Dim(None, "frames")}}
    extern = {"data": {**keys, "dim": 6}, "other": keys}
    of = ["data:data", "data:other"] if isinstance(source, list) else "data"
    layers = {name: linear(of, size, with_bias=with_bias) for name, size in (("q", 4), ("k", 4), ("v", 5))}
    sums = {"qk": {"class": "combine", "kind": "mul", "from": ["q", "k"]}}
    output = {"class": "copy", "from": ["qk", "v"], "loss": "as_is"}
    nets = [
        randomised(network({**layers, **sums, "output": output}, extern, network_fusion=on)) for on in (True, False)
    ]
    assert fused(nets[0]) == ["q, k, v: one product"]
    data, lengths = batch(extern, {"frames": [5, 3, 1]})
    found, want = (net(data, lengths) for net in nets)
    for name in ("q", "k", "v", "output"):
        torch.testing.assert_close(found[name].data, want[name].data)
    grads = [gradients(net, out.objective) for net, out in zip(nets, (found, want), strict=True)]
    for key, grad in grads[1].items():
        torch.testing.assert_close(grads[0][key], grad)


EQUATIONS = {  # first, second, axis of the keys -> whether it is an attention
    ("bthd,bhd->bht", "bht,bthv->bhv", 2): True,
    ("bqd,bkd->bqk", "bqk,bkv->bqv", 2): True,
    ("nbhd,bthd->nbht", "nbht,bthv->nbhv", 3): True,
    ("bhqd,bhkd->bhqk", "bhqk,bkv->bhqv", 3): True,
    ("qd,kd->qk", "qk,kv->qv", 1): True,
    ("abcqd,abckd->abcqk", "abcqk,abckv->abcqv", 4): True,
    ("bqd,bkd->bqk", "bqk,bqv->bkv", 2): False,
    ("bqd,bkd->bqk", "bqk,bkv->bv", 2): False,
    ("bqd,bkd->bqk", "bqk,bkqv->bqv", 2): False,
    ("bqd,bked->bqke", "bqke,bkv->bqev", 2): False,
}


@pytest.mark.parametrize("case", EQUATIONS, ids=lambda case: case[0] + " " + case[1])
def test_equations(case):
    first, second, at = case
    plan = attention_plan(first, second, at, 0, added=False, weights_first=True)
    assert (plan is not None) == EQUATIONS[case]
    if plan is None:
        return
    sizes = dict(zip("abcdefhknqtv", (2, 3, 2, 4, 2, 3, 2, 5, 3, 4, 6, 7), strict=True))
    inputs = first.split("->")[0].split(",")
    a, b = (torch.randn([sizes[c] for c in text]) for text in inputs)
    letters = second.split("->")[0].split(",")[1]
    values = torch.randn([sizes[c] for c in letters])
    energies = torch.einsum(first, a, b)
    weights = torch.softmax(energies.movedim(at, -1), -1)
    want = torch.einsum(second, weights, values)
    q, k = (b, a) if plan.swapped else (a, b)
    shape = plan.sizes(q.shape, k.shape)
    assert shape == list(weights.shape)
    made = torch.nn.functional.scaled_dot_product_attention(
        plan.queries(q), plan.keys(k), plan.values(values, shape), scale=1.0
    )
    torch.testing.assert_close(plan.result(made, shape, plan.features_of(values.shape)), want)
