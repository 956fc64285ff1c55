"""Layers with a state: moved out of their loop or not, the numbers are equal; their formulas, written out plainly."""

import math

import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.tensor import Dim
from tests.nets import batch, gradients, network, randomised, valid_part

TIME, HISTORY = Dim(None, "time"), Dim(None, "history")
SHARED = {"same_dim_tags_as": {"T": TIME}}
KEYS = {
    "data": {"shape": (None, 4), **SHARED},
    "flat": {"shape": (4,), "time_dim_axis": None},
    "classes": {"dim": 5, "sparse": True, **SHARED},
    "labels": {"dim": 5, "sparse": True},
}
LENGTHS = {"time": [5, 3, 4], "labels": [2, 4, 3]}
ATTEND = {"class": "self_attention", "num_heads": 2, "total_key_dim": 6, "n_out": 4, "attention_left_only": True}


def linear(source, n_out=4, **more):
    return {"class": "linear", "from": source, "n_out": n_out, "activation": "tanh", **more}


HISTORY_ATTENTION = {
    "key": linear("data:source"),
    "all": {"class": "cum_concat", "from": "key", "out_spatial_dim": HISTORY},
    "energy": {"class": "dot", "from": ["all", "data:source"], "reduce": "F", "var1": HISTORY, "var2": ()},
    "weights": {"class": "softmax_over_spatial", "from": "energy", "axis": HISTORY},
    "it": {"class": "generic_attention", "weights": "weights", "base": "all"},
}
UNITS = {
    "self_attention": {"it": {**ATTEND, "from": "data:source"}},
    "self_attention over a prefix": {"it": {**ATTEND, "from": ["data:source", "prev:it"]}},
    "self_attention with relative positions": {
        "shift": {"class": "relative_positional_encoding", "from": "data:source", "n_out": 3, "clipping": 2},
        "it": {**ATTEND, "from": "data:source", "key_shift": "shift"},
        "later": linear("prev:it"),
        "output": linear(["it", "later"]),
    },
    "positions": {"it": {"class": "positional_encoding", "from": "data:source", "n_out": 5}},
    "positions added to what is the same at all ticks": {
        "it": {"class": "positional_encoding", "from": "base:data:flat", "add_to_input": True}
    },
    "cum_concat": HISTORY_ATTENTION,
    "rec_unstack": {"it": {"class": "rec_unstack", "from": "base:other"}},
    "state of a cell": {
        "cell": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 3, "from": "data:source"},
        "now": {"class": "get_last_hidden_state", "from": "cell", "key": "c", "n_out": 3},
        "before": {"class": "get_last_hidden_state", "from": "prev:cell", "n_out": 6},
        "it": linear(["now", "before"]),
    },
    "edit distances": {
        "table": {"class": "edit_distance_table", "from": "data:classes", "target": "layer:base:data:labels"},
        "next": {"class": "optimal_completions", "from": "prev:table", "target": "layer:base:data:labels"},
        "it": {"class": "cast", "from": "next", "dtype": "float32"},
    },
    "two-dimensional": {
        "it": {"class": "twod_lstm", "from": ["base:data:labelled", "data:source"], "n_out": 3, "pooling": "max"}
    },
}
KEYS["labelled"] = {"shape": (None, 2)}
LENGTHS["labelled"] = [3, 1, 2]


def net_of(unit):
    loop = {"output": {"class": "copy", "from": "it"}, **unit}
    return {
        "other": linear("data:data"),
        "output": {"class": "rec", "from": "data:data", "unit": loop},
        "loss": linear("output", 1, loss="as_is", activation=None),
    }


def results(unit, train=True, **config):
    net = randomised(network(net_of(unit), KEYS, **config)).train(train)
    data, lengths = batch(KEYS, LENGTHS)
    out = net(data, lengths)
    return net, valid_part(out["output"].batch_major()), gradients(net, out.objective)


@pytest.mark.parametrize("name", UNITS)
def test_moved_out_or_not_the_numbers_are_equal(name):
    _, moved, moved_grads = results(UNITS[name])
    net, inside, grads = results(UNITS[name], optimize_move_layers_out=False)
    plan = net.program.names["output"].layer.program.plan
    assert not plan.before + plan.after
    torch.testing.assert_close(moved, inside, rtol=1e-4, atol=1e-5)
    for key, grad in grads.items():
        torch.testing.assert_close(moved_grads[key], grad, rtol=1e-4, atol=1e-5)
    assert bool(inside.any())


def test_without_feedback_they_run_outside_of_the_loop():
    for name in ("self_attention", "positions", "cum_concat", "rec_unstack", "two-dimensional"):
        net, _, _ = results(UNITS[name])
        assert net.program.names["output"].layer.program.plan.inside == (), name


def test_a_state_that_is_read_keeps_its_layer_in_the_loop():
    net, _, _ = results(UNITS["state of a cell"])
    assert net.program.names["output"].layer.program.plan.inside == ("cell", "now", "before")


def heads(qkv, count, keys, values):
    """Queries, keys, values of each head from the columns of QKV, one head after the other."""
    for head in qkv.split(2 * keys + values, -1):
        yield head.split([keys, keys, values], -1)


@pytest.mark.parametrize("left_only", [True, False])
def test_self_attention_is_its_formula(left_only):
    layer = {**ATTEND, "from": "data:data", "attention_left_only": left_only}
    net = randomised(network({"output": layer}, KEYS))
    data, lengths = batch(KEYS, LENGTHS)
    found = net(data, lengths)["output"].data
    for b, size in enumerate(LENGTHS["time"]):
        parts = []
        for q, k, v in heads(data["data"][b, :size] @ net.params["output/QKV"], 2, 3, 2):
            energy = q @ k.t() / math.sqrt(3)
            if left_only:
                energy = energy.masked_fill(torch.ones(size, size).triu(1).bool(), -math.inf)
            parts.append(energy.softmax(-1) @ v)
        torch.testing.assert_close(found[b, :size], torch.cat(parts, -1), rtol=1e-4, atol=1e-5)


def test_attention_dropout_drops_weights_in_training_only():
    layer = {**ATTEND, "from": "data:data", "attention_dropout": 0.5}
    net = randomised(network({"output": layer}, KEYS))
    plain = randomised(network({"output": {**ATTEND, "from": "data:data"}}, KEYS))
    data, lengths = batch(KEYS, {**LENGTHS, "time": [5, 5, 5]})
    expected = plain(data, lengths)["output"].data
    torch.testing.assert_close(net(data, lengths)["output"].data, expected)
    net.train().seed(1)
    samples = torch.stack([net(data, lengths)["output"].data for _ in range(2000)])
    torch.testing.assert_close(samples.mean(0), expected, rtol=0.1, atol=0.1)
    # The first frame has one weight: it is dropped or doubled.
    first = samples.detach()[:, 0, 0, :2] / expected.detach()[0, 0, :2]
    assert {round(float(x), 3) for x in first.flatten()} == {0.0, 2.0}
    assert not torch.equal(samples[:, 0, 0, 0] == 0, samples[:, 1, 0, 0] == 0)


def test_self_attention_goes_on_from_the_last_batch():
    layer = {**ATTEND, "from": "data:data", "initial_state": "keep_over_epoch"}
    net = randomised(network({"output": layer}, KEYS))
    whole = randomised(network({"output": {**ATTEND, "from": "data:data"}}, KEYS))
    data, lengths = batch(KEYS, {**LENGTHS, "time": [6, 6, 6]})
    expected = whole(data, lengths)["output"].data
    for part in (slice(0, 2), slice(2, 5), slice(5, 6)):
        piece = {**data, "data": data["data"][:, part], "classes": data["classes"][:, part]}
        sizes = {**lengths, "data": torch.full((3,), piece["data"].shape[1], dtype=torch.int32)}
        found = net(piece, {**sizes, "classes": sizes["data"]})["output"].data
        torch.testing.assert_close(found, expected[:, part], rtol=1e-4, atol=1e-5)
    net.context.epoch += 1
    torch.testing.assert_close(net(data, lengths)["output"].data, expected, rtol=1e-4, atol=1e-5)


def test_loops_need_attention_to_the_left_only():
    unit = {"it": {**ATTEND, "attention_left_only": False, "from": ["data:source", "prev:it"]}}
    with pytest.raises(ConfigError, match="`attention_left_only` must be True inside a loop"):
        results(unit)


def test_positions_are_sinusoids():
    net = network({"output": {"class": "positional_encoding", "from": "data:data", "n_out": 7}}, KEYS)
    found = net(*batch(KEYS, LENGTHS))["output"].data
    for t in range(5):
        rates = [10000 ** (-i / 2) for i in range(3)]
        expected = [math.sin(t * r) for r in rates] + [math.cos(t * r) for r in rates] + [0.0]
        torch.testing.assert_close(found[1, t], torch.tensor(expected))


def test_relative_positions_are_rows_of_clipped_distances():
    layer = {"class": "relative_positional_encoding", "from": "data:data", "n_out": 3, "clipping": 2}
    net = randomised(network({"output": layer}, KEYS))
    found = net(*batch(KEYS, LENGTHS))["output"].data
    for q in range(5):
        for k in range(5):
            row = max(-2, min(2, k - q)) + 2
            torch.testing.assert_close(found[q, k], net.params["output/encoding_matrix"][row])


def test_relative_positions_over_an_axis_of_fixed_size():
    layer = {"class": "relative_positional_encoding", "from": "data", "n_out": 2, "clipping": 1}
    keys = {"data": {"shape": (3, 4), "time_dim_axis": 1}}
    net = randomised(network({"output": layer}, keys))
    rows = net.params["output/encoding_matrix"]
    found = net(*batch(keys, {}))["output"].data
    torch.testing.assert_close(found, rows[torch.tensor([[1, 2, 2], [0, 1, 2], [0, 0, 1]])])


def test_the_last_state_of_copies_and_of_several_layers():
    lstm = {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": "data:data"}
    layers = {
        "forward": lstm,
        "backward": {**lstm, "direction": -1},
        "copied": {"class": "copy", "from": "forward"},
        "output": {"class": "get_last_hidden_state", "from": ["copied", "backward"], "key": "h", "n_out": 6},
        "sum": {
            "class": "get_last_hidden_state", "from": ["forward", "backward"], "key": "h", "n_out": 3, "combine": "add",
            "is_output_layer": True,
        },
        "frames": {"class": "copy", "from": ["forward", "backward"], "is_output_layer": True},
    }  # fmt: skip
    out = randomised(network(layers, KEYS))(*batch(KEYS, LENGTHS))
    frames = out["frames"].batch_major().data
    expected = torch.stack([torch.cat([frames[b, n - 1, :3], frames[b, 0, 3:]]) for b, n in enumerate(LENGTHS["time"])])
    torch.testing.assert_close(out["output"].data, expected)
    torch.testing.assert_close(out["sum"].data, expected[:, :3] + expected[:, 3:])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"key": "d", "n_out": 3}, "`key` must be one of"),
        ({"key": "c", "n_out": 4}, "`n_out` must be 3 for these states, but is 4"),
        ({"from": "data:data", "n_out": 4}, "a source has no hidden state"),
    ],
)
def test_wrong_states_are_named(options, text):
    lstm = {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": "data:data"}
    layers = {"lstm": lstm, "output": {"class": "get_last_hidden_state", "from": "lstm", **options}}
    with pytest.raises(ConfigError, match=text):
        network(layers, KEYS)(*batch(KEYS, LENGTHS))


def test_unstacking_declares_the_axis_of_the_loop():
    unit = {
        "x": {"class": "rec_unstack", "from": "base:other", "declare_rec_time": True},
        "output": linear(["x", "prev:output"]),
    }
    layers = {"other": linear("data:labelled"), "output": {"class": "rec", "from": [], "unit": unit}}
    x = randomised(network(layers, KEYS))(*batch(KEYS, LENGTHS))["output"]
    assert x.data.shape == (3, 3, 4) and x.length(x.spec.dims[0]).values.tolist() == LENGTHS["labelled"]


@pytest.mark.parametrize("pooling", ["last", "max", "average", "weighted"])
def test_two_dimensional_lstm_is_its_formula(pooling):
    layer = {"class": "twod_lstm", "from": ["data:labelled", "data:data"], "n_out": 3, "pooling": pooling}
    net = randomised(network({"output": layer}, KEYS))
    data, lengths = batch(KEYS, LENGTHS)
    found = net(data, lengths)["output"].batch_major().data
    p = {name.rpartition("/")[2]: value for name, value in net.params.items()}
    for b, (width, height) in enumerate(zip(LENGTHS["labelled"], LENGTHS["time"], strict=True)):
        zero = (torch.zeros(3), torch.zeros(3))
        above = [zero] * 3
        for t in range(height):
            left, row = zero, []
            for s in range(3):
                x = torch.cat([data["labelled"][b, s], data["data"][b, t]])
                gates = x @ p["W_re"] + left[0] @ p["Vh_re"] + above[s][0] @ p["Vv_re"]
                a, i, f, o, share = gates.split(3)
                kept = share.sigmoid() * left[1] + (1 - share.sigmoid()) * above[s][1]
                c = i.sigmoid() * a.tanh() + f.sigmoid() * kept
                left = (o.sigmoid() * c.tanh(), c)
                row.append(left)
            above, h = row, torch.stack([cell[0] for cell in row])
            if pooling == "weighted":
                expected = (h @ (data["data"][b, t] @ p["W_att"])).softmax(0) @ h
            else:
                expected = {"last": h[width - 1], "max": h.amax(0), "average": h[:width].mean(0)}[pooling]
            torch.testing.assert_close(found[b, t], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clipping", [0, 1, 2, 7])
def test_relative_positions_of_keys_are_those_of_the_rows(clipping):
    """Attention reads the encoding by its matrix; behind a copy layer it reads the rows. Gradients are equal, too."""
    encoding = {"class": "relative_positional_encoding", "from": "data:data", "n_out": 3, "clipping": clipping}
    layers = {"shift": encoding, "rows": {"class": "eval", "eval": "source(0) * 1.0", "from": "shift"}}
    found = []
    for shift in ("shift", "rows"):
        attend = {**ATTEND, "from": "data:data", "key_shift": shift, "attention_left_only": False}
        net = randomised(network({**layers, "output": linear("it", 1, loss="as_is"), "it": attend}, KEYS)).train()
        out = net(*batch(KEYS, LENGTHS))
        found.append((valid_part(out["it"]), gradients(net, out.objective)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-5)
    for key, grad in found[1][1].items():
        torch.testing.assert_close(found[0][1][key], grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unit, keys", [("gru", {"var"}), ("standardlstm", {"c", "h"})])
def test_the_trained_initial_state_of_a_cell(unit, keys):
    """In an rnn_cell it is a parameter of the layer itself; the numbers are those of `rec`."""
    cell = {"class": "rnn_cell", "unit": unit, "n_out": 3, "from": "data:source", "initial_state": "var"}
    net = network({
        "output": {"class": "rec", "from": "data", "unit": {"output": cell}},
        "r": {**cell, "class": "rec", "from": "data", "is_output_layer": True},
    }, {"data": {"dim": 4}})  # fmt: skip
    found = {name for name in net.params if "initial" in name}
    assert found == {f"{scope}/initial_{key}" for scope in ("output/rec/output", "r/rec") for key in keys}
    randomised(net)
    with torch.no_grad():
        for name, param in net.params.items():
            if name.startswith("r/"):
                inner = name.removeprefix("r/")
                inner = inner.removeprefix("rec/") if "initial" in inner else inner
                net.params[f"output/rec/output/{inner}"].copy_(param)
    out = net({"data": torch.randn(2, 4, 4)}, {"data": torch.tensor([4, 4])})
    torch.testing.assert_close(out["output"].batch_major().data, out["r"].batch_major().data)


LSTM = {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": "data:data"}


def cell_net(in_loop, **options):
    """An LSTM over the data, or a cell in a loop."""
    cell = {"class": "rnn_cell", "unit": "standardlstm", "n_out": 3, "from": "data:source", **options}
    loop = {"class": "rec", "from": "data:data", "unit": {"s": cell, "output": {"class": "copy", "from": "s"}}}
    net = {"output": loop if in_loop else {**LSTM, **options}}
    return randomised(network(net, KEYS, optimize_move_layers_out=False))


@pytest.mark.parametrize("kept", ["keep_over_epoch", "keep_over_epoch_no_init"])
@pytest.mark.parametrize("in_loop", [True, False])
def test_a_cell_goes_on_from_the_last_batch(kept, in_loop):
    """Sequences cut into three batches give what they give as a whole."""
    data, lengths = batch(KEYS, {**LENGTHS, "time": [6, 6, 6]})
    expected = cell_net(in_loop)(data, lengths)["output"].data
    net = cell_net(in_loop, initial_state=kept)
    for epoch in range(2):
        for part in (slice(0, 2), slice(2, 5), slice(5, 6)):
            piece = {**data, "data": data["data"][:, part], "classes": data["classes"][:, part]}
            sizes = {**lengths, "data": torch.full((3,), piece["data"].shape[1], dtype=torch.int32)}
            found = net(piece, {**sizes, "classes": sizes["data"]})["output"].data
            same = torch.allclose(found, expected[part], rtol=1e-4, atol=1e-5)
            assert same == (epoch == 0 or kept == "keep_over_epoch")
        net.context.epoch += 1


def test_one_part_of_a_state_is_kept():
    last = {"class": "get_last_hidden_state", "from": "first", "n_out": 3, "key": "c"}
    second = {**LSTM, "initial_state": {"c": "last", "h": 0}, "reuse_params": "first"}
    twice = randomised(network({"first": LSTM, "last": last, "output": second}, KEYS))
    kept = {**LSTM, "initial_state": {"c": "keep_over_epoch", "h": 0}}
    net = randomised(network({"first": kept, "output": {"class": "copy", "from": "first"}}, KEYS))
    data, lengths = batch(KEYS, LENGTHS)
    net(data, lengths)
    torch.testing.assert_close(net(data, lengths)["output"].data, twice(data, lengths)["output"].data)


@pytest.mark.parametrize("source", [["data:source"], ["data:source", "prev:s"]])
@pytest.mark.parametrize("moved", [True, False])
def test_a_state_begins_with_what_the_first_tick_reads(source, moved):
    """`initial_state` by "prev:" reads the initial output, by the name of a layer its first frame."""
    first = {"class": "linear", "n_out": 3, "from": "data:source", "initial_output": "ones"}
    unit = {"first": first, "s": {**LSTM, "from": source}, "output": {"class": "copy", "from": "s"}}
    start = {"class": "gather", "axis": "T", "position": 0, "from": "outside"}
    outside = {**first, "from": "data:data", "name_scope": "output/rec/first"}
    found = []
    for state in ("prev:first", "ones", *(("first", "base:start") if moved else ())):
        both = "ones" if state == "ones" else {"c": state, "h": state}
        inner = {**unit, "s": {**unit["s"], "initial_state": both}}
        loop = {"class": "rec", "from": "data:data", "unit": inner, "optimize_move_layers_out": moved}
        net = randomised(network({"outside": outside, "start": start, "output": loop}, KEYS))
        found.append(net(*batch(KEYS, LENGTHS))["output"].data)
    torch.testing.assert_close(found[0], found[1])
    if moved:  # else the layer is not known before the first tick
        torch.testing.assert_close(found[2], found[3])
