"""Which axis a loop runs over, how long it runs, what it can read, and errors."""

import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.tensor import Dim
from tests.nets import batch, network, randomised

DATA = {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}, "other": {"dim": 2}, "one": {"shape": (3,)}}
LENGTHS = {"data": [5, 3, 2], "classes": [4, 2, 3], "other": [2, 6, 1]}


def lin(source, size=3, activation="tanh", **more):
    return {"class": "linear", "activation": activation, "from": source, "n_out": size, **more}


def loop(unit, **more):
    return {"class": "rec", "from": [], "unit": unit, **more}


def run(net, lengths=LENGTHS, *, search=False, evaluate=True, feed=None, **config):
    made = randomised(network(net, DATA, search=search, evaluate=evaluate, **config))
    data, sizes = batch(DATA, lengths)
    return made, made(data | (feed or {}), sizes)


def lengths_of(x):
    return x.length(x.spec.time_dim).values.tolist()


BASE = {
    "ctx": {"class": "reduce", "mode": "mean", "axes": "T", "from": "data:data"},
    "len": {"class": "length", "from": "data:data"},
    "ends": {"class": "cast", "from": "len", "dtype": "float32"},
}


def counted(**more):
    """A loop that ends by itself, at the length of the data."""
    unit = {
        "n": {"class": "combine", "kind": "add", "from": ["prev:n", "base:step"], "initial_output": 0},
        "end": {"class": "compare", "from": ["n", "base:ends"], "kind": "greater_equal"},
        "output": lin(["prev:output", "base:ctx"]),
    }
    step = {"class": "eval", "from": "ends", "eval": "source(0) * 0.0 + 1.0"}
    return {**BASE, "step": step, "output": loop(unit, **more)}


@pytest.mark.parametrize("include_eos", [False, True])
def test_ends_by_itself(include_eos):
    made, out = run(counted(max_seq_len=20, include_eos=include_eos))
    want = [n if include_eos else n - 1 for n in LENGTHS["data"]]
    assert lengths_of(out["output"]) == want
    assert out["output"].batch_major().data.shape == (3, max(want), 3)


@pytest.mark.parametrize("bound", [1, 3, "max_len_from('base:data:data') - 2", "tf.minimum(max_len_from('ctx2'), 4)"])
def test_bound(bound):
    net = {**counted(max_seq_len=bound), "ctx2": {"class": "copy", "from": "data:data"}}
    made, out = run(net)
    limit = {"max_len_from('base:data:data') - 2": 3, "tf.minimum(max_len_from('ctx2'), 4)": 4}.get(bound, bound)
    assert lengths_of(out["output"]) == [min(n - 1, limit) for n in LENGTHS["data"]]


def test_a_layer_gives_the_bound():
    net = {**counted(max_seq_len_via="bound"), "bound": {"class": "constant", "value": 2}}
    assert lengths_of(run(net)[1]["output"]) == [2, 2, 1]


AXES = {
    "the source": ({"from": "data:data"}, "data"),
    "the target": ({"target": "classes"}, "classes"),
    "size_target": ({"size_target": "other", "target": "classes"}, "other"),
    "the source before size_target": ({"from": "data:data", "size_target": "other"}, "data"),
}


@pytest.mark.parametrize("name", list(AXES))
def test_axis(name):
    options, key = AXES[name]
    _, out = run({**BASE, "output": loop({"output": lin(["prev:output", "base:ctx"])}, **options)})
    assert lengths_of(out["output"]) == LENGTHS[key]


def test_data_read_frame_by_frame_gives_the_axis():
    unit = {"output": lin(["prev:output", "base:ctx", "data:other"])}
    _, out = run({**BASE, "output": loop(unit)})
    assert lengths_of(out["output"]) == LENGTHS["other"]
    unit["end"] = {"class": "compare", "from": ":i", "value": 0}  # ignored: the length is known
    _, out = run({**BASE, "output": loop(unit, max_seq_len=1)})
    assert lengths_of(out["output"]) == LENGTHS["other"]


def test_data_without_time_is_read_whole():
    unit = {"output": lin(["data:source", "prev:output", "data:one"])}
    made, out = run({"output": loop(unit, **{"from": "data:data"})})
    data = batch(DATA, LENGTHS)[0]
    first = torch.cat([data["data"][:, 0], torch.zeros(3, 3), data["one"]], 1)
    want = torch.tanh(first @ made.params["output/rec/output/W"] + made.params["output/rec/output/b"])
    torch.testing.assert_close(out["output"].batch_major().data[:, 0], want)


@pytest.mark.parametrize("moved", [True, False])
def test_offset_of_the_tick(moved):
    unit = {
        "t": {"class": "cast", "from": ":i", "dtype": "float32"},
        "output": {"class": "eval", "from": ["data:source", "t"], "eval": "source(0) * 0.0 + source(1)"},
    }
    more = {"from": "data:data", "optimize_move_layers_out": moved, "use_global_rec_step_offset": True}
    made = network({"output": loop(unit, **more)}, DATA)
    for start in (0, 7):
        made.context.tick_offset = start
        out = made(*batch(DATA, LENGTHS))["output"].batch_major().data
        assert out[0, :, 0].tolist() == [start + t for t in range(5)]


INITIAL = {
    None: 0.0,
    0: 0.0,
    2.5: 2.5,
    "zeros": 0.0,
    "ones": 1.0,
    "base:const": 7.0,
    "const2": 7.0,
}


@pytest.mark.parametrize("moved", [True, False])
@pytest.mark.parametrize("value", list(INITIAL))
def test_initial_output(value, moved):
    unit = {
        "x": {"class": "copy", "from": "data:source", "initial_output": value},
        "const2": {"class": "copy", "from": "base:const"},
        "output": {"class": "copy", "from": "prev:x"},
    }
    const = {"class": "eval", "from": "ctx", "eval": "source(0) * 0.0 + 7.0"}
    net = {**BASE, "const": const, "output": loop(unit, **{"from": "data:data", "optimize_move_layers_out": moved})}
    _, out = run(net)
    got = out["output"].batch_major().data
    assert (got[:, 0] == INITIAL[value]).all()
    assert torch.equal(got[0, 1:], batch(DATA, LENGTHS)[0]["data"][0, :-1])


@pytest.mark.parametrize("moved", [True, False])
def test_initial_flags_and_labels(moved):
    unit = {
        "flag": {"class": "compare", "from": "data:classes", "value": 9, "initial_output": True},
        "label": {"class": "copy", "from": "data:classes", "initial_output": 3},
        "f": {"class": "cast", "from": "prev:flag", "dtype": "float32"},
        "l": {"class": "cast", "from": "prev:label", "dtype": "float32"},
        "output": {"class": "combine", "kind": "add", "from": ["f", "l"]},
    }
    _, out = run({"output": loop(unit, optimize_move_layers_out=moved)})
    got = out["output"].batch_major().data
    assert (got[:, 0] == 4.0).all()
    assert torch.equal(got[0, 1:].int(), batch(DATA, LENGTHS)[0]["classes"][0, :-1])


def test_initial_output_over_an_outer_axis():
    """Accumulated attention weights start from zeros of the encoder's length."""
    unit = {
        "e0": {"class": "combine", "kind": "add", "from": ["base:keys", "q"]},
        "q": lin("data:source"),
        "e": lin(["e0", "prev:acc"], 1),
        "w": {"class": "softmax_over_spatial", "from": "e"},
        "acc": {"class": "combine", "kind": "add", "from": ["w", "prev:acc"], "is_output_layer": True},
        "last": {"class": "reduce", "mode": "sum", "axes": "stag:other", "from": "acc", "n_out": 1},
        "output": {"class": "copy", "from": "last"},
    }
    _, out = run({"keys": lin("data:other"), "output": loop(unit, **{"from": "data:data"})})
    sums = out["output"].batch_major().data[:, :, 0]
    torch.testing.assert_close(sums[0], torch.arange(1.0, 6.0))  # one more at each tick


def test_differing_lengths():
    unit = {"output": lin(["data:source", "data:other", "prev:output"])}
    with pytest.raises(ConfigError, match=r"the length of 'data:other' \(6\) differs from the length of the loop"):
        run({"output": loop(unit, **{"from": "data:data"})})


OUT = {"output": lin("data:source")}
CELL = {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 2}
FLAG = {"class": "eval", "from": [], "eval": "tf.constant(True)", "out_type": {"shape": (), "dtype": "bool"}}
COND = {"class": "cond", "from": [], "condition": FLAG, "false_layer": lin("data:source", 2)}
WRONG = {
    "no output": (loop({"x": lin("data:source")}, **{"from": "data"}), 'the unit needs a layer "output"'),
    "no source": (loop(OUT), "'data:source' needs a source, but `from` of the rec layer is empty"),
    "unknown length": (loop({"output": lin("base:ctx")}), "the length of the loop is not known"),
    "an axis by name": (loop({"output": lin("base:ctx")}, axis="T"), "`axis` must be a Dim in a loop without source"),
    "an unknown axis": (
        loop({"output": lin("base:ctx")}, axis=Dim(None, "new")),
        "the length of the loop is not known",
    ),
    "a cell as a branch": (
        loop({"output": {**COND, "true_layer": {**CELL, "from": "data:source"}}}, **{"from": "data"}),
        "a layer that carries a state from tick to tick cannot be a branch of `cond`",
    ),
    "no bound": (
        loop({"output": lin("base:ctx"), "end": {"class": "compare", "from": "output", "value": 0}}),
        "`max_seq_len` must be given for a loop that ends by its layer `end`",
    ),
    "two ticks back": (loop({"output": lin("prev:prev:output")}, **{"from": "data"}), "only one tick is kept"),
    "labels without a start": (
        loop({"l": {"class": "copy", "from": "data:classes"}, "output": lin("prev:l")}),
        "`initial_output` must be given",
    ),
    "a vector for labels": (
        loop({"l": {"class": "copy", "from": "data:classes", "initial_output": "var"}, "output": lin("prev:l")}),
        '`initial_output` "var" needs a dense layer with features',
    ),
    "an unknown layer": (loop({"output": lin("dta:source")}, **{"from": "data"}), "layer 'dta:source' not found"),
    "direction": (loop(OUT, direction=-1, **{"from": "data"}), "`direction` must be 1 for a loop"),
    "initial state": (loop(OUT, initial_state="var", **{"from": "data"}), "`initial_state` is only for named units"),
    "an end per feature": (
        loop({"output": lin("base:ctx"), "end": {"class": "compare", "from": "output", "value": 0}}, max_seq_len=3),
        r"`end` must be bool \(B,\), but is",
    ),
    "a wrong bound": (
        loop({"output": lin("base:ctx"), "end": {"class": "compare", "from": ":i", "value": 0}}, max_seq_len=[3]),
        r"`max_seq_len` must be an int or an expression, but is \[3\] instead",
    ),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_errors(name):
    layer, text = WRONG[name]
    with pytest.raises(ConfigError, match=text):
        run({**BASE, "output": layer})


def test_a_loop_takes_options_of_named_units_that_say_nothing():
    more = {"unit_opts": {}, "unroll": False, "input_projection": True, "forward_weights_init": 0.5, "bias_init": 1.0}
    loops = [network({"output": loop(OUT, **{"from": "data", **options})}, DATA) for options in ({}, more)]
    assert loops[0].params.keys() == loops[1].params.keys()
    with pytest.raises(ConfigError, match="has no option 'unroll'"):
        network({"output": loop(OUT, **{"from": "data", "unroll": True})}, DATA)


@pytest.mark.parametrize("include_eos", [True, False])
@pytest.mark.parametrize("started", ["base:short", True, False])
def test_sequences_may_have_ended_before_the_first_tick(started, include_eos):
    end = {"class": "compare", "kind": "greater_equal", "from": [":i", "base:len"], "initial_output": started}
    unit = {"end": end, "output": {"class": "combine", "kind": "add", "from": ["prev:output", "base:len"]}}
    unit["output"]["initial_output"] = 0
    net = {
        "len": {"class": "length", "from": "data:data"},
        "short": {"class": "compare", "kind": "less", "from": "len", "value": 3},
        "output": loop(unit, max_seq_len=9, include_eos=include_eos),
    }
    data, lengths = batch(DATA, {"data": [5, 3, 2]})
    out = network(net, DATA)(data, lengths)["output"]
    ended = {"base:short": [False, False, True], True: [True] * 3, False: [False] * 3}[started]
    wanted = [0 if over else n + include_eos for over, n in zip(ended, [5, 3, 2], strict=True)]
    assert out.length(out.spec.dims[0]).values.tolist() == wanted and out.data.shape[0] == max(wanted)
