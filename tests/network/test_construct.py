"""Construction on demand: what is built, what references mean, and what is said about mistakes."""

import pytest
import torch

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError, ConfigErrors
from returnn_lite.log import Log
from returnn_lite.network import Network
from tests.nets import DENSE, batch, gradients, network, randomised

LENGTHS = {"data": [4, 2, 3], "classes": [4, 2, 3]}


def run(net, extern_data=None):
    data, lengths = batch(DENSE if extern_data is None else extern_data, LENGTHS)
    return net(data, lengths)


def linear(source="data", **more):
    return {"class": "linear", "from": source, "n_out": 3, **more}


def output(source="data", **more):
    return {"class": "softmax", "from": source, "loss": "ce", "target": "classes", **more}


def subnet(layers, **more):
    return {"class": "subnetwork", "from": "data", "subnetwork": layers, **more}


def error(net, extern_data=None, **options):
    """The one error of a net."""
    with pytest.raises(ConfigError) as caught:
        network(net, extern_data, **options)
    return str(caught.value)


# --- what is built -------------------------------------------------------------------------------------------------


def test_only_what_outputs_and_losses_need_is_built():
    net = network({
        "output": linear("a"),
        "a": linear(),
        "unused": {"class": "nonsense", "from": "nowhere"},
        "also unused": linear(unknown_option=1),
        "#hidden": "not even a dict",
        "second:output": linear(),
        "aux": linear(is_output_layer=True),
        "not shown": linear(is_output_layer=False),
        "scored": output("b"),
        "b": linear(),
    })  # fmt: skip
    built = {name for name in net.layers if not name.startswith("data")}
    assert built == {"output", "a", "second:output", "aux", "scored", "b"}
    assert net.used_data_keys == {"data", "classes"}


def test_a_net_without_start_points_has_objective_0():
    net = network({"a": linear()})
    out = run(net)
    assert not net.layers and not net.params and out.objective.item() == 0 and out.losses == {}


def test_layers_are_computed_after_what_they_read_and_parameters_stand_in_this_order():
    net = network({"output": linear(["b", "a"]), "a": linear("b"), "b": linear()})
    assert list(net.params) == ["b/W", "b/b", "a/W", "a/b", "output/W", "output/b"]


@pytest.mark.parametrize(
    ("option", "flags", "expected"),
    [
        ({}, {}, True),
        ({"only_on_search": True}, {}, False),
        ({"only_on_search": True}, {"search": True}, True),
        ({"only_on_eval": True}, {}, True),
        ({"only_on_eval": True}, {"evaluate": False}, False),
    ],
)
def test_start_points_by_flag(option, flags, expected):
    net = network({"output": linear(), "aux": output(**option)}, **flags)
    assert ("aux" in net.layers) == expected


def test_skipped_start_points_are_built_where_somebody_reads_them():
    assert "aux" in network({"output": linear("aux"), "aux": linear(only_on_search=True)}).layers


def test_loss_only_on_non_search_leaves_the_layer_without_its_loss():
    nets = [network({"output": output(loss_only_on_non_search=True)}, search=flag) for flag in (False, True)]
    assert [list(run(net).losses) for net in nets] == [["output"], []]
    assert list(nets[1].params) == ["output/W", "output/b"]


def test_only_on_eval_counts_only_outside_of_training():
    net = randomised(network({"output": output(), "aux": output(only_on_eval=True)}))
    assert run(net).losses["aux"].sum.item() > 0
    losses = run(net.train()).losses
    assert losses["aux"].sum.item() == losses["aux"].error.item() == 0 and losses["output"].sum.item() > 0


def test_without_evaluation_there_are_no_losses_but_the_targets_size_counts():
    net = network({"output": output()}, evaluate=False)
    out = run(net)
    assert out.losses == {} and out["output"].spec.dim == 5 and net.used_data_keys == {"data"}


# --- references ----------------------------------------------------------------------------------------------------


def test_data_keys():
    keys = {"data": {"dim": 4}, "classes": DENSE["classes"], "more": {"dim": 2}, "data:odd": {"dim": 3}}
    net = network({"output": linear(["data", "data:more"])}, keys)
    assert net.params["output/W"].shape == (6, 3) and net.used_data_keys == {"data", "more"}
    net = network({"output": linear(["data", "data:data"])}, keys)
    assert net.params["output/W"].shape == (8, 3)
    assert network({"output": linear()}, keys, default_input="more").params["output/W"].shape == (2, 3)


def test_a_layer_called_like_data_comes_first():
    net = network({"output": linear("data:more"), "data:more": linear("data", n_out=7)})
    assert net.params["output/W"].shape == (7, 3)


def test_sequence_tags_and_none_in_from():
    tags = {"class": "copy", "from": "data:seq_tag", "is_output_layer": True}
    net = network({"output": linear(["none", "data", "none"]), "tags": tags})
    assert net.params["output/W"].shape == (4, 3) and net.spec("tags").dtype == "string"


def test_from_defaults_to_data_only_at_behavior_version_0():
    layer = {"class": "linear", "n_out": 3}
    assert network({"output": layer}).params["output/W"].shape == (4, 3)
    assert error({"output": layer}, behavior_version=1) == (
        'network["output"]: `from` is missing (required since behavior_version >= 1)'
    )


@pytest.mark.parametrize(
    ("target", "size"),
    [("classes", 5), (None, 5), ("more", 2), ("layer:made", 3), ("made", 3), (["more", "classes"], 2)],
)
def test_target_gives_the_size(target, size):
    keys = {**DENSE, "more": {"dim": 2, "sparse": True}}
    layer = {"class": "softmax", "from": "data", "loss": "mse" if size == 3 else "ce", "target": target}
    net = network({"output": layer, "made": linear()}, keys)
    assert net.spec("output").dim == size


def test_the_default_target_is_an_option():
    keys = {"data": {"dim": 4}, "words": {"dim": 6, "sparse": True}}
    net = network({"output": output(target=None)}, keys, target="words")
    assert net.spec("output").dim == 6 and net.used_data_keys == {"data", "words"}


def test_a_layer_wins_over_a_data_key_of_the_same_name_as_target():
    keys = {**DENSE, "other": {"dim": 2, "sparse": True}}
    net = network({"output": output(), "classes": {"class": "copy", "from": "data:other"}}, keys)
    assert net.spec("output").dim == 2 and net.used_data_keys == {"data", "other"}


def test_register_as_extern_data():
    net = network({
        "output": {"class": "linear", "from": "data", "loss": "mse", "target": "made"},
        "z": linear("data:made", n_out=2, is_output_layer=True),
        "target layer": linear(n_out=7, register_as_extern_data="made"),
    })  # fmt: skip
    assert net.spec("output").dim == 7 and net.params["z/W"].shape == (7, 2) and net.used_data_keys == {"data"}
    out = run(net)
    assert out["z"].shape == (3, 4, 2)


def test_legacy_form_of_the_data_keys():
    keys = {"classes": [5, 1], "more": [2, 2]}
    net = network({"output": output(["data", "data:more"])}, num_inputs=4, num_outputs=keys)
    assert net.params["output/W"].shape == (6, 5)
    assert network({"output": output()}, num_inputs=4, num_outputs=5).params["output/W"].shape == (4, 5)
    sparse = network({"output": output()}, num_inputs=4, num_outputs={"classes": 5}, sparse_input=True)
    assert sparse.extern_data.spec("data").sparse and sparse.params["output/W"].shape == (4, 5)


# --- parameters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "scope"),
        [
        ("a:b", "a__b"), ("_h", ".95.h"), ("-x", ".95._x"), ("/top", ".47.top"), ("a b+c", "a__b__c"), ("ä1", "1"),
        ("x.y", "x.y"),
    ],
)  # fmt: skip
def test_scope_of_special_names(name, scope):
    found = set(network({name: linear(is_output_layer=True)}).params)
    assert found == {f"{scope}/W", f"{scope}/b"}


def test_name_scopes():
    net = network({
        "output": linear(["a", "b", "c"]),
        "a": linear(name_scope="shared"),
        "b": linear(name_scope="shared"),
        "c": linear(name_scope=""),
        "sub": subnet({"output": linear(name_scope="/top/x")}, is_output_layer=True),
    })  # fmt: skip
    assert set(net.params) == {"output/W", "output/b", "shared/W", "shared/b", "W", "b", "top/x/W", "top/x/b"}


def test_one_scope_with_two_shapes_is_an_error():
    text = error({"output": linear(["a", "b"]), "a": linear(name_scope="s"), "b": linear(name_scope="s", n_out=2)})
    assert text == "network[\"b\"]: parameter 's/W' is shared and must have shape (4, 2), but is (4, 3) instead"


@pytest.mark.parametrize(
    ("reuse", "own"),
    [
        ("a", set()),
        ({"reuse_layer": "a"}, set()),
        ({"map": {"W": "a", "b": None}}, {"b/b"}),
        ({"map": {"W": "a"}, "auto_create_missing": True}, {"b/b"}),
        ({"map": {"W": {"reuse_layer": "a"}, "b": "a"}}, set()),
        ({"reuse_layer": "no bias", "auto_create_missing": True}, {"b/b"}),
        (None, {"b/W", "b/b"}),
        ({}, {"b/W", "b/b"}),
    ],
)
def test_reuse_params(reuse, own):
    net = network({
        "output": linear(["a", "b", "no bias"]), "a": linear(), "no bias": linear(with_bias=False),
        "b": linear(reuse_params=reuse),
    })  # fmt: skip
    others = {"output/W", "output/b", "a/W", "a/b", "no bias/W".replace(" ", "__")}
    assert set(net.params) == others | own


def test_gradients_of_shared_parameters_add_up():
    def grad(**more):
        net = randomised(network({"output": output(["a", "b"]), "a": linear(), "b": linear(**more)}))
        if not more:
            with torch.no_grad():
                net.params["b/W"].copy_(net.params["a/W"]), net.params["b/b"].copy_(net.params["a/b"])
        return gradients(net, run(net).objective)

    shared, apart = grad(reuse_params="a"), grad()
    torch.testing.assert_close(shared["a/W"], apart["a/W"] + apart["b/W"])


@pytest.mark.parametrize(
    ("reuse", "message"),
    [
        ("nothing", "layer 'nothing' not found"),
        ("no bias", "reuse_params: layer 'no bias' has no parameter 'b'; it has: W"),
        ({"map": {"W": "a"}}, "reuse_params: parameter 'b' is not in the map ['W']"),
        ("wide", "reuse_params: 'W' must have shape (4, 3), but is (4, 9) instead"),
        ({"reuse": "a"}, "reuse_params: unknown entry 'reuse'"),
        ({"map": ["W"]}, 'reuse_params["map"]: must be a dict by parameter'),
        ({"map": {"W": 3}}, 'reuse_params["map"]["W"]: must be a layer name, a dict or None'),
        ({"map": {"W": {"reuse_layer": 3}}}, 'reuse_params["reuse_layer"]: must be a layer name'),
        ({"custom": "a"}, 'reuse_params["custom"]: must be a function'),
    ],
)
def test_errors_of_reuse_params(reuse, message):
    net = {"a": linear(), "no bias": linear(with_bias=False), "wide": linear(n_out=9)}
    assert message in error({**net, "output": linear(reuse_params=reuse)})


def test_trainable_false():
    trains = lambda net: {n for n, p in net.params.items() if p.requires_grad}  # noqa: E731
    net = {"output": linear("a"), "a": linear(trainable=False)}
    assert trains(network(net)) == {"output/W", "output/b"}
    assert trains(network({**net, "#trainable": False})) == set()
    inner = {"output": linear("in"), "in": linear()}
    outer = {"output": linear("sub"), "sub": subnet(inner, trainable=False)}
    assert trains(network(outer)) == {"output/W", "output/b"}


# --- objective -----------------------------------------------------------------------------------------------------


def test_l2_is_added_without_a_factor_one_half():
    net = randomised(network({"output": output("a"), "a": linear(L2=0.1)}))
    out = run(net)
    expected = 0.1 * (net.params["a/W"].square().sum() + net.params["a/b"].square().sum())
    torch.testing.assert_close(out.objective - out.losses["output"].sum, expected)
    assert net.param_options["a/W"].l2 == 0.1 and net.param_options["output/W"].l2 == 0


def test_decoupled_constraints_are_left_to_the_optimizer():
    net = randomised(network({"output": output("a"), "a": linear(L2=0.1)}, decouple_constraints=True))
    out = run(net)
    assert out.objective.item() == out.losses["output"].sum.item() and net.param_options["a/W"].l2 == 0.1


def test_scales_of_losses():
    net = randomised(network({
        "output": output(), "half": output(loss_scale=0.5), "shown": output(loss_scale=0),
        "by opts": output(loss_opts={"scale": 2.0}),
        "mean": output(loss_opts={"use_normalized_loss": True}),
    }))  # fmt: skip
    out = run(net)
    sums = {n: v.sum for n, v in out.losses.items()}
    frames = 9
    assert {float(v.inv_norm) for v in out.losses.values()} == {frames}
    expected = sums["output"] + 0.5 * sums["half"] + 2 * sums["by opts"] + sums["mean"] / frames
    torch.testing.assert_close(out.objective, expected)


def test_custom_norm_factors():
    by_layer = output(loss_opts={"custom_inv_norm_factor": "count"})
    layers = {"output": output(loss_opts={"custom_norm_factor": 0.25}), "b": by_layer}
    keys = {**DENSE, "weight": {"shape": ()}}
    net = network({**layers, "count": {"class": "eval", "from": "data:weight", "eval": "source(0) * 2.0"}}, keys)
    data, lengths = batch(keys, LENGTHS)
    losses = net(data, lengths).losses
    assert float(losses["output"].inv_norm) == 4
    torch.testing.assert_close(losses["b"].inv_norm, 2 * data["weight"].sum())


# --- mistakes ------------------------------------------------------------------------------------------------------


OF_THE_OUTPUT = [
    (linear("hiden"), "layer 'hiden' not found; did you mean \"hidden\"?; required by 'output'"),
    (linear("data:dta"), "unknown data key 'dta'; did you mean \"data\"?; keys: 'data', 'classes'"),
    (output(target="clases"), "unknown data key 'clases'; did you mean \"classes\"?"),
    ({"class": "liner", "from": "data"}, "unknown layer class 'liner'; did you mean \"linear\"?"),
    ({"from": "data"}, 'the entry "class" is missing'),
    (5, "a layer must be a dict, but is 5 instead"),
    (linear("#x"), "layer '#x' not found; required by 'output'"),
    (linear("base:data"), '"base:data" needs a parent net, but this is the root net'),
    (linear("prev:output"), '"prev:output" exists only inside a loop (the unit of a rec layer)'),
    (linear(5), "`from` must be a layer name or a list of them, but is 5 instead"),
    (linear([5]), "a layer reference must be a str, but is 5 instead"),
    (linear([]), "layer class 'linear' needs a source, but `from` is empty"),
    (
        {"class": "activation", "from": "data"},
        "layer class 'activation' needs the option 'activation', but it is missing",
    ),
    (
        {"class": "linear", "from": "data"},
        "the output size is not known: give `n_out`, `out_dim` or `target`",
    ),
    (
        {"class": "activation", "from": "data", "activation": None, "n_out": 9},
        "`n_out` must be 4, but is 9 instead",
    ),
    (linear(n_out="3"), "`n_out` must be an int from 1 to 2**31 - 1 or None, but is '3' instead"),
    (output(loss="cee"), "unknown loss 'cee'; did you mean \"ce\"?"),
    (
        output(loss_scale=2.0, loss_opts={"scale": 3.0}),
        "`loss_scale` and the loss option `scale` cannot be used together",
    ),
]


@pytest.mark.parametrize(("layer", "message"), OF_THE_OUTPUT)
def test_errors_of_a_layer_begin_with_its_path(layer, message):
    assert error({"output": layer, "hidden": linear(), "#x": linear()}).startswith(f'network["output"]: {message}')


def test_the_layers_that_asked_are_named():
    text = error({"output": linear("a"), "a": linear("nope")})
    assert text == "network[\"a\"]: layer 'nope' not found; required by 'a' <- 'output'"


def test_unknown_loss_options():
    text = error({"output": output(loss_opts={"label_smothing": 1})})
    assert text.startswith("network[\"output\"][\"loss_opts\"]: loss 'ce' has no option 'label_smothing'; did you mean")


def test_dependency_loop_shows_the_chain():
    text = error({"output": linear("a"), "a": linear("b"), "b": linear(["data", "c"]), "c": linear("a")})
    assert text == "network[\"a\"]: there is a dependency loop on layer 'a': a <- b <- c <- a"


def test_errors_of_several_outputs_are_collected():
    with pytest.raises(ConfigErrors) as caught:
        network({
            "output": linear("nope"), "one": output(unknown=1), "two": output("x"), "x": linear("none at all"),
            "fine": output(),
        })  # fmt: skip
    assert [e.path for e in caught.value.errors] == ['network["one"]', 'network["output"]', 'network["x"]']
    assert str(caught.value).count("\n") == 2 and str(caught.value).startswith(str(caught.value.errors[0]))


def test_all_unknown_and_missing_options_of_a_layer_are_told_at_once():
    with pytest.raises(ConfigErrors) as caught:
        network({"output": {"class": "activation", "from": "data", "activaton": "relu", "dropuot": 0.1}})
    text = str(caught.value)
    assert 'did you mean "activation"?' in text and 'did you mean "dropout"?' in text
    assert "needs the option 'activation'" in text


def test_one_error_is_told_once_even_if_several_layers_meet_it():
    with pytest.raises(ConfigError) as caught:
        network({"output": output("bad"), "other": output("bad"), "bad": linear(unknown=1)})
    assert not isinstance(caught.value, ConfigErrors) and caught.value.path == 'network["bad"]'


@pytest.mark.parametrize("padded", [5, 4])
def test_data_that_does_not_fit_extern_data(padded):
    net = network({"output": linear()})
    with pytest.raises(ConfigError, match=r"`shape` must be that of the data, \(\d, 3\), but is \(None, 4\) instead"):
        net({"data": torch.zeros(2, padded, 3)}, {"data": torch.tensor([padded, 2])})


def test_a_missing_data_key_is_named():
    net = network({"output": output()})
    with pytest.raises(ConfigError, match="the dataset has no data key 'classes'; it has: 'data'"):
        net({"data": torch.zeros(2, 3, 4)}, {"data": torch.tensor([3, 2])})


def test_output_and_target_must_fit():
    text = "output and target must have the same frames, but have \\(3, 4\\) and \\(3, 5\\)"
    net = network({"output": output()})
    data, lengths = batch(DENSE, {"data": [4, 2, 3], "classes": [5, 2, 3]})
    with pytest.raises(ConfigError, match=text):
        net(data, lengths)
    net = network({"output": output(n_out=7)})
    with pytest.raises(ConfigError, match='network\\["output"\\]: the output must have dim 5, but has 7'):
        run(net)


def test_a_failure_at_run_time_names_layer_and_inputs():
    net = network({"output": {"class": "eval", "from": "data", "eval": "source(0).no_such_thing"}})
    with pytest.raises((ConfigError, AttributeError)) as caught:
        run(net)
    assert "no_such_thing" in str(caught.value)


def test_a_layer_can_be_asked_for_by_name():
    net = network({"output": linear()})
    with pytest.raises(ConfigError, match="layer 'outpt' was not built; did you mean \"output\"?"):
        net.spec("outpt")
    assert not net.recurrent and net.global_step == 0


def test_every_layer_is_told_in_the_log(capsys):
    config = Config({"extern_data": DENSE, "log_verbosity": 3})
    Network(config, {"output": linear()}, log=Log.from_config(config))
    axes = "[B, T:time:var:extern_data:data(?), F:output:feature-dense(3)] float32"
    assert f"layer network/'output': {axes}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["copy", "dropout"])
@pytest.mark.parametrize("deps", ["a", ["a", "b"], None])
def test_extra_deps_are_built(name, deps):
    net = network({"output": {"class": name, "from": "data", "extra_deps": deps}, "a": linear(), "b": linear()})
    wanted = {"a", "b"} if isinstance(deps, list) else {deps} - {None}
    assert {name.split("/")[0] for name in net.params} == wanted
    assert wanted <= set(net.layers)


def test_extra_deps_that_are_not_there():
    assert "layer 'ab' not found" in error({"output": {"class": "copy", "from": "data", "extra_deps": ["ab"]}})


def test_what_needs_references_is_not_computed_without_losses():
    """Where it is known which layer is wanted; references are the data that are not `available_for_inference`."""
    layers = {
        "encoder": {"class": "linear", "n_out": 3, "from": "data"},
        "embedded": {"class": "linear", "n_out": 3, "from": "data:classes"},
        "output": {"class": "combine", "kind": "add", "from": ["encoder", "embedded"]},
        "aside": {"class": "length", "from": "data:classes", "is_output_layer": True},
        "loss": {"class": "softmax", "from": "encoder", "loss": "ce"},
    }
    keys = {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}}

    def data_keys(wanted, **options):
        extern = {**keys, "classes": {**keys["classes"], **options}}
        net = Network(Config({"extern_data": extern}), layers, eval=False, extra_layers=wanted)
        assert "embedded/W" in net.params  # as in the file of the training
        return net.used_data_keys

    assert data_keys(("encoder",)) == {"data"}
    assert data_keys(("encoder", "loss")) == {"data"}
    assert data_keys(("output",)) == data_keys(()) == {"data", "classes"}
    assert data_keys(("encoder",), available_for_inference=True) == {"data", "classes"}
    dump = {"class": "hdf_dump", "from": "data", "filename": "x.hdf", "extra": {"cls": "data:classes"}}
    layers["dump"] = {**dump, "is_output_layer": True}  # a file is wanted wherever it is written
    assert data_keys(("encoder",)) == {"data", "classes"}
