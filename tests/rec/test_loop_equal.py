"""Loops: moved out of the loop or not, the numbers are equal; what names, lengths and initial outputs mean."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from returnn_lite.errors import ConfigError
from returnn_lite.tensor import Dim
from tests.nets import batch, gradients, network, valid_part
from tests.rec.nets import ATTENTION, LANGUAGE_MODEL, SIMPLE, decoder, linear, loop, make, run, softmax

NESTED = {
    "class": "subnetwork", "from": ["emb"],
    "subnetwork": {
        "s": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 3, "from": ["data", "prev:ff"]},
        "ff": linear("s"),
        "output": linear(["ff", "prev:output", "base:emb"]),
    },
}  # fmt: skip
ACCUMULATED = {
    **ATTENTION,
    "sum": {"class": "combine", "kind": "add", "from": ["weights", "prev:sum"]},
    "location": linear("prev:sum"),
    "energy_in": {"class": "combine", "kind": "add", "from": ["base:encoder", "s", "location"]},
}
NETS = {
    "plain": decoder(SIMPLE),
    "attention": decoder(ATTENTION),
    "attention with feedback of its weights": decoder(ACCUMULATED),
    "language model": decoder(LANGUAGE_MODEL),
    "nested sub-network": decoder({"emb": linear("prev:output"), "s": NESTED}),
    "several cells": decoder({
        "emb": linear("prev:output"),
        "lstm": {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": ["emb", "prev:lstm"]},
        "gru": {"class": "rnn_cell", "unit": "gru", "n_out": 3, "from": ["lstm", "prev:later"]},
        "later": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 3, "from": "gru"},
        "s": linear(["lstm", "later"]),
    }),
    "tagger over its source": {
        "output": loop({"s": linear(["data:source", "prev:s"]), "output": softmax("s")}, ["data:frames"]),
    },
    "losses inside": decoder({
        **SIMPLE, "aux": softmax("prev:s", loss_scale=0.3), "two": linear("emb", 2),
        "mse": linear("s", 2, loss="mse", target="layer:two"),
    }),
    "initial outputs": decoder({
        "emb": linear("prev:output"),
        "a": linear(["emb", "prev:b"], initial_output="var"),
        "b": linear(["a", "prev:b"], initial_output=0.5),
        "c": linear(["emb", "prev:c"], initial_output="apply(0)"),
        "d": linear(["emb", "prev:d"], initial_output="base:start"),
        "s": linear(["b", "c", "d", "prev:a"]),
    }) | {"start": {"class": "reduce", "mode": "mean", "axes": "T", "from": "encoder"}},
}  # fmt: skip


def results(net, optimize, loops=("output",)):
    """(losses, gradients, outputs) with layers moved out of the loop or all inside."""
    net = make(net, optimize_move_layers_out=optimize)
    plan = net.program.names["output"].layer.program.plan
    assert optimize or not plan.before + plan.after
    out = run(net)
    losses = {n: v.sum.detach() for n, v in out.losses.items() if v.sum is not None}
    errors = {n: v.error for n, v in out.losses.items()}
    return losses, errors, gradients(net, out.objective), {n: valid_part(out[n]) for n in loops}


def assert_moving_changes_nothing(net):
    moved, inside = results(net, True), results(net, False)
    assert moved[0].keys() == inside[0].keys()
    for first, second in zip(moved, inside, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    return moved


@pytest.mark.parametrize("name", NETS)
def test_moved_out_or_not_the_numbers_are_equal(name):
    losses, _, grads, _ = assert_moving_changes_nothing(NETS[name])
    assert losses and grads
    assert {n for n, g in grads.items() if n.startswith("output/") and not bool(g.any())} == set()


# --- random sub-networks -------------------------------------------------------------------------------------------

NAMES = ["a", "b", "c", "d"]


@st.composite
def units(draw):
    """Dicts of up to four layers of 3 features; each reads the source, earlier layers, or any layer's last output."""
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    unit = {}
    for i, name in enumerate(names):
        known = ["data:source", *names[:i]]
        first = draw(st.sampled_from(known))  # circles of layers that read nothing else have no axes
        others = st.lists(st.sampled_from([*known, *(f"prev:{n}" for n in names)]), max_size=2, unique=True)
        sources = list(dict.fromkeys([first, *draw(others)]))
        unit[name] = draw(st.sampled_from([layer_linear, layer_cell, layer_combine, layer_activation]))(sources)
        unit[name] |= draw(st.sampled_from([{}, {}, {"is_output_layer": True}]))
        if unit[name]["class"] != "rnn_cell":
            unit[name] |= draw(st.sampled_from([{}, {"initial_output": 0.5}, {"initial_output": "var"}]))
    unit["output"] = softmax(draw(st.lists(st.sampled_from(names), min_size=1, unique=True)))
    return unit


def layer_linear(sources):
    return linear(sources)


def layer_cell(sources):
    return {"class": "rnn_cell", "unit": "gru", "n_out": 3, "from": sources}


def layer_combine(sources):
    return {"class": "combine", "kind": "add", "from": sources}


def layer_activation(sources):
    return {"class": "activation", "activation": "tanh", "from": sources[:1]}


@settings(deadline=None, max_examples=40, derandomize=True)
@given(unit=units())
def test_moving_changes_nothing_in_any_small_net(unit):
    assert_moving_changes_nothing({"output": loop(unit, ["data:frames"])})


# --- what names mean inside ----------------------------------------------------------------------------------------


def test_the_counter():
    as_float = {"eval": "source(0) + tf.cast(source(1), tf.float32)"}
    unit = {"output": {"class": "eval", "from": ["data:source", ":i"], **as_float}}
    net = make({"output": loop(unit, ["data:frames"])})
    out = run(net)
    frames = run(make({"output": {"class": "copy", "from": "data:frames"}}))["output"].data
    counted = out["output"].batch_major().data - frames
    torch.testing.assert_close(counted[0, :, 0], torch.arange(4.0))


def test_the_loop_is_equal_to_a_plain_loop_in_python():
    unit = {"output": linear(["data:source", "prev:output"], initial_output=1.0)}
    net = make({"output": loop(unit, ["data:frames"])})
    weights, bias = net.params["output/rec/output/W"], net.params["output/rec/output/b"]
    x = run(make({"output": {"class": "copy", "from": "data:frames"}}))["output"].data
    out = run(net)["output"]
    h = torch.ones(3, 3)
    for t in range(x.shape[1]):
        h = torch.tanh(torch.cat([x[:, t], h], -1) @ weights + bias)
        torch.testing.assert_close(out.data[t], h)
    assert out.spec.time == 0 and out.length(out.spec.dims[0]).values.tolist() == [3, 4, 2]


def test_layers_of_the_loop_are_seen_from_outside():
    inside = linear(["data:source", "prev:h"], is_output_layer=True)
    unit = {"h": inside, "after": linear("h"), "output": linear("after")}
    net = make({"output": linear(["rec", "rec/h", "rec/after"]), "rec": loop(unit, ["data:frames"])})
    assert net.params["output/W"].shape == (9, 3)


def test_a_layer_inside_the_loop_is_hidden_from_outside():
    unit = {"h": linear(["data:source", "prev:h"]), "output": linear(["h", "prev:output"])}
    with pytest.raises(ConfigError) as caught:
        make({"output": linear(["rec", "rec/h"]), "rec": loop(unit, ["data:frames"])})
    assert "layer 'h' runs inside the loop" in str(caught.value) and '"is_output_layer": True' in str(caught.value)


def test_unused_layers_may_be_wrong():
    unit = {"output": linear("data:source"), "unused": {"class": "nonsense"}}
    assert set(make({"output": loop(unit, ["data:frames"])}).params) == {"output/rec/output/W", "output/rec/output/b"}


def test_losses_inside_bear_the_loops_name():
    out = run(make(NETS["losses inside"]))
    assert set(out.losses) == {"output/prob", "output/aux", "output/mse"}
    assert float(out.losses["output/prob"].inv_norm) == 9


# --- mistakes ------------------------------------------------------------------------------------------------------


SOURCE = ["data:frames"]
LABELS = {"class": "copy", "from": "data:classes"}
OTHER = Dim(None, "other")
WRONG = [
    ({"s": linear("data:source")}, SOURCE, 'the unit needs a layer "output"'),
    ({"output": linear("data:source")}, [], "'data:source' needs a source, but `from` of the rec layer is empty"),
    ({"output": linear("prev:prev:output")}, SOURCE, '"prev:prev:output" is impossible: only one tick is kept'),
    ({"output": linear("prev:nope")}, SOURCE, "layer 'nope' not found"),
    ({"output": linear("nope")}, SOURCE, "layer 'nope' not found"),
    ({"output": linear("base:nope")}, SOURCE, "layer 'nope' not found"),
    ({"output": linear("a"), "a": linear("output")}, SOURCE, "there is a dependency loop on layer 'output'"),
    ({"output": linear("data:source", bias=1)}, SOURCE, "layer class 'linear' has no option 'bias'"),
    ({"output": linear(["data:source", "prev:x"]), "x": LABELS}, SOURCE, "only if all are dense"),
    (
        {"output": {"class": "cumsum", "from": "data:source", "axis": OTHER}},
        SOURCE,
        "`axis` must be one of the source, or",
    ),
    ({"output": {"class": "window", "window_size": 3, "from": "data:source"}}, SOURCE, "it needs `window_right` 0"),
    (
        {"output": {"class": "rec", "unit": "lstm", "n_out": 3, "from": "data:source", "state": {"g": "prev:output"}}},
        SOURCE,
        "initial_state: unknown component 'g'",
    ),
    ({"output": linear("a"), "a": {"class": "copy", "from": "prev:a"}}, [], "the axes of 'a' could not be determined"),
]


@pytest.mark.parametrize(("unit", "source", "message"), WRONG)
def test_errors(unit, source, message):
    with pytest.raises(ConfigError) as caught:
        make({"output": loop(unit, source)})
    assert message in str(caught.value) and str(caught.value).startswith('network["output"]')


def test_a_previous_label_needs_an_initial_output():
    unit = {"output": linear("prev:x"), "x": {"class": "copy", "from": "data:classes"}}
    for optimize in (True, False):
        with pytest.raises(ConfigError, match='`initial_output` must be given, since "prev:" of this layer is read'):
            run(make({"output": loop(unit)}, optimize_move_layers_out=optimize))


def test_lengths_that_differ_are_an_error_where_the_loop_ticks():
    net = make({"output": loop({"output": linear(["data:source", "data:data", "prev:output"])}, ["data:frames"])})
    with pytest.raises(ConfigError, match="the length of 'data:data' .* differs from the length of the loop"):
        net(*batch({"data": {"dim": 4}, "frames": {"dim": 3}}, {"data": [5, 2, 3], "frames": [3, 4, 2]}))


def test_moved_out_both_lengths_stay():
    """As the full sum over all alignments of a transducer has it: every frame with every label."""
    keys = {"data": {"dim": 4}, "frames": {"dim": 4}}
    both = {"class": "eval", "from": ["data:source", "last"], "eval": "source(0) + source(1)"}
    unit = {"output": both, "last": {"class": "copy", "from": "prev:y"}, "y": {"class": "copy", "from": "data:frames"}}
    net = network({"output": loop(unit, ["data:data"], target="frames")}, keys)
    arrays, lengths = batch(keys, {"data": [5, 2, 3], "frames": [3, 4, 2]})
    out = net(arrays, lengths)["output"]
    before = torch.nn.functional.pad(arrays["frames"], (0, 0, 1, -1))
    expected = arrays["data"].transpose(0, 1).unsqueeze(1) + before.transpose(0, 1).unsqueeze(0)  # (T, U, B, F)
    torch.testing.assert_close(out.data, expected)
    assert [out.length(dim).values.tolist() for dim in out.spec.dims if dim.dynamic] == [[5, 2, 3], [3, 4, 2]]
