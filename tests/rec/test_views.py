"""What functions of configs may ask of other layers, nets, loops and hypotheses: states, outputs, ticks, scores."""

import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.layers.views.network_view import LayerNotFound
from tests.nets import batch, network, randomised

DATA = {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}}
LENGTHS = {"data": [5, 3, 2], "classes": [4, 2, 3]}


def run(net, *, search=False, **config):
    made = randomised(network(net, DATA, search=search, **config), 1.0)
    with torch.no_grad():
        return made(*batch(DATA, LENGTHS))


def eval_layer(source, function, **more):
    return {"class": "eval", "from": source, "eval": function, **more}


# --- hidden states ----------------------------------------------------------------------------------------------------


def state_function(source, self, key="*"):
    assert self.sources[0].name in ("cell", "lstm")
    return (source(0, auto_convert=False), self.sources[0].get_last_hidden_state(key=key))[-1]


@pytest.mark.parametrize("key, size", [("c", 3), ("h", 3), ("*", 6)])
@pytest.mark.parametrize("code", [
    "(source(0, auto_convert=False), self.sources[0].get_last_hidden_state(key='{key}'))[-1]",
    "source(0, as_layer=True).get_last_hidden_state('{key}')",
    state_function,
])  # fmt: skip
def test_states_of_sources(key, size, code):
    how = {"eval_locals": {"key": key}} if callable(code) else {}
    code = code if callable(code) else code.format(key=key)
    unit = {
        "cell": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 3, "from": "data:source"},
        "asked": eval_layer("cell", code, out_type={"dim": size, "shape": (size,)}, is_output_layer=True, **how),
        "wanted": {
            "class": "get_last_hidden_state",
            "from": "cell",
            "key": key,
            "n_out": size,
            "is_output_layer": True,
        },
        "output": {"class": "copy", "from": ["asked", "wanted"]},
    }
    out = run({
        "lstm": {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": "data"},
        "asked": eval_layer("lstm", code, out_type={"dim": size, "shape": (size,), "time_dim_axis": None}, **how),
        "wanted": {"class": "get_last_hidden_state", "from": "lstm", "key": key, "n_out": size},
        "output": {"class": "copy", "from": ["asked", "wanted"]},
        "loop": {"class": "rec", "from": "data", "unit": unit, "is_output_layer": True},
    })  # fmt: skip
    for made in (out["output"], out["loop"]):
        asked, wanted = made.data.split(size, -1)
        assert torch.equal(asked, wanted) and bool(asked.any())


def test_a_layer_without_state_says_so():
    net = {"output": eval_layer("data", "self.sources[0].get_last_hidden_state('c')")}
    with pytest.raises(ConfigError, match=r"network\[.output.\]: layer 'data:data' has no hidden state"):
        run(net)


# --- other layers -----------------------------------------------------------------------------------------------------


def look_around(source, self):
    net = self.network
    assert net.parent_net is None and net.parent_layer is None and net.get_root_network() is net and net.name == "root"
    assert net.get_layer("twice").output.placeholder is not None and net.get_layer("data").output.dim == 4
    assert set(net.layers) >= {"twice"} and "later" not in net.layers
    assert self.output.dim == 4 and self.kwargs["from"] == "twice" and self.get_dep_layers()[0].name == "twice"
    return source(0) + net.get_layer("twice").output.placeholder - net.layers["twice"].output.placeholder


def test_layers_of_the_net():
    out = run({
        "twice": eval_layer("data", "source(0) * 2."),
        "output": eval_layer("twice", look_around),
        "later": {"class": "copy", "from": "output", "is_output_layer": True},
    })  # fmt: skip
    assert torch.equal(out["later"].data, out["twice"].data)


@pytest.mark.parametrize("name, reason", [("twic", '; did you mean "twice"?'), ("later", "; it is computed later")])
def test_layers_that_are_not_there(name, reason):
    net = {
        "twice": eval_layer("data", "source(0) * 2."),
        "output": eval_layer("twice", f"source(0) + self.network.get_layer('{name}').output.placeholder"),
        "later": {"class": "copy", "from": "output", "is_output_layer": True},
    }
    with pytest.raises(LayerNotFound, match=f"layer {name!r} not found{reason}".replace("?", r"\?")):
        run(net)


def look_in_loop(source, self):
    net = self.network
    assert net.parent_net.name == "root" and net.parent_layer.name == "loop" and net.name == "loop/rec"
    assert net.get_root_network().parent_net is None
    info = net.get_rec_step_info()
    assert int(info.step) == int(net.get_rec_step_index())
    now, before = net.get_layer("now").output.placeholder, net.get_layer("prev:sum").output.placeholder
    whole = net.get_layer("base:twice").output
    assert whole.time_dimension() == 5 and net.parent_net.get_layer("twice").output.time_dimension() == 5
    ended = info.get_end_flag()
    assert ended.tolist() == [int(info.step) > n for n in (5, 3, 2)]
    return source(0) + source(1) + 0 * (now + before)


def test_layers_of_a_loop():
    unit = {
        "seen": {"class": "reduce", "mode": "mean", "axes": "T", "from": "base:twice"},
        "now": eval_layer(["data:source", "prev:sum", "seen"], "source(0) + 0 * (source(1) + source(2))"),
        "sum": eval_layer(["now", "prev:sum"], look_in_loop),
        "output": {"class": "copy", "from": "sum"},
    }
    net = {
        "twice": eval_layer("data", "source(0) * 2."),
        "loop": {"class": "rec", "from": "data", "unit": unit, "is_output_layer": True},
        "output": {"class": "copy", "from": ["loop", "twice"]},
    }
    torch.testing.assert_close(run(net)["loop"].batch_major().data, batch(DATA, LENGTHS)[0]["data"].cumsum(1))


def test_steps_of_the_epoch():
    made = network({"output": eval_layer("data", "source(0) * 0. + float(self.network.epoch_step)")}, DATA)
    for epoch, first in ((1, 0), (2, 7)):
        made.epoch = epoch
        for step in range(3):
            made.global_step = first + step
            assert float(made(*batch(DATA, LENGTHS))["output"].data.max()) == step


# --- search -----------------------------------------------------------------------------------------------------------


def combine(layer, scores_in, scores_base, t, **_):
    assert layer.search_scores_in is scores_in and layer.search_scores_base is scores_base
    assert layer.search_scores_combined is None and layer.name == "output" and layer.sources[0].name
    return scores_in + scores_base


def test_scores_of_hypotheses():
    unit = {
        "emb": {"class": "linear", "activation": None, "from": "output", "n_out": 3},
        "s": {"class": "linear", "activation": "tanh", "from": ["prev:emb", "base:mean"], "n_out": 4},
        "prob": {"class": "softmax", "from": "s", "target": "classes"},
        "output": {
            "class": "choice", "from": "prob", "target": "classes", "beam_size": 3, "initial_output": 0,
            "custom_score_combine": combine,
        },
        "end": {"class": "compare", "from": "output", "value": 0},
    }  # fmt: skip
    net = {
        "mean": {"class": "reduce", "mode": "mean", "axes": "T", "from": "data"},
        "output": {"class": "rec", "from": [], "target": "classes", "max_seq_len": 6, "unit": unit},
        "asked": eval_layer("best", look_at_beam, is_output_layer=True),
        "best": {"class": "copy", "from": "output", "is_output_layer": True},
    }
    made = randomised(network(net, DATA, search=True), 1.0)
    with torch.no_grad():
        out = made(*batch(DATA, LENGTHS))
    assert SEEN and torch.equal(SEEN[-1], out["output"].beam.scores)
    del SEEN[:]
    with torch.no_grad():
        network(net, DATA)(*batch(DATA, LENGTHS))
    assert SEEN == [None]


SEEN = []


def look_at_beam(source, self):
    choices = self.sources[0].search_choices
    assert (choices is None) == (not self.network.search_flag)
    SEEN.append(None if choices is None else torch.as_tensor(choices.beam_scores).as_subclass(torch.Tensor))
    if choices is not None:
        assert choices.beam_size == 3 and choices.src_beams.shape == (3, 3)
        assert torch.equal(choices.beam_scores, self.search_choices.beam_scores)
    return source(0)


@pytest.mark.parametrize("code, message", [
    ("self.network.get_confg()", "the network has no attribute 'get_confg'; did you mean \"get_config\"?"),
    ("self.sorces[0]", "the layer has no attribute 'sorces'; did you mean \"sources\"?"),
    ("source(0, as_data=True).placholder", "no attribute 'placholder'; did you mean \"placeholder\"?"),
    ("source(0, as_layer=True).ouput", "the layer has no attribute 'ouput'; did you mean \"output\"?"),
    ("self.network.extern_data.dat", "the extern data has no attribute 'dat'; did you mean \"data\"?"),
    ("tf.clip_by_valu(source(0))", "has no attribute 'clip_by_valu'; did you mean \"clip_by_value\"?"),
])  # fmt: skip
def test_unknown_names_are_told_with_the_nearest_known(code, message):
    with pytest.raises(ConfigError) as caught:
        run({"output": eval_layer("data", code)})
    assert str(caught.value).startswith('network["output"]') and message in str(caught.value)


def test_and_with_the_line_of_the_config():
    def function(source, self):
        return self.network.get_confg()

    line = f"{__file__}:{function.__code__.co_firstlineno + 1}"
    with pytest.raises(ConfigError) as caught:
        run({"output": eval_layer("data", function)})
    assert line in str(caught.value)
